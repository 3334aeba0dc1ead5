"""What was typed behind `straylight train`, as far as it can be seen to be wrong before Hydra reads it.

Hydra, its lexer and argparse say what they could not read. Here it is said what to type instead.
"""

import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import yaml

from straylight.checks import meant
from straylight.config import NEEDED
from straylight.errors import ConfigError
from straylight.groups import CONFIG_DIR, FOLDER, GROUPS, choices, config_folders
from straylight.overrides import parsed, quoted, readable, sweeps

#: Hydra's options that are followed by a value, and what these may be; `None` is anything.
VALUED: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--trust", *CONFIG_DIR)),
}
FLAGS = ("-m", "--multirun", "--hydra-help", "--resolve", "--info", "-i", "--run", "-r", "--shell-completion", "-sc")
SHOWN = "-m, --config-dir DIR, --trust NAME, --cfg job, --resolve and --hydra-help"
MANY = {"-m", "--multirun"}
#: Keys that are of no group.
ALONE = ("seed", "threads", "compile", "resume")
PAIRS = {"[": "]", "{": "}", "(": ")"}
#: Files whose keys are often typed without their group.
COMMON = ("trainer/cpu", "optimizer/adam", "data/base", "callbacks/default")


class _Word(NamedTuple):
    """One of the arguments that is no option: its place, and it."""

    place: int
    text: str


def refuse(arguments: Sequence[str]) -> None:
    """Look for what cannot be meant as it is typed.

    Raises:
        ConfigError: for the first, with the command as it should be typed.

    Example:
        >>> refuse(["-m", "--detector", "vae", "data=blobs"])
        Traceback (most recent call last):
        straylight.errors.ConfigError: Settings are typed without dashes, as KEY=VALUE: straylight train -m \
detector=vae data=blobs
        >>> refuse(["detector=vae,knn"])
        Traceback (most recent call last):
        straylight.errors.ConfigError: Several values are a sweep, which -m asks for: straylight train -m \
detector=vae,knn
    """
    words = list(_words(arguments))
    for number, word in enumerate(words):
        _word(arguments, word, words[number + 1 :])
    several = next((word for word in words if sweeps(readable(word.text))), None)
    if several is not None and not _many(arguments):
        raise ConfigError(f"Several values are a sweep, which -m asks for: {_command(['-m', *arguments])}")


def _words(arguments: Sequence[str]) -> Iterator[_Word]:
    """The arguments that are no options.

    Raises:
        ConfigError: for an option that there is not, and one without its value.
    """
    rest = iter(enumerate(arguments))
    for place, argument in rest:
        if not argument.startswith("-"):
            yield _Word(place, argument)
            continue
        name, equals, value = argument.partition("=")
        if name in FLAGS and not equals:
            continue
        if name in FLAGS:
            raise ConfigError(f"{name} takes no value: {_command(_replaced(arguments, place, 1, name))}")
        if name not in VALUED:
            raise ConfigError(_no_option(arguments, place))
        if not equals:
            value = next(rest, (0, ""))[1]
        if not value:
            raise ConfigError(f"{name} wants a value behind it.")
        may = VALUED[name]
        if may is not None and value not in may:
            raise ConfigError(f"{name} takes {', '.join(may)}, and not {value!r}.")


def _no_option(arguments: Sequence[str], place: int) -> str:
    """What to say of an option that is none: most are settings, typed as in other programs."""
    name, equals, value = arguments[place].partition("=")
    key = _key(name.lstrip("-").replace("-", "_"))
    if key is None:
        return f"There is no option {name}{meant(name, [*FLAGS, *VALUED])}; there are {SHOWN}."
    follows = arguments[place + 1] if place + 1 < len(arguments) else ""
    taken = 1
    if not equals and follows and "=" not in follows and not follows.startswith("-"):
        value, taken = follows, 2
    typed = _replaced(arguments, place, taken, f"{key}={value or 'VALUE'}")
    return f"Settings are typed without dashes, as KEY=VALUE: {_command(typed)}"


