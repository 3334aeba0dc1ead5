"""Every command and every program in the README and in docs/ runs, on small data and for few epochs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import Ended
from straylight import cli

PROJECT = Path(__file__).parents[1]
#: What a reader reads; a command or program that stands on several of them is run once.
PAGES = {path: path.read_text() for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))}
ALL_TEXT = "\n".join(PAGES.values())


def blocks(language: str) -> list[str]:
    return list(dict.fromkeys(re.findall(rf"^```{language}\n(.*?)^```", ALL_TEXT, re.DOTALL | re.MULTILINE)))


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    found = dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in lines)
    return [command for command in found if command]


ALL = commands()
#: What a command is narrowed to here, by what it holds; the first that fits.
NARROWED = {
    "experiment=sweep/digits_contaminated": ["detector=hbos", "seed=0"],
    "experiment=sweep/digits": ["detector=hbos", "data.nominal=0,1", "seed=0"],
    "experiment=sweep/mnist_ruff": ["detector=pca", "data.nominal=0"],
    "experiment=sweep/mnist_one_class": ["detector=pca", "data.nominal=0", "seed=0", "trainer.max_epochs=1"],
    "experiment=sweep/adc2021_pareto": ["detector=sum_pt", "seed=0", "data.max_events=500"],
    "experiment=sweep/adbench": ["detector=knn,pca", "seed=0"],
    "experiment=sweep/moons": ["detector=hbos", "seed=0"],
    "experiment=mnist": ["seed=0", "trainer.max_epochs=1"],
    "experiment=vae_blobs": ["trainer.max_epochs=2"],
    "data=adc2021": ["data.max_events=500"],
    "data=bump": ["data.events=4000", "data.test_background=1000", "data.test_signal=200", "detector.trees.members=1"],
    "data.resonance=mass": ["detector.trees.members=1"],
}
#: What is not run here, and why.
LEFT_OUT = {"straylight data fetch mnist": "fetches", "straylight train data=mnist data.download=true": "fetches"}


def of(program: str) -> list[str]:
    starts = (f"PYTHONPATH=. {program}", f"cat new.csv '|' {program}")
    return [c for c in ALL if c.split()[0].removeprefix(".venv/bin/") == program or c.startswith(starts)]


OURS = [c for c in of("straylight") if c not in LEFT_OUT]
#: What starts ranks or copies folders on machines that are not here; tests/test_nodes.py has the former.
ELSEWHERE = [*of("torchrun"), *of("srun"), *of("rclone")]
#: Launchers that need a cluster; tests/test_across_engines.py and tests/test_ray.py have them.
CLUSTERS = ("hydra/launcher=slurm", "hydra/launcher=ray")


def test_every_command_is_looked_at() -> None:
    programs = ("make", "source", "tensorboard", "jupyter", "pip", "uv")
    known = {*OURS, *LEFT_OUT, *ELSEWHERE, *(command for program in programs for command in of(program))}
    assert set(ALL) == known and set(LEFT_OUT) <= set(ALL)
    quoted = re.findall(r"`(?:python )?(?:-m )?(?:pytest )?(tests/[^` ]+\.py)", ALL_TEXT.replace("\n", " "))
    assert quoted and all((PROJECT / path).is_file() for path in quoted)


def test_targets_of_make_and_extras_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert {c.split()[1] for c in of("make")} <= targets
    extras = set(re.findall(r"straylight\[(\w+)\]", ALL_TEXT))
    import tomllib

    assert extras <= set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page) -> None:
    """In the repository; those of the site are looked at when it is built."""
    text = PAGES[page]
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_read_in_minutes_and_names_the_tests() -> None:
    readme = PAGES[PROJECT / "README.md"]
    assert len(readme.encode()) < 11_000 and "make test " in readme
    titles = [f"docs/{path.name}" for path in PAGES if path.parent.name == "docs"]
    assert [title for title in titles if title not in readme] == [], "a page that nobody is sent to"


def test_what_to_try_first_is_said_alike_everywhere() -> None:
    from straylight.commands.detectors import FIRST

    pages = [PAGES[PROJECT / "README.md"], PAGES[PROJECT / "docs" / "detectors.md"].replace("`", "")]
    for kind, names, numbers in FIRST:
        listed = ", ".join(f"`{name}`" for name in names.split(", "))
        assert f"| {kind} | {listed} |" in pages[0] and f"| {kind} | {names} | {numbers} |" in pages[1]


@pytest.fixture
def desk(straylight_train, tmp_path, monkeypatch) -> Callable[[str], str]:
    """The README's reader at work in an empty folder that holds what it speaks of."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
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
    for name in ("6_cardio", "20_letter"):
        np.savez(data / "adbench" / f"{name}.npz", X=x, y=y)
    names = "a,b,c,d,status,patient"
    status = np.array(["ok", "broken"])[y]
    rows = [",".join([*map(str, row), s, str(i // 4)]) for i, (row, s) in enumerate(zip(x, status, strict=True))]
    Path("mine.csv").write_text("\n".join([names, *rows]))
    import pyarrow as pa
    import pyarrow.parquet as pq

    mass = random.uniform(3, 4, 600)
    pq.write_table(
        pa.table({"mass": mass, "a": random.normal(size=600), "b": random.normal(size=600)}), "events.parquet"
    )
    for name, of_rows in (("train", x[:300]), ("test", x[300:])):
        pq.write_table(pa.table({c: of_rows[:, i] for i, c in enumerate("abcd")}), f"{name}.parquet")
    return straylight_train


def written() -> None:
    """`mine.py` and the configs beside it, as the pages have them."""
    python, configs = blocks("python"), blocks("yaml")
    detector = next(b for b in python if "class Denoiser" in b)
    Path("my_conf/detector").mkdir(parents=True)
    Path("my_conf/data").mkdir(parents=True)
    data = next(b for b in python if "class Mine" in b)
    Path("mine.py").write_text(detector + "\n\n" + data)
    Path("my_conf/detector/denoiser.yaml").write_text(next(b for b in configs if "mine.Denoiser" in b))
    Path("my_conf/data/mine.yaml").write_text(next(b for b in configs if "mine.Mine" in b))


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Folders of runs and sweeps that more than one command is about."""
    return tmp_path_factory.mktemp("kept")


def lay(folder: str, kept: Path, make: Callable[[], Ended]) -> None:
    """Such a folder where the command will look for it, made if none has been about it yet."""
    held = kept / Path(folder).name
    if held.exists():
        shutil.copytree(held, folder)
    else:
        ended = make()
        assert ended.status == 0, ended.err
        shutil.copytree(folder, held)


def small(words: list[str]) -> list[str]:
    """The command on a small scale: as `NARROWED` has it, one seed where there are several jobs without, two epochs."""
    typed = {word.partition("=")[0] for word in words}
    own = next((own for key, own in NARROWED.items() if any(w.startswith(key) for w in words)), [])
    if "-m" in words and any("," in word for word in words if not word.startswith("seed=")):
        words = [re.sub(r"^(seed=\d+),.*", r"\1", word) for word in words]
    words = [re.sub(r"^(trainer\.max_epochs)=.*", r"\1=2", word) for word in words]
    words = [re.sub(r"^(hydra\.sweeper\.n_trials)=.*", r"\1=4", word) for word in words]
    return [*words, *(word for word in own if word.partition("=")[0] not in typed)]


def test_a_sweep_on_a_small_scale_has_all_its_values_but_seeds() -> None:
    assert small(["train", "-m", "detector=knn,pca", "seed=0,1,2"]) == ["train", "-m", "detector=knn,pca", "seed=0"]
    assert small(["train", "-m", "detector=knn", "seed=0,1"]) == ["train", "-m", "detector=knn", "seed=0,1"]
    assert small(["train", "data=moons", "trainer.max_epochs=20"]) == ["train", "data=moons", "trainer.max_epochs=2"]
    assert small(["train", "experiment=mnist_vae", "seed=3"])[3:] == ["trainer.max_epochs=1"]


@pytest.mark.slow
@pytest.mark.parametrize("command", OURS)
def test_a_command_runs(command, desk, kept, tmp_path, monkeypatch, capfd) -> None:
    words = shlex.split(command.removeprefix("PYTHONPATH=. ").removeprefix("cat new.csv '|' "))
    words = ["detector=hbos" if w == "..." else w for w in words]
    if "-m" in words and "detector=hbos" in words and not any("," in w for w in words):
        words.append("seed=0,1")
    needed = next((d for d in ("mnist", "adc2021") if any(d in w for w in words) and "paths.data=PATH" in words), None)
    if needed and not (tmp_path / "PATH" / needed).exists():
        pytest.skip(f"no {needed} in ../shared/data beside the checkout")
    if "my_conf" in words:
        written()
    if "data=mine" in words:
        strings_to_numbers()
    words = small(words)
    if any("NAME" in w for w in words):
        sweep = ("-m", "data=blobs", "detector=hbos,pca", "seed=0", "hydra.sweep.dir=outputs/sweeps/NAME")
        lay("outputs/sweeps/NAME", kept, lambda: desk(*sweep))
    for name in {"RUN_FOLDER", "FOLDER"} & set(words):
        lay(name, kept, lambda name=name: desk("data=blobs", "detector=hbos", f"hydra.run.dir={name}"))
    if any(w.startswith("resume=") for w in words):
        words = [w for w in words if not w.startswith(("hydra", "trainer.num_nodes"))]
    if "trainer=gpu" in words or any(w in CLUSTERS or w.startswith("trainer.num_nodes") for w in words):  # it composes
        words = [w.partition(",")[0] for w in words if w not in ("-m", "seed=0,1,2")] + ["--cfg", "all"]
    match words[1]:
        case "train" if "--help" in words:
            listed(words, monkeypatch, capfd)
        case "train":
            none = ("experiment=sweep", "callbacks.figures=null", "callbacks=numbers", "callbacks=none")
            pictures = not any(w.startswith(none) for w in words)
            ended = desk(*words[2:], pictures=pictures and "resume" not in command)
            assert ended.status == 0, ended.err
            if "--cfg" in words:
                assert "_target_: straylight." in ended.out
            elif "test.parquet" in command or "events.parquet" in command:  # without labels nothing is ranked
                assert ended.result["status"] == "ok" and not any("auroc" in name for name in ended.result["metrics"])
            else:
                assert "AUROC" in ended.out
        case "report" | "choose" | "data" | "detectors" | "explain" | "export":
            if "outputs/mine" in words:
                mine(desk, kept)
            listed(words, monkeypatch, capfd)
        case "score":
            if "--help" not in words:
                mine(desk, kept)
            with Path("mine.csv").open("rb") as file:
                monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))
                listed(words, monkeypatch, capfd)
            out = words[words.index("-o") + 1] if "-o" in words else "-"
            assert out == "-" or list(Path().glob(out))
        case other:
            raise AssertionError(f"there is a command straylight {other} that is not tested here")


def mine(desk, kept: Path) -> None:
    """A run on `mine.csv`, and new rows."""
    own = next(c for c in OURS if "hydra.run.dir=outputs/mine" in c)
    lay("outputs/mine", kept, lambda: desk(*shlex.split(own)[2:], "data.val_fraction=0.5"))
    head, *rows = Path("mine.csv").read_text().splitlines()
    Path("days").mkdir()
    for name, some in {"new": rows, "days/mon": rows[:50], "days/tue": rows[50:]}.items():
        Path(f"{name}.csv").write_text("\n".join([head, *some]))


def listed(words: list[str], monkeypatch, capfd) -> None:
    """A command that prints and ends."""
    monkeypatch.setattr(sys, "argv", words)
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, capfd.readouterr().err
    assert capfd.readouterr().out


def strings_to_numbers() -> None:
    """`mine.csv` as the class `Mine` reads it, without a head and with a label that is a number."""
    table = np.loadtxt("mine.csv", delimiter=",", skiprows=1, usecols=range(4))
    shutil.move("mine.csv", "strings.csv")
    np.savetxt("mine.csv", np.c_[table, np.repeat([0, 1], [400, 40])], delimiter=",")


@pytest.mark.slow
def test_programs_run(desk, fresh) -> None:
    desk("data=blobs", "data.val_fraction=0.5", "detector=hbos", "hydra.run.dir=RUN_FOLDER")
    own = next(c for c in OURS if "hydra.run.dir=outputs/mine" in c)
    assert desk(*shlex.split(own)[2:]).status == 0
    rows = "import torch\nrows = torch.zeros(3, 2)\n"
    for program in blocks("python"):
        if "class " in program:
            continue
        head = rows if "Run.open" in program else ""
        small = program.replace("epochs=50", "epochs=2")
        ended = fresh.run([sys.executable, "-c", head + small])
        assert ended.returncode == 0, ended.stderr
