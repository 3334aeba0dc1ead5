"""Every command and every program in the README runs, on small data and for few epochs."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from straylight import cli

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in lines if line.strip()))


ALL = commands()
#: What a command is narrowed to here, by what it holds; the first that fits.
NARROWED = {
    "experiment=sweep/digits_contaminated": ["detector=hbos", "seed=0"],
    "experiment=sweep/digits": ["detector=hbos", "data.nominal=0,1", "seed=0"],
    "experiment=sweep/mnist_one_class": ["detector=pca", "data.nominal=0", "seed=0", "trainer.max_epochs=1"],
    "experiment=sweep/adc2021_pareto": ["detector=sum_pt", "seed=0", "data.max_events=500"],
    "experiment=sweep/adbench": ["detector=knn,pca", "seed=0"],
    "experiment=sweep/moons": ["detector=hbos", "seed=0"],
    "experiment=mnist": ["seed=0", "trainer.max_epochs=1"],
    "data=adc2021": ["data.max_events=500"],
}
#: What is not run here, and why.
LEFT_OUT = {"straylight data fetch mnist": "fetches", "straylight train data=mnist data.download=true": "fetches"}


def of(program: str) -> list[str]:
    return [
        c for c in ALL if c.split()[0].removeprefix(".venv/bin/") == program or c.startswith(f"PYTHONPATH=. {program}")
    ]


OURS = [c for c in of("straylight") if c not in LEFT_OUT]


def test_every_command_is_looked_at() -> None:
    known = {*OURS, *LEFT_OUT, *of("make"), *of("source"), *of("tensorboard"), *of("jupyter"), *of("pip"), *of("uv")}
    assert set(ALL) == known and set(LEFT_OUT) <= set(ALL)
    quoted = re.findall(r"`(python tests/[^`]+|pytest [^`]+)`", README.replace("\n", " "))
    assert quoted and all((PROJECT / command.split()[1]).is_file() for command in quoted)


def test_targets_of_make_and_extras_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert {c.split()[1] for c in of("make")} <= targets
    extras = set(re.findall(r"straylight\[(\w+)\]", README))
    import tomllib

    assert extras <= set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert links and all((PROJECT / link).exists() for link in links)


@pytest.fixture
def desk(straylight_train, tmp_path, monkeypatch) -> Callable[[str], str]:
    """The README's reader at work in an empty folder that holds what it speaks of."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    random = np.random.default_rng(0)
    x, y = np.r_[random.normal(size=(400, 4)), random.normal(4, 1, (40, 4))], np.repeat([0, 1], [400, 40])
    data = tmp_path / "PATH"
    shared = PROJECT.parent / "shared" / "data"
    if shared.is_dir():
        data.mkdir()
        for folder in shared.iterdir():
            if folder.name != "adbench":
                (data / folder.name).symlink_to(folder)
    (data / "adbench").mkdir(parents=True)
    np.savez(data / "adbench" / "6_cardio.npz", X=x, y=y)
    names = "a,b,c,d,status,patient"
    status = np.array(["ok", "broken"])[y]
    rows = [",".join([*map(str, row), s, str(i // 4)]) for i, (row, s) in enumerate(zip(x, status, strict=True))]
    Path("mine.csv").write_text("\n".join([names, *rows]))
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, of_rows in (("train", x[:300]), ("test", x[300:])):
        pq.write_table(pa.table({c: of_rows[:, i] for i, c in enumerate("abcd")}), f"{name}.parquet")
    return straylight_train


def written() -> None:
    """`mine.py` and the configs beside it, as the README has them."""
    python, configs = blocks("python"), blocks("yaml")
    detector = next(b for b in python if "class Denoiser" in b)
    Path("my_conf/detector").mkdir(parents=True)
    Path("my_conf/data").mkdir(parents=True)
    data = next(b for b in python if "class Mine" in b)
    Path("mine.py").write_text(detector + "\n\n" + data)
    Path("my_conf/detector/denoiser.yaml").write_text(next(b for b in configs if "mine.Denoiser" in b))
    Path("my_conf/data/mine.yaml").write_text(next(b for b in configs if "mine.Mine" in b))


@pytest.mark.slow
@pytest.mark.parametrize("command", OURS)
def test_a_command_of_the_readme_runs(command, desk, tmp_path, monkeypatch, capfd) -> None:
    words = shlex.split(command.removeprefix("PYTHONPATH=. "))
    words = ["detector=hbos" if w == "..." else w for w in words]
    if "-m" in words and "detector=hbos" in words and not any("," in w for w in words):
        words.append("seed=0,1")
    needed = next((d for d in ("mnist", "adc2021") if any(d in w for w in words) and "paths.data=PATH" in words), None)
    if needed and not (tmp_path / "PATH" / needed).exists():
        pytest.skip(f"no {needed} in ../shared/data beside the checkout")
    if "my_conf" in words:
        written()
    narrowed = next((own for key, own in NARROWED.items() if any(w.startswith(key) for w in words)), [])
    words += [w for w in narrowed if w.partition("=")[0] not in {g.partition("=")[0] for g in words}]
    if any("NAME" in w for w in words):
        desk("-m", "data=blobs", "detector=hbos", "seed=0,1", "hydra.sweep.dir=outputs/sweeps/NAME")
    for name in {"RUN_FOLDER", "FOLDER"} & set(words):
        desk("data=blobs", "detector=hbos", f"hydra.run.dir={name}")
    if "trainer=gpu" in words:  # it composes
        words = [w.partition(",")[0] for w in words if w not in ("-m", "seed=0,1,2")] + ["--cfg", "job"]
    match words[1]:
        case "train":
            pictures = not any(w.startswith(("experiment=sweep", "callbacks.figures=null")) for w in words)
            ended = desk(*words[2:], pictures=pictures and "resume" not in command)
            assert ended.status == 0, ended.err
            if "--cfg" in words:
                assert "_target_: straylight." in ended.out
            elif "test.parquet" in command:  # without labels nothing is ranked
                assert ended.result["status"] == "ok" and not ended.result["metrics"]
            else:
                assert "AUROC" in ended.out
        case "report" | "data":
            monkeypatch.setattr(sys, "argv", words)
            try:
                cli.main()
            except SystemExit as end:
                assert not end.code, capfd.readouterr().err
            assert capfd.readouterr().out
        case other:
            raise AssertionError(f"the README has a command straylight {other} that is not tested here")


@pytest.mark.slow
def test_the_programs_of_the_readme_run(desk, fresh) -> None:
    desk("data=blobs", "data.val_fraction=0.5", "detector=hbos", "hydra.run.dir=RUN_FOLDER")
    rows = "import torch\nrows = torch.zeros(3, 2)\n"
    for program in blocks("python"):
        if "class " in program:
            continue
        head = rows if "Run.open" in program else ""
        small = program.replace("max_epochs=50", "max_epochs=2")
        ended = fresh.run([sys.executable, "-c", head + small])
        assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_own_data_of_the_readme_are_trained_on(desk, tmp_path) -> None:
    written()
    table = np.loadtxt("mine.csv", delimiter=",", skiprows=1, usecols=range(4))
    shutil.move("mine.csv", "strings.csv")
    np.savetxt("mine.csv", np.c_[table, np.repeat([0, 1], [400, 40])], delimiter=",")
    ended = desk("--config-dir", "my_conf", "data=mine", "detector=knn")
    assert ended.status == 0 and "AUROC" in ended.out, ended.err
