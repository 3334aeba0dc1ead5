"""`straylight data`: which data sets there are, what one holds, and fetching one."""

import sys

from straylight.commands.listing import listing
from straylight.console import say
from straylight.errors import StraylightError
from straylight.groups import told

HELP = """\
Data sets: which there are, what one holds, and fetching one.

usage: straylight data [paths.data=DIR]              which there are, and where
       straylight data NAME [KEY=VALUE ...]          what one holds
       straylight data fetch NAME [KEY=VALUE ...]    fetch its files
       with --json the first two for programs

examples:
  straylight data
  straylight data adbench data.name=6_cardio data.protocol=unsupervised
  straylight data fetch fashion_mnist
"""


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return
    try:
        as_json = "--json" in arguments
        folders, words = told([word for word in arguments if word != "--json"])
        overrides = [w for w in words if "=" in w or w.startswith(("~", "+"))]
        names = [w for w in words if w not in overrides]
        fetch = names[:1] == ["fetch"]
        names = names[1:] if fetch else names
        if not names and any(w.startswith("data.") for w in overrides):
            raise StraylightError("say which data set first, such as `straylight data adbench data.name=6_cardio`.")
        if len(names) > 1 or (fetch and not names):
            raise StraylightError("give one data set, such as `straylight data fetch mnist`.")
        if fetch and as_json:
            raise StraylightError(
                "--json is for what `straylight data` lists or finds, not for fetching; leave it out."
            )
        if not names and not folders and all(o.startswith("paths.data=") and "${" not in o for o in overrides):
            listing(overrides, as_json)
            return
        from straylight.commands import rows  # which takes torch and Lightning

        rows.main(names, overrides, folders, fetch=fetch, as_json=as_json)
    except Exception as error:
        from straylight import config

        said = str(error) if isinstance(error, StraylightError) else config.explain(error)
        if said is None:
            raise
        say(f"Error: {said}", error=True)
        sys.exit(1)
