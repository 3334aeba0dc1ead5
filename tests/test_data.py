"""Every data set of `conf/data` keeps the contract, and unfit files are refused in one sentence."""

import gzip
import hashlib
import io
import struct
from collections import Counter
from functools import cache
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from given import sentence
from straylight import config
from straylight.data import MNIST, ADBench, AnomalyDataModule, Blobs, Digits, Gaussians, Stored
from straylight.errors import DataError
from straylight.groups import FOLDER, choices
from straylight.rows.batch import HIDDEN, Events, Splits

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
MIXED_VALIDATION = {"digits_contaminated", "mnist_contaminated", "lhco", "bump"}  # what is set aside, or as found
AS_FOUND = {"lhco", "bump"}  # with anomalies among training rows
SEEDLESS = {"lhco"}  # with splits of its own whatever the seed
NEEDED = {"adbench": ["data.name=6_cardio"], "file": ["data.path=${paths.data}/adbench/6_cardio.npz", "data.label=y"]}


# every data set by name


def made(name, *overrides):
    told = (FOLDER / "data" / f"{name}.yaml").read_text() + "".join(NEEDED.get(name, []))
    if "paths.data" in told and not SHARED.is_dir():
        pytest.skip(f"data={name} reads files, and there is no folder ../shared/data beside the checkout")
    chosen = [f"data={name}", *NEEDED.get(name, []), f"paths.data={SHARED}", "paths.run=.", *overrides]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        data = config.build(hydra.compose("train", overrides=chosen), "data")
    assert isinstance(data, AnomalyDataModule)
    if isinstance(data, Stored) and data.missing():
        pytest.skip(f"data={name} reads files that are not in ../shared/data")
    data.setup()
    return data


served = cache(made)


def hashes(events):
    rows = events.x.flatten(1).numpy()
    return Counter(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)


every = pytest.mark.parametrize("name", choices("data"))


@every
def test_a_data_set_serves_float32_rows_of_one_shape_with_columns_of_one_length(name):
    data = served(name)
    for part in data.splits:
        assert part.x.dtype == part.context.dtype == part.weight.dtype == torch.float32
        assert part.y.dtype == torch.int64
        assert tuple(part.x.shape[1:]) == data.shape and part.context.shape == (len(part), data.context)
        assert len(part.y) == len(part.weight) == len(part)
        assert all(len(column) == len(part) for column in part.meta.values())
        assert part.x.isfinite().all()


@every
def test_kinds_of_a_data_set_name_its_labels_and_all_of_them_are_tested(name):
    data = served(name)
    assert data.kinds[0] == "nominal" and len(set(data.kinds)) == len(data.kinds) > 1
    assert set(data.splits.test.y.tolist()) == set(range(len(data.kinds)))


@every
def test_training_and_validation_rows_of_a_data_set_are_nominal(name):
    train, val, _, reserve = served(name).splits
    assert len(train) and (name in AS_FOUND or not train.y.any()) and (reserve.y > 0).all()
    assert not val.y.any() or name in MIXED_VALIDATION


@every
def test_no_row_of_a_data_set_is_in_two_splits(name):
    parts = [hashes(part) for part in served(name).splits]
    if any(count > 1 for part in parts for count in part.values()):
        pytest.skip(f"data={name} holds equal rows, so that a row cannot be told by its values")
    assert sum(map(len, parts)) == len(set().union(*parts))


