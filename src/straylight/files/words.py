"""What texts are that look like numbers or dates."""

import re
from collections.abc import Sequence

DATE = re.compile(r"\s*\d{1,4}[./-]\d{1,2}[./-]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?)?\s*")
COMMA = re.compile(r"\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*")
GROUPED = {
    mark: re.compile(rf"\s*[-+]?\d{{1,3}}({re.escape(mark)}\d{{3}})+([.,]\d+)?\s*")
    for mark in (",", ".", "'", " ", "\u00a0", "\u202f")
}
UNIT = re.compile(r"\s*[-+]?\s*([$€£]?)\s*[-+]?[\d.,]*\d([eE][-+]?\d+)?\s*([%$€£]?)\s*")


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def setting(name: str, mark: str, several: bool = False) -> str:
    """A setting of `data.csv` as it is typed in a shell, where marks mean something, and to Hydra, where they do too.

    Example:
        >>> print(setting("thousands", "'"), setting("separator", "\\t"), setting("strip", "%", several=True))
        "data.csv.thousands='\\''" "data.csv.separator='\\t'" "data.csv.strip=['%']"
    """
    shown = "'" + mark.replace("\t", "\\t").replace("'", "\\'") + "'"
    return f'"data.csv.{name}={f"[{shown}]" if several else shown}"'


def otherwise(name: str, values: Sequence[str]) -> str:
    """What texts are that look like numbers or dates written otherwise, and which setting reads them; or nothing.

    Example:
        >>> print(otherwise("price", ["1,5", "2,25", "7"]))
        column 'price' holds numbers such as '1,5'; set "data.csv.decimal=','".
    """
    words = [value for value in values if value.strip()]
    most = max(1, -(-len(words) * 9 // 10))

    def mostly(pattern: re.Pattern[str]) -> list[str]:
        found = [word for word in words if pattern.fullmatch(word) or is_number(word)]
        odd = [word for word in found if not is_number(word)]
        return odd if len(found) >= most else []

    if odd := [word for word in mostly(DATE) if not is_number(word)]:
        return (
            f"column {name!r} holds dates such as {odd[0]!r}, which are no features: turn them into numbers, such as "
            f"days or the hour of the day, or leave the column out by data.meta=[{name}]."
        )
    for mark, pattern in GROUPED.items():
        if odd := mostly(pattern):
            decimal = " " + setting("decimal", ",") if mark == "." else ""
            return f"column {name!r} holds numbers such as {odd[0]!r}; set {setting('thousands', mark)}{decimal}."
    if odd := mostly(COMMA):
        return f"column {name!r} holds numbers such as {odd[0]!r}; set {setting('decimal', ',')}."
    if odd := mostly(UNIT):
        unit = UNIT.fullmatch(odd[0])
        marks = [] if unit is None else [mark for mark in (unit[1], unit[3]) if mark]
        if marks:
            return f"column {name!r} holds numbers such as {odd[0]!r}; set {setting('strip', marks[0], several=True)}."
    return ""
