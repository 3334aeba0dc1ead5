"""Who may import whom: see docs/develop.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "straylight"
HEAVY = {"torch", "pytorch_lightning", "torchvision", "hydra", "omegaconf", "nflows", "sklearn", "h5py", "pandas"}
HEAVY |= {"onnx", "onnxscript", "onnxruntime", "optuna", "psutil", "pynvml", "pydantic"}
TORCH, LIGHTNING, HYDRA = {"torch"}, {"torch", "pytorch_lightning"}, {"hydra", "omegaconf"}
#: From the ground up: the rooms of each floor, and the heavy packages that stand at the head of their files. A room
#: imports from the floors below it, from its own, and from none above.
FLOORS: list[dict[str, set[str]]] = [
    {
        "errors": set(),
        "extras": set(),
        "checks": set(),
        "atomic": set(),
        "result": set(),
        "keys": set(),
        "groups": set(),
        "folder": set(),
        "catalogue": set(),  # yaml, where settings are read
        "documents": set(),  # yaml, where a text is parsed
        "console": set(),
        "streams": set(),
        "phases": set(),
        "loading": set(),
        "runtimes": set(),
        "objective": set(),
        "journal": {"optuna"},
        "trust": set(),
        "versions": set(),
        "stopping": set(),
        "rows": TORCH,
        "batch": set(),  # where the rows' names were before
        "metrics": set(),
        "criteria": set(),
    },
    {"nn": TORCH | {"nflows"}, "files": TORCH, "report": set(), "export": TORCH | {"onnxruntime"}},
    {"detectors": LIGHTNING, "data": LIGHTNING, "explain": TORCH},
    {"callbacks": LIGHTNING},
    {
        "overrides": set(),  # of Hydra's, imported where a text is parsed
        "config": HYDRA | {"pydantic"},
        "habits": set(),
        "job": LIGHTNING | HYDRA | {"pydantic"},
        "judged": TORCH,
        "run": TORCH | {"omegaconf", "pydantic"},
        "parts": LIGHTNING | HYDRA,
        "pyfunc": set(),
        "study": LIGHTNING,
        "sklearn": TORCH | {"omegaconf", "sklearn"},
        "cross_validation": LIGHTNING,
        "bar": set(),
    },
    {"scoring": TORCH, "sweep": HYDRA | {"psutil", "pydantic"}, "engines": {"psutil"}, "search": HYDRA | {"optuna"}},
    {"commands": LIGHTNING | HYDRA, "cli": set(), "__main__": set()},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
#: Rooms of one floor that do not know each other, or not the ones named.
APART = {("detectors", "data"), ("data", "detectors"), ("nn", "files"), ("files", "nn"), ("report", "nn")}
APART |= {("report", "files"), ("files", "report"), ("nn", "report"), ("metrics", "rows"), ("rows", "metrics")}
APART |= {("detectors", "explain"), ("data", "explain"), ("explain", "data")}
APART |= {("job", "run"), ("job", "study"), ("run", "study"), ("folder", "rows"), ("config", "job"), ("sweep", "local")}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module of a file, as it is imported."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(tree: ast.AST, top_only: bool) -> set[str]:
    """What a file imports, with the names it takes; what stands under `if TYPE_CHECKING` is none of it."""
    nodes = list(tree.body) if top_only else list(ast.walk(tree))  # type: ignore[attr-defined]
    for_types = [n for n in nodes if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    unreal = {id(inside) for node in for_types for inside in ast.walk(node)}
    found = set()
    for node in nodes:
        if id(node) in unreal:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def modules_of(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in it."""
    found = set()
    for name in imports(ast.parse(path.read_text()), top_only=False):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and name != "straylight":
            found.add(name)
    return found - {name_of(path)}


def room_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", [f for f in FILES if f.parent != SOURCE or f.stem != "__init__"], ids=name_of)
def test_a_room_imports_only_what_its_floor_may(path: Path) -> None:
    room = room_of(name_of(path))
    for other in map(room_of, modules_of(path)):
        assert FLOOR[other] <= FLOOR[room], f"{room} is below {other}"
        assert other == room or (room, other) not in APART, f"{room} knows nothing of {other}"
    heads = {name.split(".")[0] for name in imports(ast.parse(path.read_text()), top_only=True)}
    assert heads & HEAVY <= FLOORS[FLOOR[room]][room]


def test_every_room_has_its_floor() -> None:
    assert {room_of(module) for module in MODULES if module != "straylight"} == set(FLOOR)


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {module: modules_of(path) for module, path in MODULES.items()}
    left = {module: set(others) for module, others in graph.items()}
    while free := [module for module, others in left.items() if not others & set(left)]:
        for module in free:
            del left[module]
    assert not {module: others & set(left) for module, others in left.items()}


def test_nflows_is_known_in_one_file_alone() -> None:
    knowing = {p.name for p in FILES if any(n.startswith("nflows") for n in imports(ast.parse(p.read_text()), False))}
    assert knowing == {"flows.py"}
