"""The exported graph is the predict path: every detector that exports, ordinary rows and far ones."""

from __future__ import annotations

import functools
import importlib
import math
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from straylight import export
from straylight.detectors import KNN, VAE, AnoGAN, AutoEncoder, Detector, FittedDetector
from straylight.errors import StraylightError
from straylight.export import (
    ExportError,
    choice,
    compared,
    exporter,
    misordered,
    parity,
    predicted,
    run,
    session,
    to_onnx,
    to_pt2,
    traced,
)
from straylight.nn.searching import places
from straylight.rows.batch import Events, Splits
from test_doors import NAMES, Rows, build, rows

IMAGES = {"autoencoder_conv", "vae_conv"}
PARTICLES = {"multiplicity", "sum_pt"}
#: Why the others do not.
REFUSED = {"leaves torch": {"external"}, "operations": {"anogan"}}
EXPORTED = [name for name in NAMES if not any(name in names for names in REFUSED.values())]


def made(name: str, trainer, epochs: int = 2) -> tuple[Detector, torch.Tensor]:
    """A detector after a little training, and test rows of its; settings may follow its name."""
    name, *more = name.split()
    shape = (1, 8, 8) if name in IMAGES else (4, 3) if name in PARTICLES else (5,)
    train, test = rows(100, shape), rows(40, shape, 1)
    for part in (train, test):
        part.x.mul_(3).add_(1)
    own = {flow: ["detector.layers=2"] for flow in ("maf", "nsf", "realnvp")} | {"anogan": ["detector.steps=500"]}
    detector = build(name, shape, 0, [*own.get(name, []), *more])
    data = Rows(Splits(train, train.take([]), test, test.take([])), batch_size=25)
    trainer(max_epochs=epochs).fit(detector, datamodule=data)
    return detector, test.x


def test_of_a_graph_that_cannot_be_traced_nothing_is_printed(tmp_path, capfd) -> None:
    """Not a line for each of its nodes either, which torch has for it."""

    class Bits(Detector):
        def score(self, x, context):
            found = x[:, 0].int()
            found &= 3  # which the older exporter lacks
            return found.float()

    with pytest.raises(ExportError, match="Bits cannot be exported to ONNX"):
        traced(Bits((2,), scaling="none"), tmp_path / "model.onnx")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", [*EXPORTED, "pca detector.calibrate=4", "knn detector.calibrate=4"])
def test_the_graph_scores_as_the_detector(name, trainer, tmp_path, monkeypatch) -> None:
    detector, x = made(name, trainer)
    traces, trace = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *a, **k: traces.append(1) or trace(*a, **k))
    exported = to_onnx(detector, tmp_path / "model.onnx")
    assert len(traces) == 1, "the exporter had to try again, which takes as long once more"
    found = session(exported.path)
    largest = min(exported.largest or 300, 300)
    assert parity(detector, found, x, batches=(1, 2, largest)) < 1e-3
    with torch.no_grad():  # what parity compares, without parity
        scores = detector.eval()(x).numpy()
    assert run(found, x).dtype == np.float32
    np.testing.assert_allclose(run(found, x), scores, rtol=1e-3, atol=1e-3 * scores.std())
    (given,) = found.get_inputs()
    (score,) = found.get_outputs()
    assert given.name == "x" and given.shape[1:] == list(detector.shape) and isinstance(given.shape[0], str)
    assert score.name == "score"


#: Of which no traced graph is relied on: flows that compute with shapes, and operations that are translated otherwise.
UNTRACED = {"ensemble", "gmm", "isolation_forest", "nsf", "realnvp"}


@pytest.mark.parametrize("name", EXPORTED)
def test_the_quick_graph_scores_as_the_detector_or_is_not_taken(name, trainer, tmp_path, monkeypatch) -> None:
    detector, x = made(name, trainer)
    asked: list[str] = []
    monkeypatch.setattr(choice, "to_onnx", lambda d, path: asked.append(name) or to_onnx(d, path))
    exported, found = compared(detector, tmp_path / "model.onnx", x, batches=(1, 2, 300))
    assert asked == ([name] if name in UNTRACED else [])
    n = min(exported.largest or 1000, 1000)  # more rows than the graph was traced on, or compared with
    rows = x[torch.arange(n) % len(x)]
    with torch.no_grad():
        scores = detector.eval()(rows).numpy()
    np.testing.assert_allclose(run(found, rows), scores, rtol=1e-3, atol=1e-3 * scores.std())
    assert not any("turn" in vars(module) for module in detector.modules())


