"""Columns of tables as features, and the data sets that are tables: KDD Cup 1999 and house prices."""

import gzip
from collections import Counter
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import _kddcup99
from sklearn.utils import Bunch

from straylight.data import HousePrices, KDDCup99
from straylight.data.kddcup99 import ATTACKS, COLUMNS, FILE, LOGGED, RATES, TEXT
from straylight.errors import DataError
from straylight.files.recipe import Recipe
from straylight.files.roles import Roles
from straylight.files.table import numbers, texts


def refused(make):
    with pytest.raises(DataError) as error:
        make()
    said = str(error.value)
    assert said.endswith(".") and "\n" not in said and ". " not in said
    return said


# columns


def fitted(table, rows, **options):
    return Recipe.fit(table, Roles(tuple(table.column_names)), rows, missing="median", **options)


def encoded(recipe, table):
    return recipe.features([table], lambda _: None).tolist()


words = st.text(st.characters(codec="utf-8"), max_size=4).map("x".__add__)  # which is no number
tables = st.lists(st.tuples(st.floats(width=32, allow_nan=False), st.sampled_from("abcde") | st.none()), min_size=1)


@settings(deadline=None)
@given(tables, st.data())
def test_encoded_rows_say_what_the_table_says(rows, data):
    value, word = zip(*rows, strict=True)
    table = pa.table({"x": pa.array(value, pa.float64()), "s": pa.array(word, pa.string())})
    train = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    recipe = Recipe.fit(table, Roles(("s", "x")), train, missing="median")
    held = sorted({word[i] for i in train} - {None})
    assert recipe.names == [*(f"s={w}" for w in held), "x"]
    notices = []
    x = recipe.features([table.take(pa.array(chosen, pa.int64()))], notices.append).numpy()
    assert x.dtype == np.float32 and x.shape == (len(chosen), len(held) + 1)
    assert x[:, -1].tolist() == [value[i] for i in chosen]
    back = [held[int(row[:-1].argmax())] if row[:-1].any() else None for row in x]
    assert back == [word[i] if word[i] in held else None for i in chosen] and (x[:, :-1].sum(1) <= 1).all()
    strange = sum(word[i] is not None and word[i] not in held for i in chosen)
    assert [notice.partition(" ")[0] for notice in notices] == [str(strange)] * bool(strange)


@settings(deadline=None)
@given(st.lists(words | st.none(), min_size=1))
def test_texts_come_back_as_they_were(values):
    assert texts(pa.chunked_array([pa.array(values, pa.string())])).tolist() == values
    recipe = fitted(pa.table({"s": pa.array(values, pa.string())}), range(len(values)))
    assert recipe.categories["s"] == sorted(set(values) - {None}, key=lambda text: text.encode())


def test_categories_of_other_rows_make_no_feature():
    table = pa.table({"s": ["u", "v", "test only"]})
    recipe = fitted(table, [0, 1])
    assert recipe.names == ["s=u", "s=v"] and encoded(recipe, table) == [[1, 0], [0, 1], [0, 0]]