@every
def test_a_seed_makes_the_splits_of_a_data_set_and_another_seed_others(name):
    first, again, other = served(name), made(name), made(name, "seed=1")
    for a, b in zip(first.splits, again.splits, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
    assert (hashes(first.splits.train) == hashes(other.splits.train)) == (name in SEEDLESS)
    assert [len(part) for part in first.splits] == [len(part) for part in other.splits]


@every
def test_contamination_changes_the_training_rows_of_a_data_set_and_nothing_else(name):
    clean = made(name, "data.reserve_fraction=0.5", "data.contamination=0")
    n, reserved = len(clean.splits.train), len(clean.splits.reserve)
    fraction = min(0.2, 0.5 * reserved / (reserved + n))
    dirty = made(name, "data.reserve_fraction=0.5", f"data.contamination={fraction}")
    strange = int((dirty.splits.train.y > 0).sum())
    assert strange == round(fraction / (1 - fraction) * n) > 0 and len(dirty.splits.train) == n + strange
    assert torch.equal(dirty.splits.test.x, clean.splits.test.x) and torch.equal(dirty.splits.val.x, clean.splits.val.x)
    drawn = hashes(dirty.splits.train) - hashes(clean.splits.train)
    pool = hashes(clean.splits.reserve) + (hashes(made(name).splits.train) if name in AS_FOUND else Counter())
    assert sum(drawn.values()) == strange and not drawn - pool


@every
def test_loaders_of_a_data_set_serve_its_splits_and_hide_the_training_labels(name):
    data = served(name)
    rows = []
    for group in data.train_dataloader():
        batch = group.rows()
        rows.append(batch.index)
        assert (batch.y == HIDDEN).all() and torch.equal(batch.x, data.splits.train.x[batch.index])
    assert torch.cat(rows).sort().values.tolist() == list(range(len(data.splits.train)))
    assert torch.equal(torch.cat([batch.y for batch in data.test_dataloader()]), data.splits.test.y)
    halves = [sum(len(batch.x) for batch in half()) for half in (data.val_dataloader, data.calibration_dataloader)]
    anomalous = len(data._val_halves[0]) - len(data.selecting)  # which choose no epoch
    assert sum(halves) + anomalous == len(data.splits.val) and halves[0] + anomalous - halves[1] in (0, 1)
    assert (anomalous > 0) == (name in MIXED_VALIDATION)
    assert sum(len(chunk) for chunk, _ in data.training_rows()) == len(data.splits.train)


# the base


class Rows(AnomalyDataModule):
    """Rows that are given, split by the one-class protocol."""

    loads = 0

    def __init__(self, x, y, weight=None, **common):
        super().__init__(**common)
        self.rows = Events.of(x, y, weight=weight)

    def load(self) -> Splits:
        self.loads += 1
        return self.split(self.rows)


def test_rows_are_loaded_once():
    data = Rows(torch.rand(40, 2), torch.arange(40) % 2)
    assert not data.loads
    data.setup("fit"), data.setup("test"), data.test_dataloader(), data.train_dataloader()
    assert data.loads == 1


def test_training_weights_are_one_on_average_and_keep_their_ratios():
    weight = torch.arange(1.0, 41)
    data = Rows(torch.arange(40.0)[:, None], torch.arange(40) % 2, weight)
    train = data.splits.train
    assert train.weight.mean() == pytest.approx(1)
    torch.testing.assert_close(train.weight / train.weight[0], weight[train.x[:, 0].long()] / weight[int(train.x[0])])


def test_validation_weights_are_on_the_scale_of_the_training_weights():
    """A loss on validation rows is compared with one on training rows: a weight means the same in both."""
    weight = torch.arange(1.0, 401)
    data = Rows(torch.arange(400.0)[:, None], torch.arange(400) % 2, weight, val_fraction=0.3, seed=3)
    train, val = data.splits.train, data.splits.val
    per_unit = train.weight / weight[train.x[:, 0].long()]
    torch.testing.assert_close(val.weight / weight[val.x[:, 0].long()], per_unit[:1].expand(len(val)))
    assert abs(float(val.weight.mean()) - 1) > 0.01, "and not one on average"


def test_without_validation_rows_there_is_no_validation_loader():
    data = Rows(torch.rand(40, 2), torch.arange(40) % 2, val_fraction=0.0)
    assert data.val_dataloader() == data.calibration_dataloader() == []


@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size", "group"])
def test_a_size_below_one_is_refused_by_its_key(key):
    with pytest.raises(DataError) as error:
        Blobs(**{key: 0})
    assert f"data.{key} must be positive, not 0" in sentence(error)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_are_refused_with_columns_and_counts(bad):
    x = torch.rand(100, 8)
    x[[3, 4, 5], 6] = bad
    x[3, 1] = bad
    data = Rows(x, torch.zeros(100), train_fraction=1.0)
    with pytest.raises(DataError) as error:
        data.setup()
    assert "rows: 3 of 100 rows " in sentence(error) and "column 6 (3 rows), column 1 (1 row)" in sentence(error)


def test_a_column_is_called_by_its_name_where_it_has_one():
    x = torch.rand(40, 2)
    x[:, 1] = float("nan")
    data = Rows(x, torch.arange(40) % 2)
    data.columns = ("pt", "eta")
    with pytest.raises(DataError) as error:
        data.setup()
    assert "column 'eta' (40 rows)" in sentence(error) and "40 of 40 rows" in sentence(error)


# ADBench


def table(n=60, m=20, d=3, kinds=1):
    rng = np.random.default_rng(0)
    return {"X": rng.normal(size=(n + m, d)).round(2), "y": np.r_[np.zeros(n, int), 1 + np.arange(m) % kinds]}


@pytest.fixture
def root(tmp_path):
    np.savez(tmp_path / "6_cardio.npz", **table())
    np.savez_compressed(tmp_path / "21_Lymphography.npz", **table(d=5))
    np.savez(tmp_path / "own.npz", **table(d=2))
    return tmp_path


def refused(path, **options):
    data = ADBench(path=str(path), **options)
    with pytest.raises(DataError) as error:
        data.setup()
    return sentence(error)


@pytest.mark.parametrize(
    "asked, name, features",
    [
        ("6_cardio", "6_cardio", 3),
        ("cardio", "6_cardio", 3),
        ("lymphography", "21_Lymphography", 5),
        ("21_Lymphography", "21_Lymphography", 5),
        ("own", "own", 2),
    ],
)
def test_adbench_finds_a_data_set_with_and_without_its_number(root, asked, name, features):
    data = ADBench(name=asked, root=str(root))
    data.setup()
    assert (data.name, data.shape, data.kinds) == (name, (features,), ("nominal", "anomaly"))
    assert [len(part) for part in data.splits] == [27, 3, 50, 0]


def test_adbench_lists_what_is_there_when_a_data_set_is_missing(root, tmp_path):
    with pytest.raises(DataError) as error:
        ADBench(name="wine", root=str(root))
    said = sentence(error)
    assert "'wine'" in said and all(name in said for name in ("6_cardio", "21_Lymphography", "own", str(root)))
    with pytest.raises(DataError) as error:
        ADBench(name="wine", root=str(tmp_path / "nowhere"))
    assert "no .npz file is there" in sentence(error)


def test_adbench_asks_for_a_name_or_a_path():
    with pytest.raises(DataError) as error:
        ADBench(root="somewhere")
    assert "data.name=" in sentence(error) and "data.path=" in sentence(error)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float16, bool])
