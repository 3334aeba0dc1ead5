"""The notebooks run from the first cell to the last in their small setting, and hold what they give then."""

from __future__ import annotations

import ast
import base64
import copy
import io
import json
import re
import shlex
from pathlib import Path

import nbformat
import numpy as np
import pytest
from jupyter_client.provisioning import local_provisioner
from PIL import Image

from notebooks import LARGEST, MACHINE, WIDGET, clean, execute, kinds
from straylight.groups import choices

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "01_out_of_density_with_flows",
    "02_variational_autoencoder",
    "03_corrupted_digits",
    "04_autoencoders_and_gans",
    "05_trigger",
    "06_over_densities",
    "07_tables",
]
READING = ("05_trigger", "07_tables")  # which read data sets in their small setting, where they are
SHARED = PROJECT.parent / "shared" / "data"


def code(notebook) -> list[str]:
    """Its programs, without what only a notebook understands."""
    return [re.sub(r"^%.*$", "", c.source, flags=re.MULTILINE) for c in notebook.cells if c.cell_type == "code"]


def test_there_are_the_tutorials() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_holds_outputs_that_may_be_kept(path: Path) -> None:
    text = path.read_text()
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert len(text.encode()) <= LARGEST
    assert set(json.loads(text)["metadata"]) == {"kernelspec", "language_info"}, "no state of widgets"
    assert nbformat.writes(clean(copy.deepcopy(notebook))) == nbformat.writes(notebook), (
        "as tests/notebooks.py leaves it"
    )
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run from the first cell to the last"
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            said = json.dumps([{k: v for k, v in o.get("data", {}).items() if k != "image/png"} for o in cell.outputs])
            said += " ".join(o.get("text", "") for o in cell.outputs)
            assert "error" not in kinds(cell) and not MACHINE.search(said) and " at 0x" not in said, cell.id
            assert not any(word in said for word in (WIDGET, "<progress", "Traceback", "Warning")), cell.id


def gave(*outputs) -> nbformat.NotebookNode:
    """A notebook of one cell that gave this."""
    cell = nbformat.v4.new_code_cell("1", execution_count=1, metadata={"execution": {"iopub.execute_input": "now"}})
    cell.outputs = [nbformat.v4.new_output(*kind, **fields) for *kind, fields in outputs]
    return nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})


def shown(**data):
    return "display_data", {"data": {name.replace("_", "/", 1): value for name, value in data.items()}}


def test_what_changes_from_run_to_run_is_left_out() -> None:
    says = lambda name, text: ("stream", {"name": name, "text": text})  # noqa: E731
    first = gave(
        says("stdout", "a\n"),
        shown(text_html=""),
        says("stderr", "n\n"),
        says("stderr", "n\n"),
        says("stdout", "<f at 0x7f0a12>\n"),
    )
    cleaned = clean(first)
    (cell,) = cleaned.cells
    assert [(o.name, o.text) for o in cell.outputs] == [("stderr", "n\n"), ("stdout", "a\n<f>\n")]
    assert not cell.metadata and "widgets" not in cleaned.metadata and kinds(cell) == ["stdout"]
    moving = ("display_data", {"data": {WIDGET: {"model_id": "12ab"}, "text/plain": "HBox(children=(...))"}})
    (kept,) = clean(gave(moving)).cells[0].outputs
    assert "12ab" not in json.dumps(kept) and "run the notebook" in kept.data["text/plain"]
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(picture, "png")
    data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": "<Figure size 64x64 with 1 Axes>"}
    (drawn,) = clean(gave(("display_data", {"data": dict(data)}))).cells[0].outputs
    assert len(drawn.data["image/png"]) < len(data["image/png"]) and drawn.data["text/plain"] == "<Figure>"
    assert Image.open(io.BytesIO(base64.b64decode(drawn.data["image/png"]))).size == (64, 64)


