"""`straylight explain RUN FILE`: why rows are strange."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from rich.table import Table

from straylight.console import Plain, say
from straylight.errors import StraylightError
from straylight.explain.contributions import EVALUATIONS, Method
from straylight.explain.events import Named, chosen, numbers, scored, tested
from straylight.explain.explainer import Explanation
from straylight.explain.nearest import REFERENCES
from straylight.explain.output import check_ending, plain, shown, write
from straylight.files.fitting import Lacking, Rules, Tally, Unseen
from straylight.folder import RunFolder

if TYPE_CHECKING:
    from straylight.run import Run

FEATURES = 8  # of each row, that are printed
WIDE = 20  # cells of a bar


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = _Parser(
        prog="straylight explain",
        usage="straylight explain RUN [FILE] [options]",
        description="Why rows are strange: what each feature adds to a row's score above that of the nominal training "
        "rows that are most like it, and what it is in the nearest of them.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="of rows; without it the run's test rows")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rows", type=_numbers, metavar="3,17", help="these rows, counted from 1; 5-8 are four")
    which.add_argument("--top", type=_count, default=20, metavar="N", help="the N strangest (20)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="a line for each row and feature: .parquet, .csv"
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="a picture of each row, or a map of images")
    parser.add_argument("--features", type=_count, default=FEATURES, metavar="N", help="how many to print of a row (8)")
    parser.add_argument("--json", action="store_true", help="print all features of all rows as JSON")
    parser.add_argument(
        "--method", choices=get_args(Method), default="auto", metavar="M", help="exact, gradients, shapley or auto"
    )
    parser.add_argument("--references", type=_count, default=REFERENCES, metavar="N", help="nominal rows of each (4)")
    parser.add_argument("--evaluations", type=_count, default=EVALUATIONS, metavar="N", help="of each row by shapley")
    parser.add_argument("--missing", choices=get_args(Lacking), metavar="M", help="of a value: error, median or skip")
    parser.add_argument("--unseen", choices=get_args(Unseen), metavar="U", help="a category: error, other or skip")
    parser.add_argument("--trust", action="append", default=[], metavar="NAME", help="whose classes may be built")
    given = parser.parse_args(arguments)
    try:
        if given.output is not None:
            check_ending(given.output)
        explain(given)
    except StraylightError as error:
        say(f"Error: {error}", error=True)
        sys.exit(1)


def explain(given: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        StraylightError: whatever is wrong, in one sentence.
    """
    from straylight.job.kept import as_tested
    from straylight.job.train import quiet
    from straylight.run import Run

    quiet()
    run = Run.open(given.run, trust=given.trust)
    who = _of_file(run, given) if given.file is not None else _of_test(run, given)
    with as_tested(run):
        options = {name: getattr(given, name) for name in ("method", "evaluations", "references")}
        why = run.explainer(who.x, who.context, **options)
    if given.output is not None:
        write(why, who, given.output)
    drawn = [] if given.figures is None else draw(why, who, given.figures)
    if given.json:
        print(json.dumps(plain(why, who), default=str, allow_nan=False))
        return
    show(why, who, given.features, Plain())
    if given.output is not None:
        say(f"written: {given.output}, {len(why):,} rows by {len(why.features.names):,} features")
    if drawn:
        say(f"drawn: {len(drawn)} picture{'s' * (len(drawn) > 1)} in {given.figures}")


def _of_file(run: Run, given: argparse.Namespace) -> Named:
    from straylight.errors import DataError

    if not given.file.is_file():
        raise DataError(f"there is no file {given.file}.")
    recipe = run.recipe(given.file)
    also = _meta(given.file, recipe)
    rules = None
    if given.missing is not None or given.unseen is not None:
        rules = Rules.of(given.missing, given.unseen, recipe.missing)
    tally = Tally()
    parts = run.parts(given.file, rules=rules, tally=tally, also=also)
    found = chosen(scored(parts, lambda part: _scores(run, part)), given.rows, given.top, str(given.file), also)
    tally.tell(lambda sentence: say(f"{given.file}: {sentence}", error=True))
    return found