@pytest.mark.parametrize("label", [np.uint8, np.int8, np.float64])
def test_adbench_takes_kinds_and_any_plain_number(tmp_path, dtype, label):
    arrays = table(kinds=3)
    features, labels = np.abs(arrays["X"] * 10).astype(dtype), arrays["y"].astype(label)[:, None]
    np.savez(tmp_path / "k.npz", X=features, y=labels)
    data = ADBench(path=str(tmp_path / "k.npz"))
    data.setup()
    assert data.kinds == ("nominal", "1", "2", "3") and data.splits.test.x.dtype == torch.float32
    assert Counter(data.splits.test.y.tolist()) == {0: 30, 1: 7, 2: 7, 3: 6}


def test_adbench_reads_no_missing_file(tmp_path):
    assert str(tmp_path / "gone.npz") in refused(tmp_path / "gone.npz")


@pytest.mark.parametrize("missing", ["X", "y"])
def test_adbench_says_which_array_is_missing_and_which_are_there(tmp_path, missing):
    arrays = table() | {"other": np.zeros(1)}
    del arrays[missing]
    np.savez(tmp_path / "k.npz", **arrays)
    said = refused(tmp_path / "k.npz")
    assert f"no array {missing!r}" in said and "other" in said


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["X", "y", "other"])
def test_adbench_unpickles_nothing(tmp_path, name):
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "k.npz", **(table() | {name: trap}))
    refused(tmp_path / "k.npz")
    assert not (tmp_path / "sprung").exists()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