def test_a_traced_graph_that_scores_otherwise_is_not_taken(tmp_path, monkeypatch) -> None:
    """What depends on the numbers is fixed in it, as they were in the call that was followed."""
    detector = Bent((3,), scaling="none")
    detector.bend = lambda x: 2.0 if torch.jit.is_tracing() else 1.0
    x, traces = torch.randn(50, 3), []
    monkeypatch.setattr(choice, "to_onnx", lambda d, path: traces.append(path) or to_onnx(d, path))
    _, found = compared(detector, tmp_path / "model.onnx", x)
    assert len(traces) == 1
    np.testing.assert_allclose(run(found, x), x.square().sum(1), rtol=1e-5)


def test_without_torchs_older_exporter_there_is_a_graph_all_the_same(tmp_path, monkeypatch) -> None:
    whole = torch.onnx.export

    def newer(*arguments, dynamo, **options):
        if not dynamo:
            raise TypeError("export() got an unexpected keyword argument 'dynamic_axes'")
        return whole(*arguments, dynamo=True, **options)

    monkeypatch.setattr(torch.onnx, "export", newer)
    detector, x = AutoEncoder((3,), hidden=[4], latent=2), torch.randn(20, 3)
    _, found = compared(detector, tmp_path / "model.onnx", x)
    assert run(found, x).shape == (20,)


@pytest.mark.parametrize("there", [True, False])
def test_operators_are_collected_once_where_torch_has_them_to_collect(tmp_path, monkeypatch, there) -> None:
    calls = []
    monkeypatch.setattr(exporter, "_collected", {})
    places = exporter.COLLECTING
    if not there:
        monkeypatch.setattr(exporter, "COLLECTING", [("torch.no_such_module", "collect"), (places[0][0], "no_such")])
    for module, path in places:
        *above, name = path.split(".")
        owner = functools.reduce(getattr, above, importlib.import_module(module))
        collect = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda collect=collect, name=name: calls.append(name) or collect())
    detector = AutoEncoder((3,), hidden=[4], latent=2)
    for number in range(2):
        to_onnx(detector, tmp_path / f"{number}.onnx")
    assert len(set(calls)) == 2
    assert (len(calls) == 2) == there
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()


@pytest.mark.parametrize(("reason", "name"), [(why, n) for why, names in REFUSED.items() for n in sorted(names)])
def test_a_detector_without_a_graph_says_why_at_once(reason, name, trainer, tmp_path, monkeypatch) -> None:
    detector, _ = made(name, trainer, epochs=1)
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: pytest.fail("the exporter was asked"))
    with pytest.raises(ExportError, match=reason) as refused:
        to_onnx(detector, tmp_path / "model.onnx")
    assert isinstance(refused.value, StraylightError) and type(detector).__name__ in str(refused.value)
    assert not (tmp_path / "model.onnx").exists()


def test_context_is_an_input_where_there_is_any(trainer, tmp_path) -> None:
    detector = build("maf", (3,), context=2)
    with torch.no_grad():
        for p in detector.parameters():
            p.normal_(generator=torch.Generator().manual_seed(p.numel()), std=0.3)
    x, context = torch.randn(30, 3), torch.randn(30, 2)
    found = session(to_onnx(detector, tmp_path / "model.onnx").path)
    assert [i.name for i in found.get_inputs()] == ["x", "context"]
    assert parity(detector, found, x, context, batches=(1, 100)) < 1e-3
    assert not np.allclose(run(found, x, context), run(found, x, context.flip(0)))  # and it is read