def _scores(run: Run, part: Any) -> Any:
    from straylight.detectors.scores import scores_of

    return scores_of(run.detector, part.x, part.context)


def _meta(path: Path, recipe: Any) -> list[str]:
    """The columns that name rows, as far as the file has them."""
    from straylight.files.dialect import Dialect
    from straylight.files.formats import open_file
    from straylight.files.source import about

    with about(path):
        names = open_file(path, dialect=Dialect.of(recipe.csv)).names
    return [name for name in recipe.roles.meta if name in names]


def _of_test(run: Run, given: argparse.Namespace) -> Named:
    from straylight.errors import ConfigError
    from straylight.job.kept import data_of

    place = RunFolder(run.folder)
    if not place.scores.is_file():
        raise ConfigError(f"{place} holds no scores ({place.scores.name}); give a file whose rows are to be explained.")
    columns = place.columns(place.scores)
    data = data_of(run)
    run.explainer.load = lambda: data  # it is read once
    return tested(data, columns["index"], columns["score"], given.rows, given.top)


def show(why: Explanation, who: Named, most: int, console: Plain) -> None:
    """Print each row: its score, and the features that add most."""
    for sentence in why.notices:
        say(sentence, error=True)
    say(f"method: {why.method}; baseline: {why.stated}")
    for i in range(len(why)):
        say(f"\n{who.called(i)}: score {why.score[i]:.4g}, baseline {why.baseline[i]:.4g}")
        own = why.first(i, most)
        near = why.nearest_values
        table = Table("feature", box=None, pad_edge=False)
        for heading in ("value", *(["nearest nominal"] if near is not None else []), "adds"):
            table.add_column(heading, justify="right")
        table.add_column("")
        largest = float(abs(why.contributions[i]).max()) or 1.0
        for j in own:
            added = float(why.contributions[i, j])
            bar = ("█" if added > 0 else "░") * round(WIDE * abs(added) / largest)
            values = [why.values[i][j], *([near[i][j]] if near is not None else [])]
            table.add_row(why.features.names[j], *map(shown, values), f"{added:+.4g}", bar)
        rest = why.contributions.shape[1] - len(own)
        if rest:
            left = float(why.contributions[i].sum() - why.contributions[i, own].sum())
            table.add_row(f"{rest} more", *[""] * (1 + (near is not None)), f"{left:+.4g}", "")
        console.print(table)


def draw(why: Explanation, who: Named, folder: Path) -> list[Path]:
    """A waterfall of each row, of images one picture with a map of each; returns the files."""
    import numpy as np

    from straylight.atomic import replacing
    from straylight.report import figures

    found: dict[str, Any] = {}
    features, n = why.features, len(why)
    if features.kind == "image":
        channels = features.shape[0]
        parts = np.tile(why.contributions / channels, (1, channels))
        for start in range(0, n, 10):
            some = slice(start, start + 10)
            rows = [who.called(i).partition(" of ")[0] for i in range(n)][some]
            y = np.full(len(rows), -1)
            found[f"maps_{start // 10 + 1}"] = figures.contributions(
                why.x[some], parts[some], why.score[some], y, rows=rows
            )
    else:
        for i in range(n):
            title = f"{who.called(i)}\nbaseline: {why.stated}"
            name = f"{i + 1:03d}_row_{who.names['row'][i]}"
            if features.kind == "series" and len(features.shape) == 2:
                found[name] = figures.by_step(why.x[i], why.contributions[i].reshape(features.shape), title)
                continue
            values = [shown(value) for value in why.values[i]]
            found[name] = figures.waterfall(why.contributions[i], why.baseline[i], features.names, values, title)
    for name, figure in found.items():
        with replacing(folder / f"{name}.png", durable=False) as aside:
            figure.savefig(aside, dpi=110)
    return [folder / f"{name}.png" for name in found]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        sentence = message.replace("unrecognized arguments:", "there is no option")
        say(f"Error: {sentence}; straylight explain --help says what can be typed.", error=True)
        sys.exit(2)


def _numbers(text: str) -> list[int]:
    try:
        return numbers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 is needed, not {text!r}")
    return int(text)
