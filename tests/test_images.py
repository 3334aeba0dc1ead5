"""Images in idx files, whole and damaged, and the three ways to spoil one."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.datasets import load_digits

from given import sentence
from straylight.data import MNIST, ContaminatedDigits, ContaminatedMNIST, FashionMNIST
from straylight.data.corruption import blackout, noise, rotated
from straylight.errors import DataError

SIZES = {"train": 200, "t10k": 40}


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def root(tmp_path):
    """240 images that are all different, in both data sets' folders."""
    rng = np.random.default_rng(0)
    for part, n in SIZES.items():
        images = rng.integers(0, 256, (n, 28, 28))
        for name in ("MNIST", "FashionMNIST"):
            (tmp_path / name / "raw").mkdir(parents=True, exist_ok=True)
            write_idx(tmp_path / name / "raw" / f"{part}-images-idx3-ubyte", images)
            write_idx(tmp_path / name / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    return tmp_path


def keys(images) -> Counter:
    return Counter(image.numpy().tobytes() for image in images)


# Fashion-MNIST


@pytest.mark.parametrize("nominal", [5, "Sandal", ["Sandal"], [5]])
def test_fashion_mnist_names_its_kinds_and_takes_numbers_and_names(root, nominal):
    data = FashionMNIST(root=str(root), nominal=nominal, val_fraction=0.25)
    data.setup()
    assert data.name in ("fashion_mnist_5", "fashion_mnist_Sandal") and data.shape == (1, 28, 28)
    assert [len(part) for part in data.splits] == [15, 5, 40, 180]
    others = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    assert data.kinds == ("nominal", *others)
    test = data.splits.test
    assert [data.kinds[k] for k in test.y.tolist()] == [
        "nominal" if c == 5 else FashionMNIST.classes[c] for c in test.meta["class"]
    ]


def test_several_classes_are_nominal_by_number_and_name_together(root):
    data = FashionMNIST(root=str(root), nominal=["Ankle boot", 7])
    assert set(data.splits.train.meta["class"]) == {7, 9} and len(data.kinds) == 9


@pytest.mark.parametrize("nominal", ["Boot", 10, ["Bag", "Boot"], []])
def test_a_class_that_does_not_exist_is_refused(root, nominal):
    with pytest.raises(DataError) as error:
        FashionMNIST(root=str(root), nominal=nominal).splits  # noqa: B018
    assert "data.nominal" in sentence(error)


def test_images_are_those_torchvision_reads_and_sums_those_it_knows(root):
    from torchvision import datasets

    for data in (MNIST(root=str(root)), FashionMNIST(root=str(root))):
        theirs = getattr(datasets, type(data).__name__)
        test = theirs(str(root), train=False, download=False)
        assert torch.equal(data.splits.test.x[:, 0], test.data / 255)
        trained = theirs(str(root), train=True, download=False)
        for part in (data.splits.train, data.splits.val, data.splits.reserve):
            assert torch.equal(part.x[:, 0], trained.data[part.origin.rows() - 1] / 255)
            assert part.origin.file([0]).to_pylist() == [str(data.files()[0])]
        assert data.splits.test.meta[data.column].tolist() == test.targets.tolist()
        known = {(f"{theirs.mirrors[0]}{name}", f"md5:{md5}") for name, md5 in theirs.resources}
        assert {(remote.url, remote.hash) for remote in data.remotes} == known


def test_images_know_their_file_and_their_number_in_it(root):
    from torchvision import datasets

    raw = {train: datasets.MNIST(str(root), train=train, download=False).data / 255 for train in (True, False)}
    data = ContaminatedMNIST(root=str(root), reserve_fraction=0.1)
    for part in data.splits:
        for i in np.flatnonzero(part.y.numpy() == 0):
            (path,), (row,) = part.origin.file([i]).to_pylist(), part.origin.rows([i]).tolist()
            assert torch.equal(part.x[i, 0], raw[path == str(data.files()[0])][row - 1])
    assert list(FashionMNIST.classes) == datasets.FashionMNIST.classes


# damaged files

DAMAGES = {
    "empty": lambda whole: b"",
    "header cut": lambda whole: whole[:6],
    "one byte short": lambda whole: whole[:-1],
    "one byte more": lambda whole: whole + b"\0",
    "another kind of number": lambda whole: whole[:2] + b"\x0b" + whole[3:],
    "another number of axes": lambda whole: whole[:3] + b"\x02" + whole[4:],
    "text": lambda whole: b"<html>not here</html>" * 3,
    "more rows than there are": lambda whole: whole[:4] + struct.pack(">I", 2**31) + whole[8:],
}


@pytest.mark.parametrize("name", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [FashionMNIST, ContaminatedMNIST])
def test_a_damaged_file_is_named_and_no_other(root, name, damage, kind):
    path = root / kind.remotes[0].file.partition("/")[0] / "raw" / f"{name}-ubyte"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DataError) as error:
        kind(root=str(root)).splits  # noqa: B018
    said = sentence(error)
    assert said.startswith(str(path)) and said.count("idx1-ubyte") + said.count("idx3-ubyte") == 1