def test_numbers_that_are_categories_are_ordered_as_numbers():
    table = pa.table({"port": [80, 443, 9, None]})
    recipe = fitted(table, range(4), categorical=["port"])
    assert recipe.names == ["port=9", "port=80", "port=443"]
    assert encoded(recipe, table)[3] == [0, 0, 0]
    again = pa.table({"port": [443.0, float("nan")]})  # the same numbers, read as another type
    assert encoded(recipe, again) == [[0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "column, expected",
    [
        (pa.array([1, None, 2**40]), [1, np.nan, 2**40]),
        (pa.array([True, False, None]), [1, 0, np.nan]),
        (pa.array([1e300, None, -0.5]), [np.inf, np.nan, -0.5]),
        (pa.array([None, None, None]), [np.nan] * 3),
        (pa.array([1, 2, 3], pa.decimal128(5, 1)), [1, 2, 3]),
        (pa.array([1, 2, 255], pa.uint8()), [1, 2, 255]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_every_kind_of_number_is_one(column, expected):
    got = numbers(pa.chunked_array([column]), "n")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(expected, dtype=np.float32))


@pytest.mark.parametrize(
    "column, said",
    [
        (pa.array([1, 2], pa.timestamp("s")), "dates or times (timestamp[s])"),
        (pa.array([1, 2], pa.date32()), "dates or times"),
        (pa.array([[1], [2]]), "list<item: int64>"),
        (pa.array(["1", "2"]), "numbers written as text"),
        (pa.array(["1", "2", "two"]), "numbers in most rows, and 'two' in others"),
        (pa.array([b"\xff", b"a"]), "UTF-8"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_what_is_neither_a_number_nor_a_category_is_refused(column, said):
    assert said in refused(lambda: fitted(pa.table({"n": column}), [0, 1]))


def test_dictionaries_are_text():
    table = pa.table({"s": pa.array(["u", "v", None]).dictionary_encode()})
    assert encoded(fitted(table, [0, 1, 2]), table) == [[1, 0], [0, 1], [0, 0]]


# KDD Cup 1999

SUBSETS = ("http", "smtp", "SA", "SF", "all")


@pytest.fixture(scope="module")
def connections(tmp_path_factory):
    """A small file in the layout of the cup's."""
    rng = np.random.default_rng(0)
    attacks = [name for names in ATTACKS.values() for name in names.split()]
    lines = []
    for i in range(900):
        row = {name: rng.integers(0, 40) if rng.random() < 0.7 else 0 for name in COLUMNS}
        row |= {name: f"{rng.random():.2f}" for name in RATES}
        row |= {"protocol_type": rng.choice(["tcp", "udp"]), "service": rng.choice(["http", "smtp", "ftp"])}
        row |= {"flag": rng.choice(["SF", "REJ"]), "logged_in": int(rng.random() < 0.7)}
        if i == 100:  # an attack, and therefore not in training
            row["service"] = "seldom"
        lines.append(",".join(str(row[name]) for name in COLUMNS) + f",{attacks[i // 9] if i < 198 else 'normal'}.\n")
    root = tmp_path_factory.mktemp("kddcup99")
    (root / FILE).write_bytes(gzip.compress("".join(lines).encode()))
    return root


@cache
def parsed(path):
    rows = [line.split(",") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    data = np.empty((len(rows), 41), dtype=object)
    for j, name in enumerate(COLUMNS):
        kind = str.encode if name in TEXT else float if name in RATES else int
        data[:, j] = [kind(row[j]) for row in rows]
    return data, np.array([row[41].encode() for row in rows], dtype=object)


def theirs(root, subset, seed, monkeypatch):
    """The rows of scikit-learn's `fetch_kddcup99`, given the same file read without our code."""
    data, target = parsed(root / FILE)
    bunch = Bunch(data=data, target=target, feature_names=list(COLUMNS), target_names=["labels"])
    monkeypatch.setattr(_kddcup99, "_fetch_brute_kddcup99", lambda **_: bunch)
    found = sklearn.datasets.fetch_kddcup99(subset=None if subset == "all" else subset, random_state=seed)
    return found.data, found.target, found.feature_names


def as_rows(x, columns, attack, features):
    """Each row as text that does not depend on how it is encoded."""
    columns = list(columns)
    parts = []
    for name in features:
        if name in TEXT:
            own = [i for i, column in enumerate(columns) if column.startswith(f"{name}=")]
            held = np.array([columns[i].partition("=")[2] for i in own] + ["unknown"])
            block = x[:, own]
            parts.append(held[np.where(block.any(1), block.argmax(1), len(own))])
        else:
            parts.append(np.char.mod("%.9g", x[:, columns.index(name)]))
    return Counter(zip(*parts, attack, strict=True))


def compared(root, subset, seed, monkeypatch):
    data = KDDCup99(root=str(root), subset=subset, seed=seed)
    data.setup()
    rows, target, features = theirs(root, subset, seed, monkeypatch)
    expected = []
    for j, name in enumerate(features):
        if name in TEXT:
            here = {column.partition("=")[2] for column in data.columns if column.startswith(f"{name}=")}
            expected.append([v.decode() if v.decode() in here else "unknown" for v in rows[:, j]])
        else:
            expected.append(np.char.mod("%.9g", rows[:, j].astype(np.float32)))
    wanted = Counter(zip(*expected, [t.decode().rstrip(".") for t in target], strict=True))
    got = sum((as_rows(p.x.numpy(), data.columns, p.meta["attack"], features) for p in data.splits), Counter())
    assert got == wanted
    raw, attacks = parsed(root / FILE)
    for part in data.splits:  # each row is the one of the file that it says it is
        row = part.origin.rows() - 1
        assert [attack.decode().rstrip(".") for attack in attacks[row]] == part.meta["attack"].tolist()
        sent = raw[row, list(COLUMNS).index("src_bytes")].astype(float)
        sent = sent if subset in ("SA", "all") else np.log(sent + 0.1)
        np.testing.assert_allclose(part.x[:, list(data.columns).index("src_bytes")], sent, rtol=1e-5)
        assert set(part.origin.file().to_pylist()) <= {str(root / FILE)}
    return data


@pytest.mark.parametrize("subset", SUBSETS)
def test_subsets_of_the_kdd_cup_are_scikit_learns(connections, subset, monkeypatch):
    for seed in (0, 5):
        data = compared(connections, subset, seed, monkeypatch)
    assert data.name == f"kddcup99_{subset}" and data.fetched_as == "kddcup99"
    assert data.kinds == ("nominal", "dos", "probe", "r2l", "u2r")
    kinds = {name: kind for kind, names in ATTACKS.items() for name in names.split()} | {"normal": "nominal"}
    for part in data.splits:
        assert [data.kinds[y] for y in part.y.tolist()] == [kinds[name] for name in part.meta["attack"]]
    assert ("service" in data.splits.test.meta) == (subset not in ("http", "smtp"))


def test_a_service_of_attacks_alone_makes_no_feature_of_the_kdd_cup(connections):
    data = KDDCup99(root=str(connections), subset="all")
    data.setup()
    assert [c for c in data.columns if c.startswith("service=")] == ["service=ftp", "service=http", "service=smtp"]
    assert len(data.columns) == 38 + 2 + 3 + 2 and data.shape == (45,)
    assert "1 row holds a category of column 'service'" in data.notices[0]
    place = data.splits.test.meta["service"] == "seldom"
    own = [c.startswith("service=") for c in data.columns]
    assert place.sum() == 1 and not data.splits.test.x.numpy()[place][:, own].any()


@pytest.mark.parametrize("subset, sizes, columns", [
    ("http", (56516, 2209), 3), ("smtp", (9568, 3), 3), ("SA", (97278, 3377), None), ("SF", (73237 - 3298, 3298), None),
])  # fmt: skip
def test_the_kdd_cup_has_the_rows_it_is_known_for(shared, subset, sizes, columns):
    data = KDDCup99(root=str(shared / "kddcup99"), subset=subset)
    data.setup()
    y = np.concatenate([part.y for part in data.splits])
    assert ((y == 0).sum(), (y > 0).sum()) == sizes
    assert len(data.columns) == data.shape[0] and columns in (None, data.shape[0])
    assert list(data.columns[:1]) == [LOGGED[0]]


@pytest.mark.parametrize("subset", ["http", "SA"])
@pytest.mark.slow
def test_the_kdd_cups_own_file_gives_scikit_learns_rows(shared, subset, monkeypatch):
    compared(shared / "kddcup99", subset, 1, monkeypatch)


@pytest.mark.parametrize("spoil", ["gone", "cut", "noise", "columns", "words", "attack", "empty"])
def test_a_damaged_file_of_the_kdd_cup_is_refused(connections, tmp_path, spoil):
    path = tmp_path / FILE
    whole = gzip.decompress((connections / FILE).read_bytes())
    match spoil:
        case "cut":
            path.write_bytes((connections / FILE).read_bytes()[:5000])
        case "noise":
            path.write_bytes(b"no gzip")
        case "columns":
            path.write_bytes(gzip.compress(whole + b"1,2,3\n"))
        case "words":
            path.write_bytes(gzip.compress(b"x" + whole))
        case "attack":
            path.write_bytes(gzip.compress(whole.replace(b"smurf.", b"smurv.")))
        case "empty":
            path.write_bytes(gzip.compress(b""))
    said = refused(lambda: KDDCup99(root=str(tmp_path), subset="all").setup())
    assert FILE in said and (spoil != "attack" or "'smurv'" in said)


def test_the_kdd_cup_has_no_other_subset(tmp_path):
    assert "data.subset" in refused(lambda: KDDCup99(root=str(tmp_path), subset="ftp"))


# house prices


@pytest.fixture
def houses(tmp_path):
    where = ["CollgCr"] * 40 + ["NoRidge"] * 10 + ["NAmes"] * 5
    lines = [f"{w},{1000 + i},{7 * i},{i % 9}\n" for i, w in enumerate(where)]
    (tmp_path / "house_prices.csv").write_text("Neighborhood,LotArea,SalePrice,OverallCond\n" + "".join(lines))
    return tmp_path


def kaggle(root):
    where = ["CollgCr"] * 40 + ["NoRidge"] * 10
    lines = [f"{i},{w},{'NA' if i == 3 else i},{['NA', 'Grvl'][i % 2]},5,6,7\n" for i, w in enumerate(where)]
    head = "Id,Neighborhood,LotFrontage,Alley,LotArea,SalePrice,OverallCond\n"
    (root / "train.csv").write_text(head + "".join(lines))


def test_houses_of_one_neighbourhood_are_nominal(houses):
    data = HousePrices(root=str(houses))
    data.setup()
    assert data.name == "house_prices" and data.kinds == ("nominal", "NoRidge") and data.shape == (3,)
    everyone = np.concatenate([part.x for part in data.splits])
    y = np.concatenate([part.y for part in data.splits])
    order = everyone[:, 0].argsort()
    np.testing.assert_array_equal(everyone[order, 1], 7 * np.arange(50))
    np.testing.assert_array_equal(y[order], np.arange(50) >= 40)
    assert set(data.splits.train.meta["neighborhood"]) == {"CollgCr"}
    for part in HousePrices(root=str(houses), nominal="NAmes", anomalous="NoRidge").splits:
        assert part.x[:, 0].tolist() == (999 + part.origin.rows()).tolist()
    data = HousePrices(root=str(houses), nominal=["CollgCr"], anomalous=["NAmes", "NoRidge"], features=["SalePrice"])
    assert data.kinds == ("nominal", "NAmes", "NoRidge") and Counter(data.splits.test.y.tolist()) == {
        0: 20,
        1: 5,
        2: 10,
    }


def test_other_columns_of_houses_are_in_kaggles_file(houses):
    assert "train.csv" in refused(lambda: HousePrices(root=str(houses), features=["Alley"]).setup())
    kaggle(houses)
    data = HousePrices(root=str(houses), features=["LotFrontage", "Alley"], missing="median")
    assert data.splits.train.x.shape[1] == 3 and data.columns == ["LotFrontage", "Alley=Grvl", "Alley=NA"]
    assert HousePrices(root=str(houses)).files()[0].name == "house_prices.csv"
    (houses / "house_prices.csv").unlink()
    assert HousePrices(root=str(houses)).files()[0].name == "train.csv"
    assert "'Alleys' (did you mean 'Alley'?)" in refused(
        lambda: HousePrices(root=str(houses), features=["Alleys"]).setup()
    )


@pytest.mark.parametrize(
    "options, said",
    [
        ({"nominal": "Colgcr"}, "'Colgcr' in"),
        ({"nominal": "Colgcr"}, "(did you mean 'CollgCr'?); it has CollgCr, NAmes, NoRidge"),
        ({"anomalous": ["NoRidge", "Nowhere"]}, "'Nowhere'"),
        ({"anomalous": "CollgCr"}, "data.anomalous"),
        ({"anomalous": []}, "data.anomalous"),
        ({"features": []}, "data.features"),
    ],
)
def test_houses_that_are_not_there_are_refused(houses, options, said):
    assert said in refused(lambda: HousePrices(root=str(houses), **options).setup())


def test_house_prices_of_the_course_are_150_and_41(shared):
    data = HousePrices(root=str(shared / "ames"))
    data.setup()
    y = np.concatenate([part.y for part in data.splits])
    assert ((y == 0).sum(), (y == 1).sum()) == (150, 41)
