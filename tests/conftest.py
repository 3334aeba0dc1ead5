"""What several tests need: data, a Trainer that keeps still, and the command line in this process."""

from __future__ import annotations

import gc
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from threadpoolctl import ThreadpoolController

from composing import kept
from fresh import Programs, server
from given import Rows
from slow import listed
from straylight.commands.train import main as train
from straylight.folder import RunFolder, SweepFolder
from straylight.job.train import quiet
from straylight.job.world import AGENT, ROLE, SAID
from straylight.phases import Phases

#: Which jsonschema takes for addresses, and which builds 38 grammars first; no notebook holds any.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _compositions() -> Iterator[None]:
    with kept():
        yield


@pytest.fixture(scope="session")
def _pools() -> ThreadpoolController:
    import sklearn.ensemble  # noqa: F401  which brings the last of the libraries with threads

    return ThreadpoolController()  # looks through all libraries, which takes longer than many a test


@pytest.fixture(autouse=True)
def _one_thread(_pools) -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quiet()
    with _pools.limit(limits=1):  # scikit-learn's threads wait for each other on a busy machine
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="the first case of each test, and none that is marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = listed()
    for item in items:
        if "fresh" in getattr(item, "fixturenames", ()) or item.nodeid.partition("[")[0] in known:
            item.add_marker("slow")
    if config.option.quick:
        first: dict[str, pytest.Item] = {}
        for item in items:
            if item.get_closest_marker("slow") is None:
                first.setdefault(item.nodeid.partition("[")[0], item)
        kept = set(first.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


def pytest_configure() -> None:
    gc.disable()  # until all tests are there: next to nothing of what is made until then is rubbish


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.enable()
    gc.collect()
    gc.freeze()  # which need not be looked through again
    if not session.config.option.collectonly and any("fresh" in getattr(i, "fixturenames", ()) for i in session.items):
        server()  # it imports while other tests run


@pytest.fixture
def fresh() -> Iterator[Programs]:
    """Starts commands and programs in processes of their own, without the time that imports take."""
    programs = Programs()
    yield programs
    programs.close()


@pytest.fixture
def terminal() -> Iterator[None]:
    """As in a terminal, where no signal is ignored, as those that run tests may have it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def shared() -> Path:
    """The folder of real data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("no folder ../shared/data with real data sets beside the checkout")
    return SHARED


@pytest.fixture
def trainer() -> Callable[..., pl.Trainer]:
    """A Trainer on the CPU that writes nothing."""

    def make(**options: object) -> pl.Trainer:
        quiet_options = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in options.get("callbacks", [])),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        return pl.Trainer(**{**quiet_options, **options})

    return make


@pytest.fixture
def serving() -> type[Rows]:
    """A data module that trains on the rows it is given and validates on others, or on none."""

    return Rows


def finished_run(folder: Path, *arguments: str) -> Path:
    """What a command leaves in a folder, for tests that only read, or copy it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    lean = ["callbacks=numbers", "callbacks.latency.budget_s=0.01", "logger=none", f"paths.output={folder.parent}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)
        train([*lean, *arguments])
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of a VAE on blobs, two epochs long."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return finished_run(folder, "data=blobs", "detector=vae", "trainer.max_epochs=2", f"hydra.run.dir={folder}")


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory) -> Path:
    """The folder of a sweep of two detectors over two seeds."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    return finished_run(folder, "-m", "data=blobs", "detector=hbos,pca", "seed=0,1", f"hydra.sweep.dir={folder}")


@pytest.fixture
def sent(finished, tmp_path) -> RunFolder:
    """A copy of that run's folder, to be changed."""
    shutil.copytree(finished, tmp_path / "sent")
    return RunFolder(tmp_path / "sent")


@pytest.fixture
def sent_sweep(finished_sweep, tmp_path) -> SweepFolder:
    """A copy of that sweep's folder, to be changed."""
    shutil.copytree(finished_sweep, tmp_path / "sent-sweep")
    return SweepFolder(tmp_path / "sent-sweep")


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str
    folder: Path
    phases: str  # what was said of what was done, which goes where errors go

    @property
    def results(self) -> list[dict]:
        return SweepFolder(self.folder).results()

    @property
    def result(self) -> dict:
        (only,) = self.results
        return only

    @property
    def run(self) -> Path:
        return Path(self.result["folder"])


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """What a test has this process say of ranks is not said to the next one."""
    yield
    for name in (*SAID, *ROLE, *AGENT):
        os.environ.pop(name, None)


@pytest.fixture
def straylight_train(tmp_path, monkeypatch, capfd) -> Callable[..., Ended]:
    """`straylight train` in this process, writing below a folder of the test's; a few cheap defaults come first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str, epochs: int | None = 2, output: str = "out", pictures: bool = True) -> Ended:
        cheap = [
            "callbacks.latency.budget_s=0.01",
            "callbacks.latency.runtimes=[eager]",
            "callbacks.latency.longest_s=0.2",
            *(["callbacks.figures.only=[]", "callbacks.tensorboard.max_points=0"] if pictures else []),
            f"paths.output={tmp_path / output}",
        ]
        if epochs is not None:
            cheap.append(f"trainer.max_epochs={epochs}")
        resumed = any(a.startswith("resume=") for a in arguments)
        capfd.readouterr()
        try:
            alone = resumed and ("-m" not in arguments or all(a.startswith(("-", "resume=")) for a in arguments))
            train([*arguments] if alone else [*cheap, *arguments], Phases(told := io.StringIO()))
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = capfd.readouterr()
        return Ended(status, said.out, said.err, tmp_path / output, told.getvalue())

    yield run
    signal.signal(signal.SIGTERM, before)
    for name, module in list(sys.modules.items()):  # a test's own, whose name another test may give to its own
        if str(getattr(module, "__file__", None)).startswith(f"{tmp_path}{os.sep}"):
            del sys.modules[name]