DAMAGED = {
    "cut in half": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "text": lambda whole: b"a,b\n1,2\n",
    "one array": lambda whole: npy(np.zeros((5, 2))),
    "pickle": lambda whole: b"\x80\x04N.",
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_adbench_refuses_a_damaged_file(tmp_path, damaged):
    path = tmp_path / "k.npz"
    np.savez(path, **table())
    path.write_bytes(damaged(path.read_bytes()))
    said = refused(path)
    assert str(path) in said and "pickle" not in said  # numpy advises to load it unsafely


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_adbench_reads_a_file_with_a_wrong_byte_as_it_was_or_refuses_it(tmp_path, save):
    path = tmp_path / "k.npz"
    save(path, **table())
    whole = path.read_bytes()

    def contents():
        data = ADBench(path=str(path))
        data.setup()
        return [hashes(part) for part in data.splits]

    right, refusals = contents(), 0
    for at in range(0, len(whole), len(whole) // 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            assert contents() == right
        except DataError:
            refusals += 1
    assert refusals > 50


@pytest.mark.parametrize(
    "change, said",
    [
        ({"X": np.zeros(80)}, "not (80,) and (80,)"),
        ({"X": np.zeros((80, 2, 2))}, "not (80, 2, 2) and (80,)"),
        ({"X": np.zeros((79, 3))}, "not (79, 3) and (80,)"),
        ({"y": np.zeros((80, 2))}, "not (80, 3) and (80, 2)"),
        ({"X": np.zeros((80, 3), complex)}, "complex128"),
        ({"X": np.full((80, 3), "a")}, "must hold numbers"),
        ({"y": np.full(80, "a")}, "must hold numbers"),
        ({"y": np.repeat([-1, 1], 40)}, "not [-1, 1]"),
        ({"y": np.repeat([0.5, 1], 40)}, "not [0.5, 1.0]"),
        ({"y": np.repeat([0, np.nan], 40)}, "nan"),
        ({"y": np.ones(80, int)}, "no nominal rows to train on"),
        ({"y": np.zeros(80, int)}, "holds no anomalous row"),
        ({"X": np.zeros((0, 3)), "y": np.zeros(0)}, "no nominal rows"),
        ({"X": np.zeros((80, 0))}, "(80, 0)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_adbench_says_what_is_wrong_with_the_arrays(tmp_path, change, said):
    np.savez(tmp_path / "k.npz", **(table() | change))
    assert said in refused(tmp_path / "k.npz")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300], ids=str)
def test_adbench_says_which_column_is_not_finite_and_in_how_many_rows(tmp_path, bad):
    arrays = table()
    arrays["X"][60:64, 2] = bad
    np.savez(tmp_path / "k.npz", **arrays)
    said = refused(tmp_path / "k.npz")
    assert said.startswith("k: 4 of 80 rows") and "column 2 (4 rows)" in said and "column 0" not in said


def test_adbench_draws_no_more_rows_than_told_by_seed(tmp_path):
    np.savez(tmp_path / "k.npz", **table(n=400, m=100))
    runs = [ADBench(path=str(tmp_path / "k.npz"), max_rows=100, seed=seed) for seed in (0, 0, 1)]
    drawn = [sum((hashes(part) for part in data.splits), Counter()) for data in runs]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0].total() == 100
    assert sum(len(part) for part in ADBench(path=str(tmp_path / "k.npz"), max_rows=None).splits) == 500
    with pytest.raises(DataError) as error:
        ADBench(path="k.npz", max_rows=1)
    assert "data.max_rows" in sentence(error)


# MNIST


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


SIZES = {"train": 300, "t10k": 100}


@pytest.fixture
def mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in SIZES.items():
        images = rng.integers(0, 256, (n, 28, 28))
        images[:, 0, 0], images[:, 0, 1] = 255, 0
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    return tmp_path


def pixels(raw, part):
    return np.frombuffer((raw / f"{part}-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(-1, 1, 28, 28)


def test_mnist_keeps_the_official_split_and_reserves_anomalous_training_images(mnist):
    data = MNIST(root=str(mnist), nominal=3, val_fraction=0.2)
    data.setup()
    assert [len(part) for part in data.splits] == [24, 6, 100, 270]
    assert data.shape == (1, 28, 28)
    assert data.kinds == ("nominal", *"012456789")
    np.testing.assert_array_equal(data.splits.test.x.numpy(), pixels(mnist / "MNIST/raw", "t10k") / np.float32(255))
    trained = pixels(mnist / "MNIST/raw", "train")[3::10] / np.float32(255)
    kept = torch.cat([data.splits.train.x, data.splits.val.x])
    assert hashes(Events.of(kept)) == hashes(Events.of(trained))
    assert (data.splits.test.y == 0).tolist() == (np.arange(100) % 10 == 3).tolist()
    for part in data.splits:
        assert part.x.min() == 0 and part.x.max() == 1
        named = [data.kinds[k] for k in part.y.tolist()]
        assert named == ["nominal" if digit == 3 else str(digit) for digit in part.meta["digit"]]


def test_mnist_is_contaminated_from_its_reserve(mnist):
    clean, dirty = (MNIST(root=str(mnist), nominal=[0, 1], contamination=c) for c in (0.0, 0.25))
    strange = dirty.splits.train.take(np.flatnonzero(dirty.splits.train.y))
    assert (len(clean.splits.train), len(dirty.splits.train)) == (54, 72)
    assert len(strange) == 18 and not hashes(strange) - hashes(clean.splits.reserve)
    assert torch.equal(dirty.splits.test.x, clean.splits.test.x)


def test_mnist_is_not_loaded_from_a_missing_folder(tmp_path):
    with pytest.raises(DataError) as error:
        MNIST(root=str(tmp_path)).setup()
    said = sentence(error)
    assert str(tmp_path / "MNIST" / "raw") in said and "data.download=true" in said


@pytest.mark.parametrize("name", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
@pytest.mark.parametrize("spoil", ["gone", "cut", "empty", "zipped", "one less"])
def test_mnist_refuses_a_damaged_file(mnist, name, spoil):
    path = mnist / "MNIST" / "raw" / f"{name}-ubyte"
    whole = path.read_bytes()
    match spoil:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(whole[: len(whole) * 2 // 3])
        case "empty":
            path.write_bytes(b"")
        case "zipped":
            path.write_bytes(gzip.compress(whole))
        case "one less":  # a file of its own right, which does not go with the other
            n = SIZES[name.partition("-")[0]] - 1
            write_idx(path, np.zeros((n, 28, 28) if "images" in name else n, np.uint8))
    with pytest.raises(DataError) as error:
        MNIST(root=str(mnist)).setup()
    said = sentence(error)
    assert path.name in said and str(path.parent) in said


def test_mnist_refuses_a_label_that_is_no_digit(mnist):
    write_idx(mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.full(300, 10))
    with pytest.raises(DataError) as error:
        MNIST(root=str(mnist)).setup()
    sentence(error)


# generated and built-in


def rows_of(data, kind):
    """All rows of one kind, wherever they were put."""
    return torch.cat([part.x[part.y == kind] for part in data.splits]).double().numpy()


def test_blobs_have_the_sizes_centres_and_spreads_they_were_given():
    data = Blobs(
        nominal=4000, anomalies=2000, centers=[[-4, 0, 1], [6, 2, 1]], std=0.5, anomaly_std=0.1, shift=[0, 5, 0]
    )
    nominal, strange = rows_of(data, 0), rows_of(data, 1)
    assert data.shape == (3,) and (len(nominal), len(strange)) == (4000, 2000)
    left = nominal[:, 0] < 1
    assert left.sum() == 2000
    for part, centre, std in (
        (nominal[left], [-4, 0, 1], 0.5),
        (nominal[~left], [6, 2, 1], 0.5),
        (strange, [1, 6, 1], 0.1),
    ):
        np.testing.assert_allclose(part.mean(0), centre, atol=5 * std / 2000**0.5)
        np.testing.assert_allclose(part.std(0), std, rtol=5 / 4000**0.5)


MEANS = [[1.5, -1.5], [-1.0, 1.0]]
COVARIANCES = [[[1.0, 0.1], [0.1, 0.5]], [[0.7, -0.2], [-0.2, 1.2]]]


def test_gaussians_have_the_sizes_means_and_covariances_they_were_given():
    data = Gaussians(means=MEANS, covariances=COVARIANCES, events=40_000, fraction=0.25)
    for kind, n in ((0, 30_000), (1, 10_000)):
        rows = rows_of(data, kind)
        assert rows.shape == (n, 2)
        np.testing.assert_allclose(rows.mean(0), MEANS[kind], atol=5 * 1.1 / n**0.5)
        np.testing.assert_allclose(np.cov(rows.T), COVARIANCES[kind], atol=5 * 2 / n**0.5)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_true_density_of_gaussians_is_scipys(d):
    rng = np.random.default_rng(d)
    means, root = rng.normal(size=(2, d)), rng.normal(size=(2, d, d))
    covariances = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)
    data = Gaussians(means=means.tolist(), covariances=covariances.tolist(), events=100, fraction=0.1)
    x = rng.normal(size=(50, d)) * 3
    truth = multivariate_normal(means[0], covariances[0]).logpdf(x)
    np.testing.assert_allclose(data.log_prob(torch.from_numpy(x)).numpy(), truth, rtol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussians(means=[[0.0]], covariances=[[[1.0]]]),
        lambda: Gaussians(means=[[0.0], [1.0]], covariances=COVARIANCES),
        lambda: Gaussians(means=MEANS, covariances=[[[1.0, 2.0], [2.0, 1.0]]] * 2, events=100, fraction=0.1),
        lambda: Gaussians(events=100, fraction=1.5),
        lambda: Gaussians(events=100, fraction=-0.5),
        lambda: Gaussians(events=100, fraction=0.0),
        lambda: Blobs(shift=[1.0, 2.0, 3.0]),
        lambda: Blobs(anomalies=0),
        lambda: Blobs(nominal=0),
        lambda: Digits(nominal=10),
        lambda: Digits(nominal=list(range(10))),
    ],
    ids=[
        "one mean",
        "sizes that do not fit",
        "not a covariance",
        "fraction above 1",
        "fraction below 0",
        "no anomaly",
        "shift of another size",
        "no anomalies",
        "no nominal rows",
        "no such digit",
        "no digit left",
    ],
)
def test_a_generated_data_set_that_cannot_be_made_is_refused_in_one_sentence(make):
    with pytest.raises(DataError) as error:
        make().setup()
    sentence(error)


def test_digits_are_178_zeros_of_which_107_are_tested_against_all_other_digits():
    data = served("digits")
    assert data.shape == (1, 8, 8) and data.kinds == ("nominal", *"123456789")
    assert [len(part) for part in data.splits] == [57, 14, 107 + 1619, 0]
    assert int((data.splits.test.y == 0).sum()) == 107
    everything = torch.cat([part.x for part in data.splits])
    assert everything.min() == 0 and everything.max() == 16
    assert all((part.meta["digit"] == part.y.numpy()).all() for part in data.splits)  # 0 is nominal, d is kind d


def test_digits_take_several_nominal_digits():
    data = Digits(nominal=[4, 9])
    data.setup()
    assert data.kinds == ("nominal", *"01235678")
    assert set(data.splits.train.meta["digit"]) == {4, 9}


def test_anomalous_blobs_are_not_copies_of_nominal_rows():
    data = Blobs(std=1.0, anomaly_std=1.0, centers=[[0.0, 0.0]], shift=[6.0, 6.0])
    data.setup()
    rows = torch.cat([part.x[part.y == 0] for part in data.splits])
    moved = data.splits.test.x[data.splits.test.y == 1] - 6
    assert torch.cdist(moved.double(), rows.double()).min(1).values.gt(1e-5).all()


@every
def test_a_data_set_has_its_own_name_in_tables_and_its_protocol_beside_it_where_that_is_not_the_usual(name):
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        given = [f"data={name}", "paths.run=.", *NEEDED.get(name, [])]
        data = config.build(hydra.compose("train", overrides=given), "data")
    assert data.title == data.name
    if name in ("mnist", "fashion_mnist", "digits"):
        assert data.name == f"{name}_0"
    data.protocol = "unsupervised"
    assert data.title == f"{data.name} (unsupervised)"
