"""What each key of a config is: what a run computes, or where, how fast and how visibly it does."""

from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple


class Kind(Enum):
    """What changes with a key's value."""

    MEANING = auto()  # what is computed
    SEED = auto()  # which of several repeats it is
    PLACE = auto()  # where things lie
    SHOWN = auto()  # what is shown of it
    SPEED = auto()  # how fast it is computed, by how much of the machine


class Key(NamedTuple):
    """One key, and all keys below it that have no entry of their own.

    Attributes:
        kind: what changes with its value.
        resumable: whether a run may be resumed with another value.
        path: whether its value is a path, meant from where the command is typed.
    """

    kind: Kind = Kind.MEANING
    resumable: bool = False
    path: bool = False


#: The one table: which run is which, what may change when one is resumed, what names a run in a report and which
#: values are paths follow it. What is not here is of the meaning.
KEYS: Mapping[str, Key] = {
    "seed": Key(Kind.SEED),
    "threads": Key(Kind.SPEED, resumable=True),
    "paths": Key(Kind.PLACE, path=True),
    "paths.data": Key(Kind.PLACE, resumable=True, path=True),
    "paths.run": Key(Kind.PLACE),  # filled in when a run starts
    "report": Key(Kind.SHOWN, resumable=True),
    "objective": Key(Kind.SHOWN, resumable=True),
    "hydra": Key(Kind.PLACE),
    "hydra.run.dir": Key(Kind.PLACE, path=True),
    "hydra.sweep.dir": Key(Kind.PLACE, path=True),
    "logger": Key(Kind.PLACE, resumable=True),
    "data.root": Key(Kind.PLACE, path=True),
    "data.download": Key(Kind.PLACE),
    "data.path": Key(path=True),
    "data.test_path": Key(path=True),
    "data.workers": Key(Kind.SPEED),
    "data.group": Key(Kind.SPEED),
    "data.device": Key(Kind.SPEED),
    "data.memory_mb": Key(Kind.SPEED),
    "trainer": Key(resumable=True),
    "trainer.accelerator": Key(Kind.SPEED, resumable=True),
    "trainer.devices": Key(Kind.SPEED, resumable=True),  # data.batch_size is that of all of them together
    "trainer.num_nodes": Key(Kind.SPEED, resumable=True),
    "trainer.strategy": Key(Kind.SPEED, resumable=True),
    "trainer.timeout_s": Key(Kind.SPEED, resumable=True),
    "callbacks": Key(resumable=True),
    "callbacks.criteria": Key(Kind.SHOWN, resumable=True),
    "callbacks.figures": Key(Kind.SHOWN, resumable=True),
    "callbacks.tensorboard": Key(Kind.SHOWN, resumable=True),
    "callbacks.progress": Key(Kind.SHOWN, resumable=True),
    "callbacks.pruning": Key(Kind.PLACE, resumable=True),  # which trial of a search it is
}
#: Groups whose choice has a column of its own in a report.
NAMED = frozenset({"detector", "data", "experiment"})


def key_of(override: str) -> str:
    """The key of an override, without what adds or deletes it: all before the first `=`, as Hydra's lexer has it.

    Example:
        >>> key_of("+detector.note='a=b'"), key_of("~logger")
        ('detector.note', 'logger')
    """
    return override.partition("=")[0].lstrip("+~")


def entry(key: str) -> Key:
    """What is known of a key: its own entry, or that of the nearest key above it.

    Example:
        >>> entry("callbacks.figures.dpi").kind.name, entry("detector.latent").kind.name
        ('SHOWN', 'MEANING')
    """
    while key and key not in KEYS:
        key = key.rpartition(".")[0]
    return KEYS.get(key, Key())


def named_by(overrides: Collection[str]) -> set[str]:
    """Those overrides that tell what was computed from what else was, apart from detector, data and seed."""
    unnamed = (Kind.SEED, Kind.PLACE, Kind.SHOWN)
    return {o for o in overrides if (key := key_of(o)) not in NAMED and entry(key).kind not in unnamed}


def meaning(config: Mapping[str, Any], *, seed: bool, ranged: Collection[str] = ()) -> dict[str, Any]:
    """The part of a config that says what is computed.

    Args:
        config: plain values, as composed.
        seed: whether the seed is of it.
        ranged: keys that belong to it nevertheless, since a sweep compares their values.

    Example:
        >>> meaning({"threads": 2, "data": {"workers": 1, "n": 5}, "seed": 0}, seed=False)
        {'data': {'n': 5}}
        >>> meaning({"threads": 2, "seed": 0}, seed=False, ranged={"threads", "seed"})
        {'threads': 2}
    """
    kept_kinds = {Kind.MEANING, Kind.SEED} if seed else {Kind.MEANING}

    def kept(node: Mapping[str, Any], above: str) -> dict[str, Any]:
        found = {}
        for name, value in node.items():
            key = f"{above}.{name}" if above else str(name)
            if isinstance(value, Mapping) and value:
                if below := kept(value, key):
                    found[str(name)] = below
            elif (kind := entry(key).kind) in kept_kinds or (key in ranged and kind is not Kind.SEED):
                found[str(name)] = value
        return found

    return kept(config, "")
