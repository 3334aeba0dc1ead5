"""A detector trained and tested on a data set from Python, without a config and a folder, as in a notebook."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.text import Text
from torch import Tensor

from straylight.bar import Bar, in_notebook
from straylight.callbacks import (
    Bump,
    Checkpoint,
    Criteria,
    Density,
    Gallery,
    Latency,
    Progress,
    Ranking,
    Record,
    Thresholds,
)
from straylight.callbacks.extremes import extremes
from straylight.callbacks.scored import Scores, columns_of
from straylight.data import AnomalyDataModule
from straylight.detectors import Detector
from straylight.detectors.scores import scores_of
from straylight.job.in_memory import threads_of_torch
from straylight.job.train import fit_and_test, quiet, silent
from straylight.judged import Judged
from straylight.metrics.judge import Judge
from straylight.parts import parts
from straylight.phases import Phases
from straylight.report.card import STRANGEST, card
from straylight.report.details import layers
from straylight.report.leaderboard import Row, rows

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


class Study(Judged):
    """What `study` found; it scores, flags and explains new events as a `straylight.run.Run` does.

    Attributes:
        detector: with the weights that were tested.
        data: the data set.
        result: what a run's `result.json` says: `metrics`, `intervals`, `thresholds`, `density`, `latency`, ...
        material: what figures are drawn from.
        scores: of the test rows, `(N,)`, larger is stranger.
        y: of the test rows, `(N,)`: 0 nominal, 1..K the kind of anomaly.
        kinds: names of the labels.
        thresholds: scores above which a rule flags, by the rule, such as `quantile 0.95` or `f1`.
    """

    def __init__(self, detector: Detector, data: AnomalyDataModule, result: dict[str, Any], gallery: Gallery) -> None:
        assert gallery.material is not None
        self.detector, self.data, self.result = detector, data, result
        self.material = run = gallery.material
        self.scores, self.y, self.kinds, self.thresholds = run.scores, run.y, run.kinds, run.thresholds
        self._gallery = gallery

    @property
    def called(self) -> str:
        return f"the study of {self.result['detector']}"

    @cached_property
    def known(self) -> dict[str, Any]:  # type: ignore[override]
        """What a run keeps of its events."""
        data = self.data
        return {"shape": data.shape, "context": data.context, "kinds": self.kinds, "recipe": data.recipe()}

    @cached_property
    def judge(self) -> Judge:
        """Its thresholds, and the scores of the rows that they were set on.

        Example:
            >>> from straylight.data import Blobs
            >>> from straylight.detectors import KNN
            >>> data = Blobs(seed=0)
            >>> found = study(KNN(data.shape), data, progress=False)
            >>> found.score([[0.0, 0.0], [9.0, 9.0]]).argmax(), found.flag([[0.0, 0.0], [9.0, 9.0]]).tolist()
            (np.int64(1), [False, True])
        """
        parts: list[Any] = list(self.data.calibration_dataloader())
        columns = None
        if parts:
            columns = {
                "score": np.concatenate([scores_of(self.detector, part.x, part.context) for part in parts]),
                "y": np.concatenate([part.y.numpy() for part in parts]),
                "weight": np.concatenate([part.weight.numpy() for part in parts]),
            }
        return Judge(self.called, list(self.result.get("thresholds", [])), columns)

    def training_data(self) -> AnomalyDataModule:
        return self.data

    def _repr_html_(self) -> str:
        """What a notebook shows of it: see `straylight.report.card`."""
        listed = extremes(self.material, STRANGEST) if len(self.material.shape) == 1 else ""
        return card(self.result, listed)

    @property
    def x(self) -> Tensor:
        """The test rows in the data's own units, `(N, *shape)`, in the order of the scores."""
        return self.data.splits.test.x.index_select(0, torch.from_numpy(self.material.index))

    @property
    def meta(self) -> dict[str, NDArray[Any]]:
        """What else is known of the test rows, such as the digit, by name, `(N,)` each."""
        return {name: column[self.material.index] for name, column in self.data.splits.test.meta.items()}

    @property
    def rows(self) -> pa.Table:
        """The test rows: `index`, `score`, `y`, `kind` and what names them, as in a run's `scores.parquet`.

        Example:
            >>> from straylight.data import Digits
            >>> from straylight.detectors import KNN
            >>> data = Digits()
            >>> study(KNN(data.shape), data, progress=False).rows.column_names
            ['index', 'score', 'y', 'kind', 'file', 'row', 'digit']
        """
        import pyarrow as pa

        run = self.material
        scores = Scores(run.index, run.scores, run.y, run.members)
        return pa.table(columns_of(scores, self.kinds, self.data.splits.test))

    @property
    @torch.no_grad()
    def codes(self) -> NDArray[Any]:
        """Of the test rows, `(N, Z)`, if the detector encodes."""
        return self.material.latents(np.arange(len(self.scores)))

    @torch.no_grad()
    def decode(self, z: ArrayLike) -> NDArray[Any]:
        """Events that codes stand for, in the data's own units, `(M, Z)` to `(M, *shape)`, if the detector decodes."""
        codes = torch.as_tensor(np.asarray(z), dtype=torch.float32, device=self.detector.device)
        return self.detector.decode(codes).cpu().numpy()  # type: ignore[operator]

    def metric(self, name: str) -> float:
        """A ranking metric of the test rows, such as `auroc`, `ap`, `tpr@fpr=0.01` or `auroc/KIND`.

        Raises:
            KeyError: naming those there are.
        """
        found = {key.removeprefix("test/"): value for key, value in self.result["metrics"].items()}
        if name not in found:
            raise KeyError(f"there is no metric {name!r}, but {', '.join(found)}")
        return found[name]

    def summary(self) -> str:
        """The network as a table: its layers, the shape that each gives of one event, and its parameters."""
        return _as_text(*layers(self.result)) or f"{type(self.detector).__name__} has no parameters."

    def draw(self, name: str) -> Figure:
        """A figure by its name, of all that a run may draw, see `Gallery.draw`.

        Raises:
            ValueError: if there is no such figure, or it does not apply.

        Example:
            >>> from straylight.data import Blobs
            >>> from straylight.detectors import PCA
            >>> data = Blobs(seed=0)
            >>> found = study(PCA(data.shape), data)
            >>> figure = found.draw("plane")  # shown by a notebook, and kept by figure.savefig("plane.png")
            >>> figure.axes[0].get_xlabel()
            'x1'
        """
        return self._gallery.draw(name)


