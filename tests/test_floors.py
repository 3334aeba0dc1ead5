"""Who may import whom: see Develop in the README."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "straylight"
HEAVY = {"torch", "pytorch_lightning", "torchvision", "hydra", "omegaconf", "nflows", "sklearn", "h5py", "pandas"}
HEAVY |= {"onnx", "onnxscript", "onnxruntime", "psutil", "pynvml"}
# room: what of ours it may import, and which heavy packages at the head of a file
ROOMS = {
    "mapped.py": (set(), {"torch"}),
    "batch.py": ({"mapped", "errors"}, {"torch"}),
    "errors.py": (set(), set()),
    "groups.py": (set(), set()),
    "cli.py": ({"groups", "app", "catalogue", "report", "retime"}, set()),
    "metrics": ({"metrics"}, set()),
    "nn": ({"nn", "metrics", "batch", "errors"}, {"torch", "nflows"}),
    "detectors": (
        {"detectors", "nn", "metrics", "batch", "errors"},
        {"torch", "pytorch_lightning", "sklearn"},
    ),
    "data": ({"data", "metrics", "batch", "mapped", "errors"}, {"torch", "pytorch_lightning"}),
    "export.py": ({"errors"}, {"torch"}),
    "callbacks": ({"callbacks", "export", "report", "metrics", "batch", "errors"}, {"torch", "pytorch_lightning"}),
    "report": ({"report", "metrics"}, set()),
}
FILES = sorted(SOURCE.rglob("*.py"))
BELOW = [path for path in FILES if path.relative_to(SOURCE).parts[0] in ROOMS]  # the top floor imports everything


def imports(tree: ast.AST, top_only: bool) -> set[str]:
    nodes = tree.body if top_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", BELOW, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_what_its_floor_may(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    ours, heavy = ROOMS[room]
    tree = ast.parse(path.read_text())
    inside = {name.split(".")[1] for name in imports(tree, top_only=False) if name.startswith("straylight.")}
    assert inside <= ours | {"__version__"}
    assert {name.split(".")[0] for name in imports(tree, top_only=True)} & HEAVY <= heavy


def test_nflows_is_known_in_one_file_alone() -> None:
    knowing = {p.name for p in FILES if any(n.startswith("nflows") for n in imports(ast.parse(p.read_text()), False))}
    assert knowing == {"flows.py"}
