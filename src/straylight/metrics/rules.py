"""Which events to flag, by several rules at once: set on calibration rows, then applied to test rows.

`n` calibration rows; `N` test rows.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.conformal import Calibration, Threshold, benjamini_hochberg, held_nominal, needed
from straylight.metrics.decisions import Flags, decisions
from straylight.metrics.ranks import Weight
from straylight.metrics.thresholds import best_f1, fpr_of_quantile, fpr_of_rate

Entry = dict[str, Any]
UNLABELLED = (
    "No calibration row is labelled nominal: those without a label count as nominal, and anomalies among them raise "
    "the threshold."
)
JOINTLY = (
    "Which rows are flagged depends on all test rows together, so that there is no threshold beforehand, and no "
    "interval of its rates."
)


class Rule(NamedTuple):
    """One way to ask which events to flag.

    Attributes:
        name: `quantile`, `fpr`, `rate`, `fdr` or `f1`.
        asked: the numbers that it was asked with, by name.
        fpr: the false-positive rate that they come to; None where they come to none.
    """

    name: str
    asked: dict[str, float]
    fpr: float | None = None


def rules(
    quantile: float | None = 0.95,
    fprs: Sequence[float] = (1e-2,),
    input_hz: float | None = None,
    accept_hz: float | Sequence[float] | None = None,
    fdr: float | None = 0.1,
    f1: bool = False,
) -> list[Rule]:
    """The rules that are asked for.

    Args:
        quantile: of nominal scores; None leaves the rule out.
        fprs: target false-positive rates.
        input_hz, accept_hz: see `fpr_of_rate`; both or neither. A rule for each of several accepted rates.
        fdr: false-discovery rate, see `benjamini_hochberg`; None leaves the rule out.
        f1: whether to choose a threshold by labels, see `best_f1`.

    Raises:
        ValueError: if a number is out of its range; the message begins with its name.

    Example:
        >>> [rule.name for rule in rules(fprs=[0.1, 0.01])]
        ['quantile', 'fpr', 'fpr', 'fdr']
    """
    for name, values in {"quantile": [quantile], "fprs": fprs, "fdr": [fdr]}.items():
        if wrong := [value for value in values if value is not None and not 0 < value < 1]:
            raise ValueError(f"{name} must lie between 0 and 1, not {wrong[0]}")
    found = []
    if quantile is not None:
        found.append(Rule("quantile", {"quantile": quantile}, fpr_of_quantile(quantile)))
    found += [Rule("fpr", {"fpr": fpr}, fpr) for fpr in fprs]
    accepted = _numbers("accept_hz", accept_hz)
    if accepted and input_hz is not None:
        _numbers("input_hz", input_hz, several=False)
        for rate in accepted:
            try:
                fpr = fpr_of_rate(rate, input_hz)
            except ValueError as error:
                raise ValueError(f"accept_hz and input_hz: {error}") from error
            found.append(Rule("rate", {"accept_hz": rate, "input_hz": input_hz}, fpr))
    elif input_hz is not None or accepted:
        raise ValueError("input_hz and accept_hz go together: give both or neither")
    if fdr is not None:
        found.append(Rule("fdr", {"fdr": fdr}))
    if f1:
        found.append(Rule("f1", {}))
    return found


def _numbers(name: str, value: Any, several: bool = True) -> list[float]:
    """A number, or several of which none comes twice.

    Raises:
        ValueError: if it is anything else.
    """
    if value is None:
        return []
    values: list[Any] = [value] if isinstance(value, str | bytes) or not isinstance(value, Iterable) else list(value)
    if wrong := [one for one in values if isinstance(one, bool) or not isinstance(one, Real)]:
        raise ValueError(f"{name} must be a number{' or a list of numbers' * several}, not {wrong[0]!r}")
    if not several and isinstance(value, Iterable):
        raise ValueError(f"{name} must be a number, not {values}")
    return list(dict.fromkeys(values))


def settable(rules: Sequence[Rule], rows: float, of: str = "nominal calibration") -> tuple[str, bool]:
    """Which thresholds so many rows of a sort can set, in a sentence; and whether these are all.

    Example:
        >>> settable(rules(quantile=0.95, fprs=[0.01], fdr=None), 19)
        ('19 nominal calibration rows set quantile 0.95, but not fpr 0.01, which takes 99.', False)
    """
    takes = {}
    for rule in rules:
        if (rate := rule.asked.get("fdr", rule.fpr)) is not None:
            takes[f"{rule.name} {next(iter(rule.asked.values())):g}"] = needed(rate)
    can = [name for name, least in takes.items() if least <= rows]
    cannot = [f"{name}, which takes {least:,}" for name, least in takes.items() if least > rows]
    said = f"{rows:,.0f} {of} rows set " + (", ".join(can) or "no threshold")
    return said + (f"{', but' if can else ':'} not {', '.join(cannot)}." if cannot else "."), not cannot


class Cuts:
    """What each rule comes to on calibration rows, and what it does to test rows.

    Nominal are the rows labelled so; where none is, those without a label. All rules but `f1` see these only; `f1`
    sees the labelled rows, and sets no threshold where none of them is anomalous.

    Args:
        rules: which are asked for.
        scores: of calibration rows, `(n,)`, larger is stranger.
        y: `(n,)`, 0 nominal, above 0 anomalous, -1 unknown.
        weight: `(n,)` event weights; None is one each.

    Raises:
        ValueError: if a score is NaN, a weight negative or not finite, or no row nominal.

    Attributes:
        calibration: of the nominal rows.
        entries: one for each rule, of plain numbers: `rule`, `asked`, `value` (None where nothing lies above it or
            there is no threshold), `calibration`, the number of nominal rows, `expected_fpr` and `remark`.

    Example:
        >>> cuts = Cuts(rules(quantile=0.75, fprs=[], fdr=None), [1, 2, 3], [0, 0, 0])
        >>> cuts.entries[0]["value"], cuts.applied([2, 4], [0, 1])[0]["confusion"]
        (3.0, [[1, 0], [0, 1]])
    """

    def __init__(self, rules: Sequence[Rule], scores: ArrayLike, y: ArrayLike, weight: Weight = None) -> None:
        self._scores, self._y = np.asarray(scores), np.asarray(y)
        self._weight = None if weight is None else np.asarray(weight)
        nominal = held_nominal(self._y)
        self.calibration = Calibration(self._scores[nominal], None if self._weight is None else self._weight[nominal])
        self._guessed = not (self._y == 0).any()
        self._thresholds = [None if rule.fpr is None else self.calibration.at_fpr(rule.fpr) for rule in rules]
        self.entries = [self._entry(*pair) for pair in zip(rules, self._thresholds, strict=True)]

    def _entry(self, rule: Rule, threshold: Threshold | None) -> Entry:
        entry: Entry = {"rule": rule.name, "asked": rule.asked, "value": None, "calibration": self.calibration.rows}
        if self.calibration.weighted:
            entry["calibration_effective"] = float(self.calibration.n)
        remarks = [UNLABELLED] if self._guessed and rule.name != "f1" else []
        if threshold is not None and rule.fpr is not None:
            entry |= {"value": _plain(threshold.value), "expected_fpr": threshold.expected_fpr}
            remarks = [*_remarks(threshold, rule.fpr), *remarks]
        if rule.name == "rate":
            entry |= {"accept_hz": rule.asked["accept_hz"]}
            entry["expected_hz"] = entry["expected_fpr"] * rule.asked["input_hz"]
        elif rule.name == "fdr":
            remarks = [JOINTLY, *remarks]
        elif rule.name == "f1":
            entry["value"], said = self._best_f1()
            remarks = [said]
        return entry | {"remark": " ".join(remarks) or None}

    def _best_f1(self) -> tuple[float | None, str]:
        known = self._y >= 0
        anomalous = int((self._y > 0).sum())
        if not anomalous or self._guessed:
            return None, "not set: the calibration rows are not labelled as nominal and anomalous."
        best = best_f1(self._scores[known], self._y[known], None if self._weight is None else self._weight[known])
        said = f"chosen by the labels of validation, {anomalous:,} of which are anomalous (F1 {best.f1:.4f})."
        return _plain(best.value), said

    def applied(self, scores: ArrayLike, y: ArrayLike, kinds: Sequence[str] = (), weight: Weight = None) -> list[Entry]:
        """The entries and what `decisions` finds of each on test rows, the band of its FPR and whether it lies there.

        Raises:
            ValueError: if a score is NaN.
        """
        values = np.asarray(scores)
        if nans := int(np.isnan(values).sum()):
            raise ValueError(f"{nans} of {len(values)} test scores are NaN and can be neither flagged nor passed")
        found = []
        for entry, threshold in zip(self.entries, self._thresholds, strict=True):
            flagged = self._flagged(entry, values)
            found.append(entry if flagged is None else entry | _met(flagged, entry, threshold, y, kinds, weight))
        return found

    def _flagged(self, entry: Entry, scores: NDArray[Any]) -> Flags | None:
        value = entry["value"]
        if entry["rule"] == "fdr":
            return benjamini_hochberg(self.calibration.p_values(scores), entry["asked"]["fdr"])
        if entry["rule"] == "f1" and value is None:
            return None
        return np.asarray(scores > np.float64(math.inf if value is None else value))


def _met(
    flagged: Flags, entry: Entry, threshold: Threshold | None, y: ArrayLike, kinds: Sequence[str], weight: Weight
) -> Entry:
    """What came of a rule beside what was expected of it."""
    found = decisions(flagged, y, kinds, weight, one_by_one=entry["rule"] != "fdr")
    nominal = found.pop("nominal", 0)
    if not nominal:
        return found
    fpr = found["observed_fpr"]
    if threshold is not None:
        low, high = threshold.band(nominal)
        found |= {"band": [low, high], "in_band": low - 1e-12 <= fpr <= high + 1e-12}
    if entry["rule"] == "rate":
        found["observed_hz"] = fpr * entry["asked"]["input_hz"]
    return found


def _remarks(threshold: Threshold, fpr: float) -> Iterator[str]:
    """What the numbers of a threshold do not say."""
    if not threshold.k:
        yield (
            f"Nothing may be flagged at an FPR of {fpr:.6g}: it takes {needed(fpr):,} nominal calibration rows or "
            f"more, and there are {threshold.n:,.0f}{' (effective)' if threshold.approximate else ''}."
        )
    elif threshold.value == math.inf:
        yield f"Nothing is flagged: {threshold.k:,.0f} or more calibration scores are infinite."
    elif threshold.tied:
        yield "Calibration scores are tied with the threshold: the FPR is at most the expected one."
    if threshold.approximate:
        yield "Calibration rows have weights: what is expected is approximate."


def _plain(value: float) -> float | None:
    """A number that JSON has: None for infinity, which nothing exceeds; minus infinity is below all finite scores."""
    return None if value == math.inf else max(value, -sys.float_info.max)