def test_the_detector_is_left_as_it_was_found(tmp_path) -> None:
    detector = AutoEncoder((3,), hidden=[4], latent=2)
    detector.compile_networks()
    detector.train()
    first, *_ = list(detector.modules())[1:]
    first.eval()
    next(detector.parameters()).requires_grad_(False)

    def state():
        return (
            [m.training for m in detector.modules()],
            [m._compiled_call_impl for m in detector.modules()],
            [p.requires_grad for p in detector.parameters()],
        )

    before = state()
    assert any(before[0]) and any(call is not None for call in before[1])
    x = torch.randn(20, 3)
    parity(detector, session(to_onnx(detector, tmp_path / "model.onnx").path), x)
    assert state() == before
    with pytest.raises(ExportError):
        to_onnx(AnoGAN((3,), latent=2, generator=[4], discriminator=[4]), tmp_path / "other.onnx")
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("write", [to_onnx, to_pt2])
def test_a_graph_tells_nothing_of_the_machine_it_was_made_on(write, tmp_path) -> None:
    content = write(AutoEncoder((3,), hidden=[4], latent=2), tmp_path / "model").path.read_bytes()
    with zipfile.ZipFile(tmp_path / "model") if write is to_pt2 else nullcontext() as archive:
        parts = [content] if archive is None else [archive.read(name) for name in archive.namelist()]
    assert not any(str(Path(export.__file__).parents[2]).encode() in part for part in parts)


def test_exporting_says_nothing(tmp_path, capfd, caplog) -> None:
    caplog.set_level("INFO")
    to_onnx(AutoEncoder((3,), hidden=[4], latent=2), tmp_path / "model.onnx")
    said = capfd.readouterr()
    assert not said.out and not said.err and not caplog.records


def test_a_graph_that_takes_rows_in_turns_names_its_largest_batch(tmp_path) -> None:
    detector = build("kde", (2,))
    detector.budget_mb = 0.1
    detector.fit(torch.randn(100, 2), torch.zeros(100, 0), torch.ones(100))
    largest = to_onnx(detector, tmp_path / "model.onnx").largest
    turn = int(0.1 * 2**20 / (8 * (3 * 100 + 2)))
    assert largest is not None and turn - 2 <= largest <= turn
    assert parity(detector, session(tmp_path / "model.onnx"), torch.randn(largest, 2), batches=(1, largest)) < 1e-6
    assert to_onnx(AutoEncoder((2,), hidden=[4], latent=1), tmp_path / "other.onnx").largest is None


class Bent(FittedDetector):
    """The squared length, times what `bend` gives."""

    def score(self, x, context):
        return x.square().sum(1) * self.bend(x)

    @staticmethod
    def bend(x):
        return 1.0


def test_parity_refuses_a_graph_of_something_else(tmp_path) -> None:
    x = torch.randn(50, 3)
    graph = Bent((3,), scaling="none")
    found = session(to_onnx(graph, tmp_path / "model.onnx").path)
    assert parity(graph, found, x) == 0
    other = Bent((3,), scaling="none")
    other.bend = lambda x: 1.002
    with pytest.raises(ExportError, match=r"Bent .* of the scores' spread, above 0\.001, on ordinary rows"):
        parity(other, found, x)
    assert parity(other, found, x, tolerance=0.1) > 0.002 / 1.002
    other.bend = lambda x: torch.where(x.abs().amax(1) > 100, 1.1, 1.0)  # only far outside
    with pytest.raises(ExportError, match="on rows 1000 times as large"):
        parity(other, found, x)
    other.bend = lambda x: torch.tensor(1.0 if len(x) < 64 else 2.0)  # only in large batches
    assert parity(other, found, x) == 0
    with pytest.raises(ExportError, match="on batches of 64"):
        parity(other, found, x, batches=(1, 64))
    with pytest.raises(ExportError, match="no scores on ordinary rows"):
        parity(Bent((4,), scaling="none"), found, torch.randn(50, 4))


def test_parity_refuses_what_is_finite_in_torch_alone(tmp_path, monkeypatch) -> None:
    """torch's own translation of log(sigmoid(x)) is minus infinity where x is far below zero."""
    detector = VAE((4,), hidden=[4], latent=1, likelihood="bernoulli", scaling="minmax")
    detector.scaling.fit([torch.rand(20, 4)])
    x = torch.rand(20, 4)
    assert parity(detector, session(to_onnx(detector, tmp_path / "good.onnx").path), x) < 1e-3
    monkeypatch.setattr(exporter, "_translations", dict)
    found = session(to_onnx(detector, tmp_path / "bad.onnx").path)
    with pytest.raises(ExportError, match="not finite, where torch has one that is"):
        parity(detector, found, x)


