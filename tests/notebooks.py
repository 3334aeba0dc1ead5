"""Runs the notebooks in their small setting and keeps their outputs in them, as whoever reads them on the web sees.

    python tests/notebooks.py [--data FOLDER] [NAME ...]

What would change from run to run though nothing has changed is left out: times, states of widgets, empty places and
addresses in memory. A notice that a cell repeats is kept once. Without `--data` no data set is read but those that are
bundled or generated.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
LARGEST = 1_000_000  # bytes of a notebook
COLOURS = 256  # of a picture
WIDGET = "application/vnd.jupyter.widget-view+json"
HELD = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
FIGURE = re.compile(r"<Figure size [^>]*>")
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|opt|usr|var|private|builds)/[^\s\"'<>]*")


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook with what its cells give in this folder, which is left as it is; raises what a cell raises."""
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def clean(notebook: NotebookNode) -> NotebookNode:
    """The notebook with what stays as it is from run to run."""
    notebook.metadata = nbformat.from_dict({**HELD, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = _together([kept for output in cell.outputs if (kept := _kept(output)) is not None])
    return notebook


def kinds(cell: NotebookNode) -> list[str]:
    """What sorts of outputs a code cell has, in their order; notices depend on the data and are left out."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            found += [output.name] if output.name == "stdout" else []
        elif output.output_type == "error":
            found.append("error")
        else:
            found.append(" ".join(sorted(output.data)))
    return found


def _kept(output: NotebookNode) -> NotebookNode | None:
    output.metadata = nbformat.from_dict({}) if "metadata" in output else None
    if output.metadata is None:
        del output["metadata"]
    if output.output_type == "stream":
        output.text = ADDRESS.sub("", output.text)
        return output
    if output.output_type == "error":
        return output
    data = output.data
    if data.get("text/html") == "":  # where something was shown for a while
        return None
    if WIDGET in data:
        data = {"text/plain": "(What moves here needs a kernel: run the notebook.)"}
    if "application/vnd.plotly.v1+json" in data:
        data.pop("text/html", None)  # the program of plotly
        data["text/plain"] = "(A cloud to turn: run the notebook.)"
    if "image/png" in data:
        data["image/png"] = _smaller(data["image/png"])
    if "text/plain" in data:
        data["text/plain"] = ADDRESS.sub("", FIGURE.sub("<Figure>", data["text/plain"]))
    output.data = nbformat.from_dict(data)
    return output


def _together(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Streams of one name are one text each, however they came; notices first, each of them once."""
    whole: list[NotebookNode] = []
    for output in outputs:
        same = next(
            (o for o in whole if o.output_type == "stream" == output.output_type and o.name == output.name), None
        )
        if same is None:
            whole.append(output)
        else:
            same.text += output.text
    for output in whole:
        if output.get("name") == "stderr":
            output.text = "".join(dict.fromkeys(output.text.splitlines(keepends=True)))
    return sorted(whole, key=lambda output: output.get("name") != "stderr")


def _smaller(picture: str) -> str:
    """A PNG in base64 with a palette."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        if image.mode == "P":  # it has one
            return picture
        few = image.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        written = io.BytesIO()
        few.save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def main(arguments: list[str] | None = None) -> None:
    names = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder of data sets that may be read")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    given = parser.parse_args(arguments)
    for name in given.names or names:
        path = FOLDER / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {
                "STRAYLIGHT_DATA": str(given.data.resolve() if given.data else Path(folder) / "none"),
                "STRAYLIGHT_CACHE": str(Path(folder) / "cache"),
                "OMP_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
            }
            notebook = nbformat.read(path, 4)
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs = []
            notebook = clean(execute(notebook, Path(folder)))
        text = nbformat.writes(notebook) + "\n"
        path.write_text(text)
        print(f"{path.name}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
