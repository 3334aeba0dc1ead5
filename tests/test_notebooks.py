"""The notebooks run from the first cell to the last in their small setting, and are kept without outputs."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from jupyter_client.provisioning import local_provisioner
from nbclient import NotebookClient

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
]
SHARED = PROJECT.parent / "shared" / "data"


def code(notebook) -> list[str]:
    """Its programs, without what only a notebook understands."""
    return [re.sub(r"^%.*$", "", c.source, flags=re.MULTILINE) for c in notebook.cells if c.cell_type == "code"]


def test_there_are_the_five_tutorials() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_kept_clean(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
    assert set(json.loads(path.read_text())["metadata"]) == {"kernelspec", "language_info"}


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
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.parametrize("data", ["bundled", "real"])
def test_a_notebook_runs(path: Path, data: str, tmp_path, monkeypatch, fresh) -> None:
    notebook = nbformat.read(path, 4)
    if data == "real":
        if "STRAYLIGHT_DATA" not in "\n".join(code(notebook)):
            pytest.skip("reads no data")
        if not SHARED.is_dir():
            pytest.skip("no folder ../shared/data with real data sets beside the checkout")
    monkeypatch.setenv("STRAYLIGHT_DATA", str(SHARED if data == "real" else tmp_path / "none"))
    monkeypatch.setenv("STRAYLIGHT_CACHE", str(tmp_path / "cache"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    if path != NOTEBOOKS[0]:  # whose kernel is started anew; the others' are forked

        def forked(command, *, cwd, env, **_):
            # it would end as soon as it finds that the one who asked for it is not its parent
            own = {name: value for name, value in env.items() if name != "JPY_PARENT_PID"}
            return fresh.start(command, cwd=cwd, env=own, silent=True)

        monkeypatch.setattr(local_provisioner, "launch_kernel", forked)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises what a cell raises
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    complaints = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in complaints if "Traceback" in text or "Warning" in text], complaints
