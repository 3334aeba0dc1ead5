"""Which columns of a file are features, which say something else, and which look as if they were labels."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from straylight.errors import DataError
from straylight.files.source import Source, listed, meant
from straylight.files.table import is_numeric, numbers, texts

#: What labels are called, without case, blanks and underscores; or one word of their name, or the last.
LABELS = re.compile(
    "y|labels?|targets?|class(es)?|(ground)?truth|gt|signal|novelty|intrusion|attack(cat|type)?|"
    "(is)?(anomaly|anomalies|anomalous|outliers?|abnormal|attack|fraud|signal|malicious|malware|defect|fault|failure)"
)
LABEL_WORDS = re.compile("labels?|anomaly|anomalies|anomalous|outliers?|fraud|malicious|malware")
LAST_WORDS = re.compile("targets?|truth|attack|intrusion|defect|abnormal|novelty")
#: And where no label is named.
VERDICTS = re.compile(".*class|status|outcome|result|verdict|diagnosis|alert|alarm|flagged|(is)?normal|nominal|benign")
#: What numbers of rows are called, without case, blanks and underscores; by pandas, too.
ROW_NUMBERS = re.compile(r"|unnamed0|indexlevel\d+|id|uuid|guid|index|idx|row(id|no|nr|number|index)?|recordid")
MANY = 100  # different labels at most

Value = str | int | float | bool


class Roles(NamedTuple):
    """What the columns are for, by their names.

    Attributes:
        features: in their order; of an array of more than two axes, none.
        array: the array that holds the features; `None`, if columns do.
        label, weight, group: a column each, or `None`.
        context, meta: columns.
    """

    features: tuple[str, ...] = ()
    array: str | None = None
    label: str | None = None
    weight: str | None = None
    group: str | None = None
    context: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """All columns that are something other than features."""
        named = (self.label, self.weight, self.group, *self.context, *self.meta)
        return list(dict.fromkeys(name for name in named if name is not None))


def assign(source: Source, asked: Roles, features: Sequence[str] | None) -> tuple[Roles, list[str]]:
    """Find the features among what has no other role.

    Args:
        source: the file.
        asked: the other roles.
        features: an array, or columns; `None` for all that are left.

    Returns:
        the roles, and columns that have none.

    Raises:
        DataError: if something is not there, has two roles, or is called like a label and has no role.
    """
    for name in asked.others:
        source.rows_of(name)
    if "group" in asked.meta and asked.group != "group":
        raise DataError(
            "data.meta names a column 'group', which tells which rows stay together; give it as data.group."
        )
    taken = [name for name in (asked.label, asked.weight, asked.group, *asked.context) if name is not None]
    left: list[str] = []
    if features is None:
        array = _only(source)
        names = list(source.columns) if array is None else source.array_columns(array)
        others = set(asked.others)
        left = [name for name in source.columns if name not in others]
        for name in left:
            if _like_a_label(name, asked.label is None):
                raise DataError(
                    f"{source.path} has a column {name!r}, which may be a label and must not become a feature unseen; "
                    f"give it as data.label={name}, keep it aside by data.meta=[{name}], or list the features in "
                    "data.features."
                )
        aside = {n for n in names if array is None and (n in source.index or ROW_NUMBERS.fullmatch(_plain(n)))}
        names = [name for name in names if name not in others and name not in aside]
        left = [name for name in left if array is not None or name in aside]
    elif len(features) == 1 and features[0] in source.arrays:
        array = features[0]
        names = [name for name in source.array_columns(array) if name not in asked.others]
    else:
        for name in features:
            source.rows_of(name)
        if several := [name for name in features if name in source.arrays]:
            raise DataError(f"data.features names the array {several[0]!r} among others; name it alone, or columns.")
        holders = [name for name in source.arrays if set(features) <= set(source.array_columns(name))]
        array, names = (holders[0] if features and holders else None), list(features)
    if not names and (array is None or len(source.arrays[array]) == 2):
        raise DataError(f"{source.path} has no column left to be a feature; it has {listed(source.names)}.")
    if twice := [name for name, times in Counter([*taken, *names]).items() if times > 1]:
        raise DataError(f"column {twice[0]!r} has two roles among data.features, label, weight, group and context.")
    return asked._replace(features=tuple(names), array=array), left


def _plain(name: str) -> str:
    """The last part of a path, without case, blanks and underscores."""
    return "".join(filter(str.isalnum, name.rsplit("/", 1)[-1].lower()))


def _like_a_label(name: str, alone: bool) -> bool:
    """Whether a column is called like a label; `alone` if none is named."""
    words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name.rsplit("/", 1)[-1])
    words = [word.lower() for word in words]
    return bool(
        LABELS.fullmatch(_plain(name))
        or any(map(LABEL_WORDS.fullmatch, words))
        or (words and LAST_WORDS.fullmatch(words[-1]))
        or (alone and VERDICTS.fullmatch(_plain(name)))
    )


def _only(source: Source) -> str | None:
    if len(source.arrays) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in list(source.arrays.items())[:10])
        raise DataError(
            f"{source.path} has several arrays that could be the features, {shapes}; say data.features=NAME."
        )
    return next(iter(source.arrays), None)


def labels(
    columns: Sequence[Any], name: str, nominal: Value | Sequence[Value], notice: Callable[[str], None]
) -> tuple[list[NDArray], list[str]]:
    """Labels as kinds of anomaly: nominal values are 0, each other value is a kind of its own.

    Args:
        columns: of labels, of one file or several, without a missing value.
        name: of the column.
        nominal: the value or values that are nominal.
        notice: is told of values that differ by case or blanks alone.

    Returns:
        `y` for each column, and the kinds' names with `"nominal"` first; a single kind that is called 1, -1 or true is
        an `"anomaly"`.

    Raises:
        DataError: if a nominal value is not there, or there are too many different ones.
    """
    import pyarrow as pa

    wanted = [nominal] if isinstance(nominal, Value) else list(nominal)
    text = [not is_numeric(column.type) for column in columns]
    if any(text):
        values: list[NDArray] = [texts(column) for column in columns]
        asked: list[Any] = [str(value) for value in wanted]
    else:
        values = [numbers(column, name, "float64") for column in columns]
        try:
            asked = [float(value) for value in wanted]
        except ValueError:
            asked = [None]
    there = sorted(set().union(*(set(np.unique(part).tolist()) for part in values)))
    shown = [value if isinstance(value, str) else f"{value:g}" for value in there]
    if len(there) > MANY:
        raise DataError(f"column {name!r} holds {len(there):,} different values, which are no labels.")
    alike: dict[str, list[str]] = {}
    for value in shown:
        alike.setdefault(" ".join(value.split()).casefold(), []).append(value)
    for same in alike.values():
        if same[1:]:
            notice(f"column {name!r} holds {listed([repr(v) for v in same])}, which are different labels: are they?")
    absent = [value for value, key in zip(wanted, asked, strict=False) if key not in there]
    if absent and (len(absent) == len(wanted) or len(wanted) > 1):
        close = meant(str(absent[0]), shown)
        raise DataError(
            f"column {name!r} holds no {absent[0]!r}{close}; set data.nominal to what is nominal of {listed(shown)}."
        )
    strange = [value for value in there if value not in asked]
    names = [label for value, label in zip(there, shown, strict=True) if value not in asked]
    boolean = all(pa.types.is_boolean(column.type) for column in columns)
    if len(names) == 1 and (boolean or names[0].lower() in ("1", "-1", "true")):
        names = ["anomaly"]
    names = [f"labelled {name}" if name == "nominal" else name for name in names]
    number = {**dict.fromkeys(asked, 0), **{value: i + 1 for i, value in enumerate(strange)}}
    found = []
    for part in values:
        unique, place = np.unique(part, return_inverse=True)
        found.append(np.array([number[value] for value in unique.tolist()], dtype=np.int64)[place.reshape(-1)])
    return found, ["nominal", *names]


def complete(column: Any, name: str, role: str) -> Any:
    """A column, once it is certain that no row lacks a value.

    Raises:
        DataError: with how many rows do.
    """
    import pyarrow.compute as pc
    import pyarrow.types as types

    missing = column.null_count
    if types.is_floating(column.type):
        missing += pc.sum(pc.is_nan(column)).as_py() or 0
    if missing:
        raise DataError(
            f"{missing:,} of {len(column):,} rows lack a value of column {name!r}, the {role}; remove "
            "these rows or fill them in."
        )
    return column