def test_the_colours_of_a_few_pixels_survive_the_palette() -> None:
    shades = np.random.default_rng(0).integers(0, 256, (300, 300, 1), dtype=np.uint8)
    pixels = np.repeat(shades, 3, 2)
    pixels[10, 10], pixels[20, 20], pixels[30, 30] = (0, 114, 178), (0, 158, 115), (213, 94, 0)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "png")
    data = {"image/png": base64.b64encode(written.getvalue()).decode()}
    (drawn,) = clean(gave(("display_data", {"data": data}))).cells[0].outputs
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.data["image/png"]))).convert("RGB"))
    assert np.abs(found.astype(int) - pixels).max() <= 8


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ([("stream", {"name": "stdout", "text": "2\n"})], True),
        ([("stream", {"name": "stderr", "text": "n\n"}), ("stream", {"name": "stdout", "text": "1\n"})], True),
        ([], False),
        ([("stream", {"name": "stderr", "text": "1\n"})], False),
        ([("error", {"ename": "ValueError", "evalue": "no", "traceback": []})], False),
        ([("display_data", {"data": {"text/plain": "1"}})], False),
    ],
    ids=["another number", "a notice", "nothing", "a notice alone", "an error", "another sort"],
)
def test_outputs_are_compared_by_their_sorts(other, same: bool) -> None:
    committed = clean(gave(("stream", {"name": "stdout", "text": "1\n"}))).cells[0]
    assert (kinds(clean(gave(*other)).cells[0]) == kinds(committed)) is same


@pytest.mark.parametrize(
    ("text", "there"),
    [(f"in '/{top}/x/y.csv'", True) for top in ("tmp", "home", "Users")]
    + [("events/s", False), ("p(x)/tmp", False), ("1/2", False)],
)
def test_a_path_of_a_machine_is_seen(text: str, there: bool) -> None:
    assert bool(MACHINE.search(text)) is there


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_uses_the_parts_of_the_framework(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    trees = [ast.parse(source) for source in code(notebook)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes), "the package should have it"
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert not {module for module in modules if module.split(".")[0] in ("matplotlib", "hydra", "omegaconf", "sklearn")}
    assert any(module.startswith("straylight.") for module in modules)
    assert "FULL = False" in "\n".join(code(notebook))
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "<details>" in prose and "$" in prose and ("arXiv" in prose or "doi" in prose)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_opens_with_commands_that_compose(path: Path, straylight_train) -> None:
    notebook = nbformat.read(path, 4)
    text = "\n".join(cell.source for cell in notebook.cells[:3] if cell.cell_type == "markdown")
    found = [
        shlex.split(line, comments=True)
        for block in re.findall(r"```(?:sh|bash)?\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("straylight train")
    ]
    assert found
    for words in found:
        for word in words:
            key, _, value = word.partition("=")
            if key in ("detector", "data", "experiment"):
                assert set(value.split(",")) <= set(choices(key)), word
        if not any("," in word for word in words):
            ended = straylight_train(*(w for w in words[2:] if w != "-m"), "--cfg", "job", epochs=None)
            assert ended.status == 0, ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "data"),
    [
        pytest.param(path, data, id=f"{data}-{path.stem}")
        for path in NOTEBOOKS
        for data in ("bundled", "real")
        if data == "bundled" or path.stem in READING
    ],
)
def test_a_notebook_gives_what_it_holds(path: Path, data: str, tmp_path, monkeypatch, fresh) -> None:
    notebook = nbformat.read(path, 4)
    held = {cell.id: kinds(cell) for cell in notebook.cells if cell.cell_type == "code"}
    if data == "real" and not SHARED.is_dir():
        pytest.skip("no folder ../shared/data with real data sets beside the checkout")
    monkeypatch.setenv("STRAYLIGHT_DATA", str(SHARED if data == "real" else tmp_path / "none"))
    monkeypatch.setenv("STRAYLIGHT_CACHE", str(tmp_path / "cache"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    if path != NOTEBOOKS[1]:  # whose kernel is started anew; the others' are forked

        def forked(command, *, cwd, env, **_):
            # it would end as soon as it finds that the one who asked for it is not its parent
            own = {name: value for name, value in env.items() if name != "JPY_PARENT_PID"}
            return fresh.start(command, cwd=cwd, env=own, silent=True)

        monkeypatch.setattr(local_provisioner, "launch_kernel", forked)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            if data == "real":  # the same cells, which on bundled data train for as long as they say
                cell.source = re.sub(r"^EPOCHS = \d+$", "EPOCHS = 4", cell.source, flags=re.MULTILINE)
    cells = [cell for cell in clean(execute(notebook, tmp_path)).cells if cell.cell_type == "code"]
    complaints = [o["text"] for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
    assert not [text for text in complaints if "Traceback" in text or "Warning" in text], complaints
    assert {cell.id: kinds(cell) for cell in cells} == held, "python tests/notebooks.py writes what it gives now"
    assert any("image/png" in sort for sorts in held.values() for sort in sorts)
