"""What `straylight explain` asks for, done: rows chosen, taken apart, printed, written and drawn."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from straylight.atomic import replacing
from straylight.console import Plain, say
from straylight.errors import ConfigError, DataError
from straylight.explain.events import Named, chosen, scored, tested
from straylight.explain.explainer import Explanation
from straylight.explain.output import check_ending, plain, shown, write
from straylight.files.fitting import Rules, Tally
from straylight.files.source import about
from straylight.folder import RunFolder
from straylight.job.kept import as_tested, data_of
from straylight.job.train import quiet
from straylight.phases import Phases
from straylight.run import Run
from straylight.scoring.scorer import Scorer

WIDE = 20  # cells of a bar


def explain(given: argparse.Namespace, phases: Phases) -> None:
    """Do what was asked for.

    Args:
        given: as `straylight.commands.explain` parses it.
        phases: is told what is done.

    Raises:
        StraylightError: whatever is wrong, in one sentence.
    """
    if given.output is not None:
        check_ending(given.output)
    quiet()
    run = Run.open(given.run, trust=given.trust)
    phases(f"scoring {given.file}" if given.file is not None else "reading the test rows")
    who = _of_file(run, given) if given.file is not None else _of_test(run, given)
    phases(f"explaining {len(who.x):,} rows against training rows")
    with as_tested(run):
        asked = {name: getattr(given, name) for name in ("method", "evaluations", "references")}
        options = {name: value for name, value in asked.items() if value is not None}
        why = run.explainer(who.x, who.context, **options)
    if given.output is not None:
        write(why, who, given.output)
    if given.figures is not None:
        phases("drawing")
    drawn = [] if given.figures is None else draw(why, who, given.figures)
    phases.done()
    if given.json:
        print(json.dumps(plain(why, who), default=str, allow_nan=False))
        return
    show(why, who, given.features, Plain())
    if given.output is not None:
        say(f"written: {given.output}, {len(why):,} rows by {len(why.features.names):,} features")
    if drawn:
        say(f"drawn: {len(drawn)} picture{'s' * (len(drawn) > 1)} in {given.figures}")


def _of_file(run: Run, given: argparse.Namespace) -> Named:
    if not given.file.is_file():
        raise DataError(f"there is no file {given.file}.")
    scorer, tally = Scorer(run), Tally()
    with about(given.file):
        source = scorer.opened(given.file)
        also = scorer.identifiers(source)
        parts = scorer.parts(source, Rules.of(given.missing, given.unseen, scorer.trained), tally, also)
        scores = scored(parts, lambda part: scorer.scores(part)[0])
        found = chosen(scores, given.rows, given.top, str(given.file), also)
    tally.tell(lambda sentence: say(f"{given.file}: {sentence}", error=True))
    return found


def _of_test(run: Run, given: argparse.Namespace) -> Named:
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
    from straylight.report import figures  # which takes a second to load

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
            figures.save(figure, aside, dpi=110)
    return [folder / f"{name}.png" for name in found]