class Lifted(FittedDetector):
    """The length and an offset that all scores have, so many times their spread, and noise, so much of it."""

    def __init__(self, shape, offset, noise=0.0):
        super().__init__(shape, scaling="none")
        self.offset, self.noise = offset, noise

    def score(self, x, context):
        # noise that is a function of the row, as that of a graph with wrong constants is
        return x.square().sum(1) + (self.noise * torch.sin(1e4 * x.sum(1)) + self.offset) * math.sqrt(2 * x.shape[1])


@pytest.mark.parametrize("offset", [0, 1e3, 1e4, 1e5, 1e6])
def test_an_offset_that_all_scores_have_hides_no_noise(tmp_path, offset) -> None:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    exact = Lifted((8,), offset)
    found = session(to_onnx(exact, tmp_path / "model.onnx").path)
    assert parity(exact, found, x, batches=(1, 400)) < 1e-3
    noisy = Lifted((8,), offset, noise=1.5)
    a, b = noisy(x).double().numpy(), run(found, x).astype(np.float64)
    assert scipy.stats.spearmanr(a, b).statistic < 0.8
    with pytest.raises(ExportError, match=r"another order of .* of the pairs of rows"):
        parity(noisy, found, x)
    if offset < 1e4:  # noise that float32 would not have rounded away
        with pytest.raises(ExportError, match="of the scores' spread"):
            parity(Lifted((8,), offset, noise=0.004), found, x)


def test_a_rank_correlation_of_070_is_no_parity_beside_a_large_offset(tmp_path) -> None:
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    found = session(to_onnx(Lifted((8,), 1e4), tmp_path / "model.onnx").path)
    noisy = Lifted((8,), 1e4, noise=1.35)
    a, b = noisy(x).double().numpy(), run(found, x).astype(np.float64)
    assert scipy.stats.spearmanr(a, b).statistic == pytest.approx(0.70, abs=0.03)
    assert np.abs((a - b) / a).max() < 1e-3  # which passed
    with pytest.raises(ExportError, match="another order of"):
        parity(noisy, found, x)


class Outside(Lifted):
    """As it, but for rows far outside, which it scores otherwise."""

    how = "near"

    def score(self, x, context):
        score = super().score(x, context)
        far = x.abs().amax(1) > 20
        match self.how:
            case "near":  # as strange as an ordinary row
                return torch.where(far, score.new_tensor(self.offset * math.sqrt(2 * x.shape[1])), score)
            case "alike":  # in another order
                return torch.where(far, score - 0.04 * x.square().sum(1) * x[:, 0].sign(), score)
            case "large":  # with the largest number that there is
                return torch.where(far, score.new_tensor(torch.finfo(torch.float32).max), score)
        return score


@pytest.mark.parametrize("how", ["near", "alike"])
@pytest.mark.parametrize("offset", [0, 1e3, 1e5])
def test_an_offset_that_all_scores_have_hides_nothing_of_rows_far_outside(how, offset, tmp_path) -> None:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    found = session(to_onnx(Lifted((8,), offset), tmp_path / "model.onnx").path)
    other = Outside((8,), offset)
    other.how = how
    with pytest.raises(ExportError, match=r"on rows \S+ times as large"):
        parity(other, found, x)


def test_the_largest_score_that_there_is_stands_for_a_row_that_is_strange() -> None:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    largest, finite = Outside((8,), 0), Lifted((8,), 0)
    largest.how = "large"

    def ordinary(rows, context):
        return torch.where(rows.abs().amax(1) > 20, 8.0, finite(rows)).numpy()

    # where one overflows the other need not
    assert parity(largest, lambda rows, context: finite(rows).numpy(), x) < 1e-3
    with pytest.raises(ExportError, match="an ordinary score, where torch has the largest"):
        parity(largest, ordinary, x)
    with pytest.raises(ExportError, match="not finite, where torch has one that is"):
        parity(finite, lambda rows, context: largest(rows).numpy(), x)


@pytest.mark.parametrize("where", ["a batch", "half of the rows"])
def test_noise_within_a_crowd_is_told_by_its_order(where, tmp_path) -> None:
    """Two crowds far from each other, beside whose distance the noise within each is nothing."""
    x = torch.cat([torch.randn(100, 3), torch.randn(100, 3) + 1e4])
    right = Lifted((3,), 0)

    def noisy(rows, context):
        score = right(rows)
        if where == "a batch" and len(rows) != 64:
            return score.numpy()
        return (score + 3 * torch.sin(1e4 * rows.sum(1)) * (rows[:, 0] < 100)).numpy()

    with pytest.raises(ExportError, match="another order of"):
        parity(right, noisy, x, batches=(64,))


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 100])
def test_a_place_is_found_in_a_graph_as_torch_finds_it(right, n) -> None:
    ordered = torch.randint(0, 20, (4, n)).float().sort(1).values
    asked = torch.cat([torch.randint(-2, 23, (4, 30)).float(), torch.tensor([[math.inf, -math.inf, math.nan]] * 4)], 1)
    expected = torch.searchsorted(ordered, asked, right=right)
    assert torch.equal(places(ordered, asked, right=right, traced=True), expected)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
