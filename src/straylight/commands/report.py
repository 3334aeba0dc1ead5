"""`straylight report FOLDER`: what a run or a sweep reached."""

import sys
from pathlib import Path

from straylight.commands.asked import Parser
from straylight.console import say
from straylight.folder import PAGE, RunFolder, SweepFolder
from straylight.report.compared import PICTURES
from straylight.report.page import report, show_run
from straylight.report.plain import as_json
from straylight.runtimes import BEST, RUNTIMES

IN_FOLDER = ""  # what --html without a file says


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = Parser(
        prog="straylight report",
        description="The leaderboard of a sweep, or of all runs below a folder: a row for each detector on each data "
        f"set, mean and range over seeds; written to leaderboard.csv there too, beside {', '.join(PICTURES)}, those of "
        "them that apply. For the folder of one run, its numbers.",
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of a run, of a sweep, or above several of them")
    parser.add_argument("--details", action="store_true", help="of one run: all that was measured")
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default=BEST,
        help="whose times the leaderboard has: of each detector the fastest that scores as torch does (best), or one",
    )
    parser.add_argument("--retime", action="store_true", help="time every run once more, one by one, before reporting")
    parser.add_argument(
        "--figures",
        nargs="*",
        metavar="NAME",
        help="draw the figures of every run from what it kept, before reporting: all that apply, or these (`essential` "
        "for those that a run draws by itself)",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="NAME",
        help="with --retime or --figures: a module whose classes may be built",
    )
    parser.add_argument(
        "--html",
        nargs="?",
        const=IN_FOLDER,
        metavar="FILE",
        help="write all of it as one HTML file, too, which opens in any browser and asks no other host for anything; "
        f"without a name it is {PAGE} in the folder",
    )
    parser.add_argument(
        "--json", action="store_true", help="print it as JSON: the record of a run, or rows and records"
    )
    given = parser.parse_args(arguments)
    if given.folder is None and given.figures and Path(given.figures[-1]).is_dir():
        given.folder = Path(given.figures.pop())  # `--figures FOLDER`
    if given.folder is None and given.html and Path(given.html).is_dir():
        given.folder, given.html = Path(given.html), IN_FOLDER  # `--html FOLDER`
    if given.folder is None:
        parser.error("say which folder: of a run, of a sweep, or above several of them")
    folder, runs = given.folder, SweepFolder(given.folder)
    if not folder.is_dir():
        sys.exit(_refusal(f"there is no folder {folder}."))
    html = _page(folder, given.html)
    failures = 0
    if given.retime:
        from straylight.commands.retime import retime

        failures = retime(folder, given.trust)
    if given.figures is not None:
        failures += _figures(folder, given.figures, given.trust)
    if given.json and html is not None:
        sys.exit(_refusal("--json prints for programs and --html writes for people: ask for one after the other."))
    if given.json and (RunFolder(folder).result.is_file() or runs.has_results):
        print(as_json(folder, given.runtime))
    elif RunFolder(folder).result.is_file():
        show_run(folder, details=given.details)
        if html is not None:
            _write_run(folder, html)
    elif given.details:
        sys.exit(_refusal(f"--details is for the folder of one run, and {folder} holds no result.json of its own."))
    elif not runs.has_results:
        sys.exit(_refusal(f"{folder} holds no result.json, in it or below: no run in it has ended."))
    else:
        try:
            report(folder, runtime=given.runtime, html=html)
        except OSError as error:
            sys.exit(_refusal(f"{error.filename or folder} cannot be written: {error.strerror or error}."))
    if failures:
        sys.exit(1)


def _figures(folder: Path, names: list[str], trust: list[str]) -> int:
    """Draw the figures of these names; the number of runs that could not be drawn."""
    from straylight.report.choice import ALL, understood

    typed = [name for words in names for name in words.strip("[]").split(",") if name]
    try:
        only = understood(typed or ALL, "--figures")
    except ValueError as error:
        sys.exit(_refusal(f"{error}."))
    from straylight.commands.redraw import redraw

    return redraw(folder, only, trust)


def _page(folder: Path, named: str | None) -> Path | None:
    """The file of the page, if one was asked for."""
    if named is None:
        return None
    path = folder / PAGE if named == IN_FOLDER else Path(named)
    if path.is_dir():
        sys.exit(_refusal(f"--html takes a file, and {path} is a folder: --html {path / PAGE}."))
    if path.suffix.lower() not in (".html", ".htm"):
        sys.exit(_refusal(f"--html writes HTML, whose files end in .html, and not {path.name}."))
    return path


def _write_run(folder: Path, html: Path) -> None:
    from straylight.commands.pages import write_run

    try:
        say(f"To open in a browser, or to send: {write_run(folder, html)}")
    except OSError as error:
        sys.exit(_refusal(f"{html} cannot be written: {error.strerror or error}."))


def _refusal(sentence: str) -> int:
    say(f"Error: {sentence}", error=True)
    return 1
