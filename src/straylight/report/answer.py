"""What was asked of many runs and what was found, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rich.text import Text

from straylight.metrics.across import Across
from straylight.report.compared import over_sets
from straylight.report.details import Part, headed
from straylight.report.leaderboard import NOT_RESOLVABLE, POINTS, Row, Run, grouped
from straylight.report.leading import Leader, leaders
from straylight.report.over_density import CHOSEN_MARK, TRUTH, TRUTH_MARK, marked
from straylight.result import finished
from straylight.runtimes import MARK, SHARED

NAMED = 8  # detectors or data sets in a sentence
SETS = 12  # data sets with a sentence of their own
UNRESOLVED = "not resolvable, fewer than ten nominal rows lie above the threshold"


def answer(results: Sequence[Run], table: Sequence[Row]) -> Iterator[str]:
    """Which detectors were compared on which data, over how many seeds; who leads, and who may be as good."""
    groups = grouped(results)
    detectors, sets = sorted({row.detector for row in table}), sorted({row.data for row in table})
    if not table:
        yield f"None of {len(results):,} runs ended well." if results else "There are no runs."
        return
    seeds = sorted({row.seeds for row in table})
    over = f"{seeds[0]} seed{'s' * (seeds[0] > 1)}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    well = sum(map(finished, results))
    ended = f"{'all of ' * (well > 1)}which ended well" if well == len(results) else f"{well:,} of which ended well"
    if pruned := sum(bool(result.get("pruned")) for result in results):
        ended += f", and {pruned:,} of which a search has pruned"
    verb = "were compared" if len(detectors) > 1 else "was run"
    yield (
        f"{_counted(detectors, 'detector')} {verb} on {_counted(sets, 'data set')}, over {over} each: "
        f"{len(results):,} run{'s' * (len(results) > 1)}, {ended}."
    )
    if (found := over_sets(groups)) and len(detectors) > 1:
        across, names = found
        best = min(zip(across.average_ranks.tolist(), names, strict=True))
        yield f"Over {across.sets} data sets {best[1]} ranks best on average, {best[0]:.2f}. {across.sentence}"
    for leader in leaders(table, groups)[:SETS]:
        yield _led(leader)
    if len(sets) > SETS:
        yield f"The other {len(sets) - SETS} data sets are in the leaderboard."


def _led(leader: Leader) -> str:
    known = "" if leader.interval is None else f" [{leader.interval[0]:.3f}, {leader.interval[1]:.3f}]"
    said = f"On {leader.data}, {leader.detector}"
    if not leader.others:
        return f"{said} reaches an AUROC of {leader.auroc:.4f}{known}."
    said += f" leads with an AUROC of {leader.auroc:.4f}{known}"
    if leader.alike:
        return f"{said}; {_named(leader.alike)} cannot be told apart from it."
    if len(leader.unknown) == leader.others:
        return f"{said}; with one seed and without intervals nothing says whether the others are worse."
    if leader.unknown:
        return f"{said}; of {_named(leader.unknown)} nothing says how well they are known, all others are worse."
    return f"{said}; all others are worse by more than chance."


def ranks(found: Across, names: Sequence[str], truth: Collection[str]) -> Iterator[Part]:
    """Average ranks, best first, and what the tests say of them; those in `truth` have read it."""
    out = headed("detector", "average rank")
    for rank, name in sorted(zip(found.average_ranks.tolist(), names, strict=True)):
        out.add_row(Text(marked(name, name in truth)), f"{rank:.2f}")
    yield out
    yield found.sentence


def legend(table: Sequence[Row]) -> Iterator[str]:
    """What marks in a leaderboard mean, those that there are."""
    if any(row.numbers["auroc"].mean is not None and row.numbers[n].mean is None for row in table for n in POINTS[:2]):
        yield f"{NOT_RESOLVABLE}: {UNRESOLVED}"
    if any(row.shared and row.runtimes for row in table):
        yield f"{MARK}: {SHARED}; straylight report --retime FOLDER times again"
    if any(row.truth for row in table):
        yield f"{TRUTH_MARK}: {TRUTH}"
    if chosen := next((row.chosen for row in table if row.chosen), None):
        yield f"{CHOSEN_MARK}: chosen by {chosen}, without labels; who leads, only the labels of the test can tell"


def troubles(results: Sequence[Run], waiting: Sequence[Path]) -> list[str]:
    """Each run that did not end well, with its reason, and how many have no result."""
    found = []
    for result in results:
        if result["status"] != "ok":
            what = f"{result.get('detector') or 'a run'} on {result.get('data') or 'its data'}"
            seed = "" if result.get("seed") is None else f", seed {result['seed']}"
            found.append(f"{result['status']}: {result['folder']} ({what}{seed}) {result.get('reason') or ''}")
    if waiting:
        found.append(f"{len(waiting)} more without a result: running, or killed ({waiting[0]})")
    return found


def unresolved(results: Sequence[Run]) -> Iterator[str]:
    """Which working points no run of a data set resolves, and how many nominal test rows would do."""
    sets: dict[str, dict[str, int]] = {}
    for result in results:
        if result["status"] == "ok" and result.get("nominal_needed"):
            sets.setdefault(str(result.get("data")), {}).update(result["nominal_needed"])
    for said, where in _alike({data: _needs(needed) for data, needed in sets.items()}).items():
        if said:
            yield f"On {_named(where)}, TPRs at small FPRs are not resolvable: it takes {said}."


def _needs(needed: dict[str, int]) -> str:
    first = sorted(needed.items(), key=lambda item: -float(item[0]))[:2]
    return " and ".join(f"{rows:,} nominal test rows for an FPR of {fpr}" for fpr, rows in first)


def _alike(said: dict[str, str]) -> dict[str, list[str]]:
    """By what is said, of whom it is."""
    found: dict[str, list[str]] = {}
    for name, sentence in said.items():
        found.setdefault(sentence, []).append(name)
    return found


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' * (len(names) > 1)} ({_named(names)})"


def _named(names: Sequence[str]) -> str:
    """Names in a sentence, not more of them than can be read.

    Example:
        >>> _named(["knn", "pca", "vae"]), _named(["knn"])
        ('knn, pca and vae', 'knn')
    """
    if len(names) > NAMED:
        return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