def test_images_of_another_size_are_refused(root):
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    write_idx(path, np.zeros((40, 14, 56)))
    with pytest.raises(DataError) as error:
        MNIST(root=str(root)).splits  # noqa: B018
    assert str(path) in sentence(error)


# corruptions


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(1).random((50, 1, 28, 28), np.float32))


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("side", [8, 9])
def test_a_quarter_turn_is_the_exact_one(quarters, side):
    square = torch.rand(3, 2, side, side)
    turned = rotated(square, np.random.default_rng(0), angles=(90 * quarters, 90 * quarters))
    torch.testing.assert_close(turned, torch.rot90(square, quarters, (2, 3)), atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", [(28, 28), (21, 34)])
def test_a_rotation_is_that_of_scipy(shape):
    image = torch.rand(1, 1, *shape, dtype=torch.float64)
    for angle in (17.0, 45.0, 133.0, 250.0):
        theirs = ndimage.rotate(image[0, 0].numpy(), angle, reshape=False, order=1, mode="grid-constant")
        ours = rotated(image, np.random.default_rng(0), angles=(angle, angle))
        np.testing.assert_allclose(ours[0, 0].numpy(), theirs, atol=1e-9)


def test_a_centred_disc_stays_where_it_is_and_a_dot_is_moved_by_its_angle():
    at = torch.arange(64) - 31.5
    disc = torch.sigmoid(20 - (at[:, None] ** 2 + at**2).sqrt())[None, None].expand(8, -1, -1, -1)
    torch.testing.assert_close(rotated(disc, np.random.default_rng(0)), disc, atol=0.02, rtol=0)
    dot = torch.exp(-(at[:, None] ** 2 + (at - 20) ** 2) / 8)[None, None].expand(400, -1, -1, -1)
    turned = rotated(dot, np.random.default_rng(0))[:, 0]
    x, y = (turned.sum(1) * at).sum(1), -(turned.sum(2) * at).sum(1)
    angle = np.rad2deg(np.arctan2(y.numpy(), x.numpy())) % 360
    assert angle.min() > 44.9 and angle.max() < 315.1
    assert stats.kstest(angle, stats.uniform(45, 270).cdf).pvalue > 1e-3


def test_noise_inverts_a_binomial_share_of_the_pixels_and_leaves_the_others(images):
    noisy = noise(images, np.random.default_rng(0))
    same, inverted = noisy == images, noisy == 1 - images
    assert (same | inverted).all()
    n, flipped = images.numel(), int((~same).sum())
    assert stats.binomtest(flipped, n, 0.1).pvalue > 1e-3
    per_image = (~same).flatten(1).sum(1).numpy()
    assert abs(per_image.var() / (784 * 0.09) - 1) < 4 * np.sqrt(2 / 50)  # independent pixels
    assert torch.equal(noise(images, np.random.default_rng(0), flip=0.0), images)
    assert torch.equal(noise(images, np.random.default_rng(0), flip=1.0), 1 - images)


@pytest.mark.parametrize("height", [28, 7])
def test_blackout_zeroes_one_half_exactly(height):
    images = torch.rand(400, 2, height, 5) + 0.1
    dark = blackout(images, np.random.default_rng(0))
    half, upper = height // 2, 0
    for before, after in zip(images, dark, strict=True):
        top = not after[:, :half].any()
        black = slice(0, half) if top else slice(height - half, height)
        expected = before.clone()
        expected[:, black] = 0
        assert torch.equal(after, expected)
        upper += top
    assert stats.binomtest(upper, 400, 0.5).pvalue > 1e-3


@pytest.mark.parametrize("spoil", [rotated, noise, blackout])
def test_a_corruption_keeps_its_input_goes_by_its_seed_and_stays_between_0_and_1(images, spoil):
    before = images.clone()
    one, same, other = (spoil(images, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(images, before) and torch.equal(one, same) and not torch.equal(one, other)
    assert one.dtype == images.dtype and one.shape == images.shape and one.min() >= 0 and one.max() <= 1 + 1e-6
    assert spoil(images[:0], np.random.default_rng(0)).shape == (0, 1, 28, 28)


# contaminated MNIST


def test_contaminated_mnist_has_its_sizes(shared):
    data = ContaminatedMNIST(root=str(shared / "mnist"))
    data.setup()
    assert data.name == "mnist_contaminated" and data.kinds == ("nominal", "rotated", "noise", "blackout")
    train, val, test, reserve = data.splits
    assert [len(part) for part in data.splits] == [63_000, 1_750, 5_250, 0] and not len(reserve)
    tested, validating = (np.bincount(part.y.numpy()) for part in (test, val))
    assert (tested + validating).tolist() == [6_790, 70, 70, 70]
    assert all(count in (52, 53) for count in tested[1:]) and tested[1:].sum() == 158 and not train.y.any()
    digits = sum((Counter(part.meta["digit"].tolist()) for part in data.splits), Counter())
    assert [digits[d] for d in range(10)] == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]


def test_every_image_occurs_once_sound_or_corrupted(root):
    data = ContaminatedMNIST(root=str(root), aside=0.5, corrupted=0.25, reserve_fraction=0.25)
    original = keys(
        torch.cat([MNIST(root=str(root), nominal=list(range(9)), val_fraction=0.0).splits[i].x for i in (0, 2, 3)])
    )
    sound = sum((keys(part.x[part.y == 0]) for part in data.splits), Counter())
    spoiled = torch.cat([part.x[part.y > 0] for part in data.splits])
    assert [len(part) for part in data.splits] == [90, 30, 90, 30] and len(spoiled) == 30 + 30
    assert not sound - original and max(sound.values()) == 1 and not keys(spoiled) & original
    for part in data.splits:
        assert part.meta["corruption"].tolist() == [data.kinds[k] for k in part.y.tolist()]
    # what was inverted or half black tells which image it was: none that is there unspoiled
    left = [np.frombuffer(key, np.float32).reshape(28, 28) for key in original - sound]
    assert len(left) == 60
    found = set()
    for part in data.splits:
        for image in part.x[part.y == 3][:, 0].numpy():
            half = slice(14, 28) if not image[:14].any() else slice(0, 14)
            (match,) = (i for i, whole in enumerate(left) if np.array_equal(whole[half], image[half]))
            found.add(match)
        for image in part.x[part.y == 2][:, 0].numpy():
            (match,) = (i for i, whole in enumerate(left) if (whole == image).mean() > 0.7)
            found.add(match)
    assert len(found) == 40


def test_the_test_changes_neither_with_contamination_nor_with_the_reserve(root):
    plain, kept, dirty = (
        ContaminatedMNIST(root=str(root), corrupted=0.3, aside=0.5, reserve_fraction=r, contamination=c)
        for r, c in ((0.0, 0.0), (0.2, 0.0), (0.2, 0.1))
    )
    for part in ("val", "test"):
        for other in (kept, dirty):
            assert torch.equal(getattr(plain.splits, part).x, getattr(other.splits, part).x)
            assert torch.equal(getattr(plain.splits, part).y, getattr(other.splits, part).y)
    assert np.bincount(kept.splits.reserve.y.numpy()).tolist() == [0, 8, 8, 8]
    strange = dirty.splits.train.x[dirty.splits.train.y > 0]
    assert len(strange) == round(96 / 9) and not keys(strange) - keys(kept.splits.reserve.x)


def test_proportions_are_relative_and_0_leaves_a_kind_out(root):
    shares = {"rotated": 3, "noise": 0, "blackout": 1}
    data = ContaminatedMNIST(root=str(root), aside=0.5, corrupted=0.4, proportions=shares, test_fraction=0.5)
    counts = sum(np.bincount(part.y.numpy(), minlength=3) for part in data.splits[1:3])
    assert data.kinds == ("nominal", "rotated", "blackout") and counts.tolist() == [72, 36, 12]
    assert [np.bincount(part.y.numpy()).tolist() for part in data.splits[1:3]] == [[36, 18, 6]] * 2


@pytest.mark.parametrize(
    "options, word",
    [
        ({"aside": 1.5}, "data.aside"),
        ({"corrupted": -0.1}, "data.corrupted"),
        ({"test_fraction": 2}, "data.test_fraction"),
        ({"reserve_fraction": 2}, "data.reserve_fraction"),
        ({"proportions": {"blurred": 1}}, "blurred"),
        ({"proportions": {"noise": -1}}, "data.proportions"),
        ({"proportions": {"noise": 0}}, "data.proportions"),
        ({"proportions": {}}, "data.proportions"),
    ],
)
def test_unfit_options_are_refused(root, options, word):
    with pytest.raises(DataError) as error:
        ContaminatedMNIST(root=str(root), **options)
    assert word in sentence(error)


# contaminated digits of scikit-learn


def test_contaminated_digits_have_their_sizes_and_go_from_0_to_1():
    data = ContaminatedDigits()
    data.setup()
    assert data.name == "digits_contaminated" and data.kinds == ("nominal", "rotated", "noise", "blackout")
    train, val, test, reserve = data.splits
    assert [len(part) for part in data.splits] == [1_078, 180, 539, 0] and not len(reserve)
    assert np.bincount(test.y.numpy()).tolist() == [377, 54, 54, 54]
    assert np.bincount(val.y.numpy()).tolist() == [126, 18, 18, 18] and not train.y.any()
    assert all(part.x.min() == 0 and part.x.max() <= 1 + 1e-6 for part in (train, val, test))


def test_sound_images_of_the_contaminated_digits_are_scikit_learns_and_keep_their_digit():
    images, digit = load_digits(return_X_y=True)
    known = {image.astype(np.float32).tobytes(): d for image, d in zip(images / 16, digit, strict=True)}
    data = ContaminatedDigits(reserve_fraction=0.2)
    for part in data.splits:
        sound = np.flatnonzero(part.y.numpy() == 0)
        assert [known[part.x[i].numpy().tobytes()] for i in sound] == part.meta["digit"][sound].tolist()
        assert part.meta["corruption"].tolist() == [data.kinds[k] for k in part.y.tolist()]
    digits = sum((Counter(part.meta["digit"].tolist()) for part in data.splits), Counter())
    assert [digits[d] for d in range(10)] == np.bincount(digit).tolist()
