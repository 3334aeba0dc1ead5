"""Dijets: which file is which split, what is refused, and a density that is conditioned on the dijet mass."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from given import sentence
from straylight.callbacks import Thresholds
from straylight.data import LHCO
from straylight.data.lhco import CHECKSUMS, SOURCE
from straylight.detectors.over_density import OverDensity
from straylight.errors import DataError
from straylight.files.cache import sha256

SIZES = {  # background and signal
    "innerdata_train": (380, 20),
    "innerdata_val": (190, 10),
    "innerdata_test": (200, 100),
    "innerdata_extrasig_train": (0, 60),
    "innerdata_extrasig_val": (0, 40),
    "outerdata_train": (900, 3),
    "outerdata_val": (450, 1),
}
INNER = [name for name in SIZES if name.startswith("inner")]


def rows(name):
    """The rows of a file by its name: mjj, four features and the label, float64, signal among background."""
    background, signal = SIZES[name]
    rng = np.random.default_rng(list(SIZES).index(name))
    n = background + signal
    x = np.empty((n, 6))
    outside = np.where(rng.random(n) < 0.5, rng.uniform(2.5, 3.29, n), rng.uniform(3.71, 5, n))
    x[:, 0] = outside if name.startswith("outer") else rng.uniform(3.3, 3.7, n)
    x[:, 1:5] = rng.normal(size=(n, 4))
    x[:, 5] = rng.permutation(np.repeat([0.0, 1.0], [background, signal]))
    return x


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "lhco"
    (root / "separated_data").mkdir(parents=True)
    for name in INNER:
        np.save(root / "separated_data" / f"{name}.npy", rows(name))
    return root


@pytest.fixture
def sidebands(folder):
    for name in ("outerdata_train", "outerdata_val"):
        np.save(folder / "separated_data" / f"{name}.npy", rows(name))
    return folder


def lhco(root, **options):
    return LHCO(root=str(root), **options)


def same(events, *names, keep=slice(None)):
    """Whether a split holds the rows of these files, in their order."""
    expected = np.concatenate([rows(name) for name in names])[keep].astype(np.float32)
    return (
        np.array_equal(events.x.numpy(), expected[:, 1:5])
        and np.array_equal(events.context.numpy(), expected[:, :1])
        and np.array_equal(events.y.numpy(), expected[:, 5].astype(int))
    )


def test_each_file_is_a_split_and_the_dijet_mass_is_context(folder) -> None:
    data = lhco(folder)
    train, val, test, reserve = data.splits
    assert data.name == "lhco" and data.shape == (4,) and data.context == 1 and data.kinds == ("nominal", "signal")
    assert len(data.columns) == 4 and not data.missing()
    assert same(train, "innerdata_train") and same(val, "innerdata_val") and same(test, "innerdata_test")
    assert same(reserve, "innerdata_extrasig_train", "innerdata_extrasig_val")


@pytest.mark.parametrize(("region", "source"), [("sidebands", ("outer",)), ("both", ("inner", "outer"))])
def test_training_rows_are_from_the_region_and_the_tested_from_the_signal_region(region, source, sidebands) -> None:
    train, val, test, reserve = lhco(sidebands, region=region).splits
    assert same(train, *(f"{s}data_train" for s in source)) and same(val, *(f"{s}data_val" for s in source))
    assert same(test, "innerdata_test") and len(reserve) == 100


def test_sidebands_need_no_training_rows_of_the_signal_region(sidebands) -> None:
    for name in ("innerdata_train", "innerdata_val"):
        (sidebands / "separated_data" / f"{name}.npy").unlink()
    assert not lhco(sidebands, region="sidebands").missing()
    assert len(lhco(sidebands, region="sidebands").splits.train) == 903
    assert len(lhco(sidebands, region="both").missing()) == 2


def within(name, low, high):
    m = rows(name)[:, 0].astype(np.float32)
    return (m >= np.float32(low)) & (m <= np.float32(high))


@pytest.mark.parametrize("region", ["signal", "sidebands", "both"])
def test_a_narrower_region_leaves_the_rest_to_the_sidebands(region, sidebands) -> None:
    data = lhco(sidebands, region=region, signal_region=[3.4, 3.6])
    assert not data.missing() and (data.resonance.low, data.resonance.high) == (3.4, 3.6)
    names = {"signal": ("inner",), "sidebands": ("inner", "outer"), "both": ("inner", "outer")}[region]
    for part, split in (("train", data.splits.train), ("val", data.splits.val)):
        files = [f"{source}data_{part}" for source in names]
        there = np.concatenate([within(name, 3.4, 3.6) for name in files])
        keep = {"signal": there, "sidebands": ~there, "both": there | ~there}[region]
        assert same(split, *files, keep=keep) and keep.sum() > 20
    assert same(data.splits.test, "innerdata_test", keep=within("innerdata_test", 3.4, 3.6))
    assert data.resonance.holds(data.splits.test.context).all() and 0 < len(data.splits.test) < 300
    assert data.resonance.name == "mjj [TeV]" and data.resonance.column == 0
    reserve = data.resonance.holds(data.splits.reserve.context)
    assert reserve.all() == (region == "signal") and len(reserve) == (int(reserve.sum()) if region == "signal" else 100)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ([3.2, 3.7], "must lie within [3.3,3.7] TeV"),
        ([3.3, 3.8], "must lie within [3.3,3.7] TeV"),
        ([3.6, 3.4], "the lower first"),
        ([3.4, float("nan")], "the lower first"),
        ([3.4], "must be two numbers"),
    ],
    ids=str,
)
def test_a_signal_region_that_the_files_do_not_have_is_refused(limits, said, folder) -> None:
    with pytest.raises(DataError) as error:
        lhco(folder, signal_region=limits)
    assert said in sentence(error)


def test_a_region_without_rows_is_refused(sidebands) -> None:
    with pytest.raises(DataError) as error:
        _ = lhco(sidebands, region="both", signal_region=[3.4, 3.4005]).splits
    assert "of 1,303 rows has mjj [TeV] within data.signal_region=[3.4,3.4005]" in sentence(error)


# the truth


def row_set(events):
    return {row.tobytes() for row in torch.cat([events.context, events.x], 1).numpy()}


@pytest.mark.parametrize("limits", [(3.3, 3.7), (3.4, 3.6)])
@pytest.mark.parametrize("region", ["signal", "sidebands", "both"])
def test_the_truth_is_background_that_validates_and_all_other_signal(region, limits, sidebands) -> None:
    data = lhco(sidebands, region=region, signal_region=limits)
    background, signal = data.truth()
    there = within("innerdata_val", *limits) & (rows("innerdata_val")[:, 5] == 0)
    assert same(background, "innerdata_val", keep=there)
    extra = ("innerdata_extrasig_train", "innerdata_extrasig_val")
    assert same(signal, *extra, keep=np.concatenate([within(name, *limits) for name in extra]))
    assert data.resonance.holds(torch.cat([background.context, signal.context])).all()
    assert not row_set(data.splits.train) & (row_set(background) | row_set(signal))


def test_signal_that_contaminates_is_no_truth(folder) -> None:
    data = lhco(folder, contamination=0.2)
    _, signal = data.truth()
    train, reserve = row_set(data.splits.train), row_set(data.splits.reserve)
    assert row_set(signal) == reserve - train and 0 < len(signal) < 100


def test_the_truth_beside_sidebands_alone_takes_a_file_more(sidebands) -> None:
    (sidebands / "separated_data" / "innerdata_val.npy").unlink()
    with pytest.raises(DataError) as error:
        lhco(sidebands, region="sidebands").truth()
    assert "innerdata_val.npy" in sentence(error)


@pytest.mark.parametrize("fraction", [None, 0, 0.02, 0.2])
def test_contamination_is_as_found_none_or_what_is_asked_for(fraction, folder) -> None:
    train, _, test, _ = lhco(folder, contamination=fraction).splits
    wanted = 20 if fraction is None else round(fraction / (1 - fraction) * 380)
    assert int(train.y.sum()) == wanted and len(train) == 380 + wanted
    found = rows("innerdata_train")
    nominal = found[found[:, 5] == 0].astype(np.float32)
    assert np.array_equal(train.x[train.y == 0].numpy(), nominal[:, 1:5])
    assert np.array_equal(train.context[train.y == 0].numpy(), nominal[:, :1])
    signal = np.concatenate([found, rows("innerdata_extrasig_train"), rows("innerdata_extrasig_val")])
    pool = {row.tobytes() for row in signal[signal[:, 5] == 1].astype(np.float32)[:, :5]}
    drawn = torch.cat([train.context, train.x], 1)[train.y == 1].numpy()
    assert {row.tobytes() for row in drawn} <= pool and len({row.tobytes() for row in drawn}) == wanted
    assert same(test, "innerdata_test")
    for part in (train, test):  # each row is the one of the file that it says it is
        files, numbers = part.origin.file().to_pylist(), part.origin.rows().tolist()
        there = {path: rows(Path(path).stem) for path in set(files)}
        expected = np.array([there[path][n - 1] for path, n in zip(files, numbers, strict=True)], dtype=np.float32)
        assert np.array_equal(part.x.numpy(), expected[:, 1:5]) and np.array_equal(part.y.numpy(), expected[:, 5])


def test_more_signal_than_there_is_is_refused(folder) -> None:
    with pytest.raises(DataError) as error:
        _ = lhco(folder, contamination=0.5).splits
    assert "data.contamination=0.5" in sentence(error) and "120" in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ">f8"])
def test_files_of_other_floats_are_read(dtype, folder) -> None:
    path = folder / "separated_data" / "innerdata_extrasig_val.npy"
    again = rows("innerdata_extrasig_val")
    again[:, 0] = 3.5
    np.save(path, again.astype(dtype))
    assert np.allclose(lhco(folder).splits.reserve.x[60:].numpy(), again[:, 1:5], atol=0.01)


@pytest.mark.parametrize("edge", [3.3, 3.7])
def test_the_edges_belong_to_the_signal_region(edge, folder) -> None:
    again = rows("innerdata_train")
    again[5, 0] = edge
    np.save(folder / "separated_data" / "innerdata_train.npy", again)
    assert len(lhco(folder).splits.train) == 400


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def broken(path, what):
    good = rows(path.stem)
    match what:
        case "outside":
            good[[3, 9], 0] = 3.8, 3.2
            np.save(path, good)
        case "inside":
            good[4, 0] = 3.5
            np.save(path, good)
        case "nan of mjj":
            good[4, 0] = np.nan
            np.save(path, good)
        case "label":
            good[2, 5] = 2
            np.save(path, good)
        case "label is nan":
            good[2, 5] = np.nan
            np.save(path, good)
        case "five columns":
            np.save(path, good[:, :5])
        case "one axis":
            np.save(path, good[:, 0])
        case "integers":
            np.save(path, good.astype(int))
        case "text":
            path.write_text("mjj,mj1\n3.5,0.1\n")
        case "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        case "head alone":
            path.write_bytes(path.read_bytes()[:40])
        case "nothing":
            path.write_bytes(b"")
        case "objects":
            np.save(path, np.array([[Trap()] * 6] * 3, dtype=object), allow_pickle=True)
        case "pickle":
            path.write_bytes(pickle.dumps(Trap()))
        case "archive":
            with path.open("wb") as file:
                np.savez(file, X=good)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("outside", ("2 rows", "3.3", "3.7")),
        ("nan of mjj", ("(1 rows)",)),
        ("label", ("last column",)),
        ("label is nan", ("last column",)),
        ("five columns", ("(N, 6)", "(400, 5)")),
        ("one axis", ("(N, 6)", "(400,)")),
        ("integers", ("(N, 6)", "int64")),
        ("text", ("cannot be read",)),
        ("truncated", ("cannot be read",)),
        ("head alone", ("cannot be read",)),
        ("nothing", ("cannot be read",)),
        ("objects", ("cannot be read",)),
        ("pickle", ("cannot be read",)),
        ("archive", ("cannot be read",)),
    ],
)
def test_a_broken_file_is_named_in_one_sentence(what, words, folder) -> None:
    path = folder / "separated_data" / "innerdata_train.npy"
    broken(path, what)
    with pytest.raises(DataError) as error:
        _ = lhco(folder).splits
    said = sentence(error)
    assert str(path) in said and all(word in said for word in words), said


def test_sidebands_inside_the_signal_region_are_refused(sidebands) -> None:
    broken(sidebands / "separated_data" / "outerdata_val.npy", "inside")
    with pytest.raises(DataError) as error:
        _ = lhco(sidebands, region="both").splits
    assert "outerdata_val.npy" in sentence(error) and "1 rows" in str(error.value)


@pytest.mark.parametrize("column", [1, 4])
def test_a_nan_is_named_with_its_feature(column, folder) -> None:
    again = rows("innerdata_test")
    again[7, column] = np.nan
    np.save(folder / "separated_data" / "innerdata_test.npy", again)
    with pytest.raises(DataError) as error:
        _ = lhco(folder).splits
    assert repr(LHCO.columns[column - 1]) in sentence(error)


def test_a_missing_file_is_named_with_its_url_and_folder(folder) -> None:
    (folder / "separated_data" / "innerdata_val.npy").unlink()
    with pytest.raises(DataError) as error:
        _ = lhco(folder).splits
    said = sentence(error)
    assert f"{SOURCE}/separated_data/innerdata_val.npy" in said and "straylight data fetch lhco" in said
    assert str(folder / "separated_data" / "innerdata_val.npy") in said and "paths.data" in said


def test_missing_sidebands_are_named_though_nobody_serves_them(folder) -> None:
    with pytest.raises(DataError) as error:
        _ = lhco(folder, region="sidebands").splits
    assert "outerdata_train.npy" in sentence(error) and "nor 1 more" in str(error.value)


def test_the_other_protocol_is_refused(folder) -> None:
    with pytest.raises(DataError, match="splits of its own"):
        _ = lhco(folder, protocol="unsupervised").splits


def test_a_region_that_is_none_is_refused(folder, straylight_train) -> None:
    ended = straylight_train("data=lhco", f"data.root={folder}", "data.region=middle")
    assert ended.status == 1 and "data.region" in ended.err and "'sidebands'" in ended.err


@pytest.mark.parametrize("overrides", [[], ["data.contamination=0"], ["data.region=both"]], ids=" ".join)
def test_a_flow_is_conditioned_on_the_dijet_mass(overrides, sidebands, straylight_train) -> None:
    ended = straylight_train(
        "data=lhco", f"data.root={sidebands}", "detector=maf", "detector.layers=2", "detector.hidden=8", *overrides
    )
    assert ended.status == 0, ended.err
    assert ended.result["data"] == "lhco" and 0 <= ended.result["metrics"]["test/auroc"] <= 1
    state = torch.load(next(iter((ended.run / "checkpoints").glob("*.ckpt"))), weights_only=True)["state_dict"]
    assert any("context" in name for name in state), list(state)


# the real files


@pytest.fixture
def real(shared):
    root = shared / "lhco"
    if not (root / "separated_data" / "innerdata_test.npy").is_file():
        pytest.skip("no lhco in ../shared/data")
    return root


def test_the_real_files_are_those_that_would_be_fetched(real) -> None:
    for name, checksum in CHECKSUMS.items():
        assert sha256(real / "separated_data" / f"{name}.npy") == checksum


def test_the_real_rows_are_those_that_were_published(real) -> None:
    train, val, test, reserve = lhco(real).splits
    counts = [(int((part.y == 0).sum()), int(part.y.sum())) for part in (train, val, test, reserve)]
    assert counts == [(59605, 395), (59631, 369), (40000, 20000), (0, 54527)]
    for part in (train, val, test, reserve):
        assert float(part.context.min()) >= 3.3 and float(part.context.max()) <= 3.7
        assert part.x.shape[1:] == (4,) and part.x[:, 2:].min() >= 0 and part.x[:, 2:].max() <= 1.2
    file = np.load(real / "separated_data" / "innerdata_test.npy")
    assert np.array_equal(test.x.numpy(), file[:, 1:5].astype(np.float32))
    assert np.array_equal(test.context[:, 0].numpy(), file[:, 0].astype(np.float32))


def test_the_truth_of_the_real_files(real) -> None:
    background, signal = lhco(real).truth()
    assert (len(background), len(signal)) == (59631, 54527) and not background.y.any() and signal.y.all()


@pytest.mark.parametrize(("fraction", "signal"), [(0, 0), (0.01, 602), (0.2, 14901)])
def test_the_dial_of_the_real_files(fraction, signal, real) -> None:
    train = lhco(real, contamination=fraction).splits.train
    assert int(train.y.sum()) == signal == round(fraction / (1 - fraction) * 59605) and len(train) == 59605 + signal


@pytest.mark.parametrize("folds", [3, "forward"])
def test_rows_that_trained_a_yardstick_set_thresholds_by_models_that_have_not_seen_them(folder, trainer, folds) -> None:
    """A score of 1,000,000 by every model that has seen the event."""

    class Knows(OverDensity):
        sees_truth, needs_sidebands = True, False

        def learn(self, rows, truth) -> None:
            self.own = [truth.x[truth_seen] for truth_seen in truth.seen]

        def each(self, x, context):
            seen = [(torch.cdist(rows, own) < 1e-4).any(1) for rows, own in zip(x, self.own, strict=True)]
            return x[..., 0] + 1e6 * torch.stack(seen)

    data, detector, found = lhco(folder), Knows((4,), context=1, folds=folds, scaling="none"), Thresholds()
    made = trainer(callbacks=[found], max_epochs=1)
    made.fit(detector, datamodule=data)
    made.test(detector, datamodule=data, verbose=False)
    assert any("not seen the row" in said for said in data.notices)
    calibration = data.calibration_dataloader().events
    nominal = calibration.take(np.flatnonzero(calibration.y.numpy() == 0))
    fold = detector.held_out(nominal.x, nominal.context).fold
    assert (fold >= 0).all(), "they are rows that trained"
    scored = np.sort(nominal.x[(fold > 0) | (folds == 3), 0].numpy())
    assert (len(scored) < len(nominal)) == (folds == "forward")
    (quantile,) = (rule for rule in found.result()["thresholds"] if rule["rule"] == "quantile")
    assert quantile["calibration"] == len(scored)
    assert quantile["value"] == scored[math.ceil(0.95 * (len(scored) + 1)) - 1], "of scores by others, which are x"