def test_neighbours_are_found_in_a_graph_as_without(metric, tmp_path) -> None:
    x = torch.cat([torch.randn(200, 6), torch.randn(50, 6) * 1e-3 + 1000, torch.zeros(1, 6)])  # and a crowd far away
    knn = KNN((6,), k=3, distance="mean", metric=metric, scaling="none")
    knn.fit(x[::2], x[::2, :0], torch.ones(len(x[::2])))
    for write in (traced, to_onnx):
        found = session(write(knn, tmp_path / "model.onnx").path)
        assert parity(knn, found, x, batches=(1, 2, 64)) < 1e-3
        np.testing.assert_allclose(run(found, x), knn(x), rtol=1e-4, atol=1e-6)
    assert not any("traced" in vars(module) for module in knn.modules())


def test_what_no_file_holds_is_refused_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(predicted, "LARGEST_FILE", 100)
    with pytest.raises(ExportError, match=r"AutoEncoder cannot be exported: what it keeps takes .* GB"):
        to_onnx(AutoEncoder((3,), hidden=[4], latent=2), tmp_path / "model.onnx")


def test_one_row_that_is_far_off_hides_no_noise_of_the_others(tmp_path) -> None:
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    x[17] = 1e15
    exact = Lifted((8,), 10)
    found = session(to_onnx(exact, tmp_path / "model.onnx").path)
    assert parity(exact, found, x) < 1e-3
    with pytest.raises(ExportError, match="on ordinary rows"):
        parity(Lifted((8,), 10, noise=0.004), found, x)


def test_pairs_that_are_ranked_otherwise_are_those_of_kendall() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=60)
    b = a + random.normal(size=60)
    assert misordered(a, b) == pytest.approx((1 - scipy.stats.kendalltau(a, b).statistic) / 2)
    assert misordered(a, a) == misordered(np.zeros(9), random.normal(size=9)) == 0  # ties may fall either way
    assert misordered(a, -a) == 1


def test_weights_of_half_precision_are_refused(tmp_path) -> None:
    with pytest.raises(ExportError, match="bfloat16"):
        to_onnx(AutoEncoder((3,), hidden=[4], latent=2).bfloat16(), tmp_path / "model.onnx")


def test_an_error_of_the_exporters_becomes_a_sentence(tmp_path, monkeypatch) -> None:
    def fails(*arguments, **options):
        raise RuntimeError("\x1b[96mnot today\x1b[0m.\nand a long story") from ValueError("\x1b[31mno such thing.\n...")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ExportError) as refused:
        to_onnx(AutoEncoder((3,), hidden=[4], latent=2), tmp_path / "model.onnx")
    assert str(refused.value) == (
        "AutoEncoder cannot be exported to ONNX: torch's exporter fails (ValueError: no such thing)."
    )


def test_a_folder_that_is_not_there_is_no_matter_of_the_detector(tmp_path) -> None:
    with pytest.raises(OSError):
        to_onnx(AutoEncoder((3,), hidden=[4], latent=2), tmp_path / "nowhere" / "model.onnx")


def test_a_session_keeps_to_one_thread(tmp_path) -> None:
    options = session(to_onnx(AutoEncoder((3,), hidden=[4], latent=2), tmp_path / "m.onnx").path).get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1


def test_any_module_with_a_shape_and_a_context_will_do(tmp_path) -> None:
    class Sum(nn.Module):
        shape, context = (2,), 0

        def forward(self, x, context):
            return x.sum(1)

    found = session(to_onnx(Sum(), tmp_path / "model.onnx").path)
    assert run(found, torch.tensor([[1.0, 2.0]])).tolist() == [3.0]
    assert parity(Sum(), found, Events.of(torch.randn(9, 2)).x[:]) == 0