def _word(arguments: Sequence[str], word: _Word, after: Sequence[_Word]) -> None:
    """Look at one setting."""
    key, equals, value = word.text.partition("=")
    if key.lstrip("~") in NEEDED and word.text.startswith("~"):
        raise ConfigError(f"{word.text} would leave a run without: choose another {key[1:]} by {key[1:]}=NAME.")
    if word.text.startswith("~"):
        return
    if not equals:
        raise ConfigError(_no_setting(arguments, word, after))
    if key in _common() and not any((folder / key).is_dir() for folder in config_folders(list(arguments))[0]):
        typed = _replaced(arguments, word.place, 1, f"{_common()[key]}={value}")
        raise ConfigError(f"{key} is a key of a group: {_command(typed)}")
    if (joined := _joined(word, after)) is not None:
        text, taken = joined
        typed = _replaced(arguments, word.place, taken, text)
        raise ConfigError(f"The shell parts what blanks part, so type the list without: {_command(typed)}")
    if value.endswith(",") and parsed(word.text) is None:
        typed = _replaced(arguments, word.place, 1, word.text.rstrip(","))
        raise ConfigError(f"{word.text} ends in a comma, with no value behind it: {_command(typed)}")
    if parsed(word.text) is not None or parsed(readable(word.text)) is not None:
        return
    if missing := _unclosed(value):
        raise ConfigError(f"{word.text} lacks its closing {missing}.")
    typed = _replaced(arguments, word.place, 1, f"{key}={quoted(value)}")
    raise ConfigError(
        f"The value of {word.text} cannot be read; as a text it is quoted, for the shell and for Hydra: "
        f"{_command(typed)}"
    )


def _no_setting(arguments: Sequence[str], word: _Word, after: Sequence[_Word]) -> str:
    """What to say of a word without `=`."""
    folders, _ = config_folders(list(arguments))
    follows = after[0] if after and after[0].place == word.place + 1 else None
    if (key := _key(word.text)) is not None:
        given = follows.text if follows is not None and "=" not in follows.text else None
        typed = _replaced(arguments, word.place, 1 if given is None else 2, f"{key}={given or 'VALUE'}")
        return f"A setting is one word, KEY=VALUE: {_command(typed)}"
    for group in ("detector", "data", "experiment"):
        if word.text in choices(group, *folders):
            typed = _replaced(arguments, word.place, 1, f"{group}={word.text}")
            return f"A {group} is chosen by its group: {_command(typed)}"
    return f"{word.text!r} is no setting, which would be KEY=VALUE, such as detector=vae or seed=1."


def _joined(word: _Word, after: Sequence[_Word]) -> tuple[str, int] | None:
    """A list whose parts the shell took for words, as one without blanks, and how many words it was."""
    text = word.text
    if not _unclosed(text.partition("=")[2]):
        return None
    for number, other in enumerate(after, 1):
        if other.place != word.place + number or "=" in other.text:
            return None
        text += other.text
        if not _unclosed(text.partition("=")[2]):
            return (text, number + 1) if parsed(text) is not None else None
    return None


def _unclosed(value: str) -> str:
    """What would close the brackets and quotes of a value that are open."""
    closing: list[str] = []
    for mark in value:
        if closing and mark == closing[-1]:
            closing.pop()
        elif closing and closing[-1] in "'\"":
            continue
        elif mark in PAIRS or mark in "'\"":
            closing.append(PAIRS.get(mark, mark))
    return "".join(reversed(closing))


def _many(arguments: Sequence[str]) -> bool:
    return bool(MANY & set(arguments)) or any(a.startswith(("experiment=sweep/", "resume=")) for a in arguments)


def _key(name: str) -> str | None:
    """The key that a word stands for: a group, a key of the config, or one of those that are often typed alone."""
    if name.partition(".")[0] in (*GROUPS, *ALONE):
        return name
    return _common().get(name)


@cache
def _common() -> dict[str, str]:
    """Keys by their last part, of the groups' usual choices."""
    found: dict[str, str] = {}
    for name in COMMON:
        config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) or {}
        group = name.partition("/")[0]
        found |= {k: f"{group}.{k}" for k in config if k[0] != "_" and k not in (*found, *ALONE, *GROUPS)}
    return found | {"epochs": "trainer.max_epochs"}


def _replaced(arguments: Sequence[str], place: int, taken: int, by: str) -> list[str]:
    return [*arguments[:place], by, *arguments[place + taken :]]


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["straylight", "train", *arguments])