def study(
    detector: Detector | str,
    data: Any,
    *,
    seed: int = 0,
    epochs: int = 100,
    f1: bool = False,
    callbacks: Sequence[pl.Callback] = (),
    accelerator: str = "cpu",
    threads: int = 1,
    progress: bool = True,
    **settings: Any,
) -> Study:
    """Train a detector, test the epoch of least validation loss, and measure: a `straylight train` in memory.

    What is named is built as the command builds it, so that `study("vae", "mine.csv", label="attack", latent=4)` ends
    with the scores of `straylight train detector=vae data=file data.path=mine.csv data.label=attack detector.latent=4`,
    bit for bit; what is built already does so with `pytorch_lightning.seed_everything(seed)` before.

    Args:
        detector: the name of one, such as `vae`; or one that is built for `data.shape`.
        data: a table of pandas, polars or pyarrow, or an array of numpy, see `straylight.data.Frame`; the path of a
            file; the name of a data set, such as `digits`; or a data set that is built.
        seed: of splits, initial weights, shuffling and noise of what is named.
        epochs: of training.
        f1: whether to set a threshold by the labels of validation, too.
        callbacks: more of them, of Lightning or your own; one of ours takes the place of its like.
        accelerator: as Lightning calls it.
        threads: of torch on the CPU in the meantime; for the small networks here one is fastest.
        progress: whether it says what it does: below a notebook's cell by a bar that goes when all is done, in a
            terminal by one line, elsewhere by lines on standard error.
        settings: of what is named: those of the detector (`latent=4`), of the data set (`label="attack"`,
            `nominal="ok"`, `categorical=["port"]`, `train_fraction=0.8`) and of the optimiser (`lr=1e-3`), as the
            config calls them. Of a table in memory also `test`, a second one that is tested as it is, and `name`, and
            `label` may be the labels themselves.

    Raises:
        ConfigError: if there is no such detector, data set or setting, or a value does not fit.
        DataError: if the data do not.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> rows, strange = np.r_[random.normal(size=(300, 4)), random.normal(6, 1, (30, 4))], np.arange(330) > 299
        >>> study("knn", rows, label=strange, k=5, progress=False).metric("auroc")
        1.0
        >>> from straylight.data import Blobs
        >>> from straylight.detectors import KNN
        >>> data = Blobs(seed=0)
        >>> study(KNN(data.shape), data).metric("auroc")
        1.0
    """
    quiet()
    chosen = parts(detector, data, seed, settings)
    data = chosen.data
    gallery, tell = Gallery(), _telling(progress)
    ours: list[pl.Callback] = [Ranking(), Thresholds(f1=f1), Criteria(), Density(), Bump()]
    ours.append(Latency((1, 1024), ("eager",), 0.05))
    if tell is not None:
        watching = Progress()
        watching.tell = tell
        ours.append(watching)
    kept = [callback for callback in ours if not isinstance(callback, tuple(map(type, callbacks)))]
    with threads_of_torch(threads), tempfile.TemporaryDirectory() as folder, _told(tell):
        if tell is not None:
            tell(f"reading {type(data).__name__}")
        data.setup()  # some are called by what they hold
        network = chosen.detector()
        called = detector if isinstance(detector, str) else type(detector).__name__
        record = Record(folder, {"detector": called, "data": data.title, "seed": data.seed})
        watchers = [*kept, *callbacks, Checkpoint(folder), gallery, record]
        trainer = silent(folder, watchers, epochs, accelerator)
        fit_and_test(trainer, network, data)
    return Study(network.eval(), data, record.written, gallery)


