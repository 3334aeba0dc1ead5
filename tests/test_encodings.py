"""No encoding of what is printed to ends a command, and none of what it writes depends on it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from straylight import cli
from straylight.folder import RunFolder

#: Of no encoding of the West, of several, and what a name may hold that is no text at all.
NAMES = ["Zürich", "東京", "plain"]
ENCODINGS = ["ascii", "latin-1", "cp437", "utf-8"]
LEAN = ["callbacks=numbers", "callbacks.latency.budget_s=0.01", "logger=none", "trainer.max_epochs=1"]


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def straylight(tmp_path, monkeypatch, straylight_train):
    """`straylight` in this process, with streams that are files of an encoding."""

    def run(encoding: str, *arguments: str) -> Said:
        texts = []
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["straylight", *arguments])
            patch.setattr(cli.atexit, "register", lambda _: None)
            streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            status = 0
            try:
                cli.main()
            except SystemExit as end:
                status = int(end.code or 0)
            for stream in streams:
                stream.flush()
                texts.append(stream.buffer.getvalue().decode(encoding))
        assert "Traceback" not in texts[1] and "Logging error" not in texts[1] and "codec" not in "".join(texts)
        return Said(status, *texts)

    return run


def table(folder: Path, name: str) -> Path:
    """A table whose path, column and category have that name."""
    path = folder / f"{name}.csv"
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{name if a > 0 else 'b'},{int(k % 9 == 0)}"
        for k, (a, b) in enumerate(rng.normal(size=(300, 2)))
    ]
    path.write_text("\n".join([f"{name} 1,two,kind,y", *rows]), encoding="utf-8")
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_trained_resumed_and_reported(encoding, name, straylight, tmp_path) -> None:
    run = tmp_path / f"{name} run"
    data = ["data=file", f"data.path={table(tmp_path, name)}", "data.label=y"]
    ended = straylight(encoding, "train", *LEAN, *data, "detector=vae", f"hydra.run.dir='{run}'")
    assert ended.status == 0 and "AUROC" in ended.out, ended.err
    resumed = straylight(encoding, "train", f"resume={run}", "trainer.max_epochs=2")
    assert resumed.status == 0 and RunFolder(run).read()["epochs"] == 2, resumed.err
    for options in ([], ["--details"]):
        reported = straylight(encoding, "report", str(run), *options)
        assert reported.status == 0 and "AUROC" in reported.out, reported.err
    log = (run / "train.log").read_text(encoding="utf-8")
    assert "AUROC" in log and name in (run / ".hydra" / "config.yaml").read_text(encoding="utf-8")
    if encoding == "utf-8":
        assert name in ended.out + resumed.out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_density_that_fits_says_so_in_its_own_sentence(encoding, straylight, tmp_path) -> None:
    """Which has a sign that ASCII lacks."""
    where = f"hydra.run.dir={tmp_path}/run"
    small = ["data=gaussians_1d", "data.events=2000", "detector=gmm", "callbacks.density.two_sample_rows=0"]
    ended = straylight(encoding, "train", *LEAN, *small, where)
    assert ended.status == 0, ended.err
    sign = "±" if encoding in ("latin-1", "utf-8", "cp437") and "±".encode(encoding, "ignore") else "+-"
    assert f" {sign} " in ended.out
    assert " ± " in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")  # a file is of one encoding


def test_a_sweep_is_run_resumed_and_reported(straylight, tmp_path) -> None:
    encoding = "ascii"
    sweep = tmp_path / "Zürich 東京"
    data = ["data=file", f"data.path={table(tmp_path, '東京')}", "data.label=y"]
    ended = straylight(
        encoding,
        "train",
        "-m",
        *LEAN,
        *data,
        "detector=knn,hbos",
        "data.train_fraction=0.5",
        f"hydra.sweep.dir='{sweep}'",
    )
    assert ended.status == 0 and "knn" in ended.out, ended.err
    resumed = straylight(encoding, "train", "-m", f"resume={sweep}", "detector=knn,hbos,pca")
    assert resumed.status == 0 and "pca" in resumed.out, resumed.err
    assert straylight(encoding, "report", str(sweep)).status == 0
    assert "pca" in (sweep / "leaderboard.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["report", "--help"],
        ["data", "blobs"],
        ["train", "--cfg", "job", "++data.path='Zürich東京'", "data=file"],
        ["train", "--hydra-help"],
    ],
    ids=" ".join,
)
def test_what_is_only_shown(encoding, arguments, straylight) -> None:
    ended = straylight(encoding, *arguments)
    assert ended.status == 0 and len(ended.out) > 100, ended.err


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["東京"],
        ["train", "detector=東京"],
        ["train", "data=file", "data.path=東京.csv"],
        ["train", "-m", "data=blobs", "detector=glob(東*)"],
        ["train", "resume=東京"],
        ["report", "東京"],
        ["data", "東京"],
    ],
    ids=" ".join,
)
def test_an_error_that_names_it_is_still_a_sentence(encoding, arguments, straylight, tmp_path) -> None:
    ended = straylight(encoding, *arguments)
    phases = ("starting ", "loading ", "reading ")
    said = [line for line in ended.err.splitlines() if line.strip() and not line.startswith(phases)]
    assert ended.status != 0 and len(said) == 1 and said[0].startswith("Error: ")
    assert ("東" if encoding == "utf-8" else "\\u6771") in said[0]


def test_a_data_set_that_describes_itself_in_another_language(straylight, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("# Größen aus 東京.\n_target_: straylight.data.Blobs\n", "utf-8")
    ended = straylight("ascii", "data", "--config-dir", str(tmp_path))
    assert ended.status == 0 and "Gr\\xf6\\xdfen" in ended.out, ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}],
    ids=lambda environment: " ".join(environment),
)
def test_a_process_of_its_own_whose_locale_knows_ascii_alone(environment, tmp_path) -> None:
    path = table(tmp_path, "Zürich")
    data = ["data=file", f"data.path={path}", "data.label=y", f"paths.output={tmp_path / 'out'}"]
    script = "from straylight.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", script, "train", "-m", *LEAN, *data, "detector=hbos,autoencoder"],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )
    said = ended.stderr.decode("utf-8", "replace")
    assert ended.returncode == 0 and b"AUROC" in ended.stdout and "Traceback" not in said, said
    if environment.get("PYTHONCOERCECLOCALE") is None:  # where Python does not take UTF-8 by itself
        assert (ended.stdout + ended.stderr).isascii()
    for log in (tmp_path / "out").rglob("*.log"):
        assert "Traceback" not in log.read_text(encoding="utf-8")