def _telling(progress: bool) -> Bar | Phases | None:
    """Who is told what is done."""
    if not progress:
        return None
    return Bar() if in_notebook() else Phases()


@contextmanager
def _told(tell: Bar | Phases | None) -> Iterator[None]:
    try:
        yield
    finally:
        if tell is not None:
            tell.done()


class Comparison:
    """Several studies beside each other; shown as the leaderboard, mean and range over those of one name.

    Args:
        studies: by what each detector is to be called; lists are of several seeds.

    Example:
        >>> from straylight.data import Blobs
        >>> from straylight.detectors import KNN, PCA
        >>> data = Blobs(seed=0)
        >>> both = Comparison({"near": study(KNN(data.shape), data), "straight": study(PCA(data.shape), data)})
        >>> [row.detector for row in both.rows]
        ['near', 'straight']
    """

    def __init__(self, studies: Mapping[str, Study | Sequence[Study]]) -> None:
        self.studies = {name: [s] if isinstance(s, Study) else list(s) for name, s in studies.items()}
        #: What stands in the leaderboard, a row for each detector on each data set, the best first.
        self.rows: list[Row] = rows(
            {**one.result, "detector": name, "variant": name, "seed": number}
            for name, own in self.studies.items()
            for number, one in enumerate(own)
        )

    def __str__(self) -> str:
        from straylight.report.page import leaderboard

        page = _page()
        leaderboard(self.rows, page)
        return page.file.getvalue().rstrip()  # type: ignore[attr-defined]

    __repr__ = __str__

    def pareto(self) -> Figure:
        """AUROC, and TPR at an FPR of 1e-3 where that is resolved, against the latency of one event."""
        return _figures().pareto(self.rows)

    def roc(self) -> Figure | None:
        """ROC curves of all, with a logarithmic FPR."""
        return _figures().roc_overlay(self._curves(_figures().curve))

    def sic(self) -> Figure | None:
        """Significance improvement of all, beside the optimum where it is known; None without anomalies."""
        known = [(one.data.title, one.result.get("bump") or {}) for own in self.studies.values() for one in own]
        optimum = {data: bump["optimum_curve"] for data, bump in known if "optimum_curve" in bump}
        return _figures().sic_curves(self._curves(_figures().improvement), optimum)

    def significances(self) -> Figure | None:
        """Significance before against after the cuts of a bump hunt; None where no spectrum was fitted."""
        return _figures().significances(
            {(own[0].data.title, name): [one.result for one in own] for name, own in self.studies.items()}
        )

    def kinds(self) -> Figure | None:
        """AUROC of each kind of anomaly; None where there is one kind."""
        return _figures().kind_bars(
            {(own[0].data.title, n): [s.result for s in own] for n, own in self.studies.items()}
        )

    def _curves(self, made: Callable[..., Any]) -> dict[str, dict[str, list[Any]]]:
        """What is made of the scores and labels of each, by data set and name."""
        curves: dict[str, dict[str, list[Any]]] = {}
        for name, own in self.studies.items():
            for one in own:
                if (curve := made(one.scores, one.y)) is not None:
                    curves.setdefault(one.data.title, {}).setdefault(name, []).append(curve)
        return curves


def _page() -> Console:
    """Of plain text, also in a notebook."""
    return Console(file=io.StringIO(), width=200, force_jupyter=False, force_terminal=False)


def _as_text(*parts: Any) -> str:
    page = _page()
    for part in parts:
        page.print(Text(part) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in page.file.getvalue().splitlines())  # type: ignore[attr-defined]


def _figures() -> Any:
    """What draws, which takes a second to load."""
    from straylight.report import figures

    return figures
