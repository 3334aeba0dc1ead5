"""Jobs that differ in plain values alone, of which a sweep may have thousands: one of them is composed and resolved.

Where the values are to stand, it holds marks; every job is what came of it, with its own values in their place. So no
job pays for merging, resolving and writing what all of them have in common.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.types import Override
from omegaconf import AnyNode, DictConfig, OmegaConf, open_dict

from straylight.config import settle_paths
from straylight.documents import yaml_text
from straylight.job.devices import Asked, asked_for
from straylight.job.order import Parts, fields_of
from straylight.keys import entry
from straylight.sweep.point import Whole

MARK, NUMBER = "straylight-{}-mark", 4_815_162_342_108
FOLDER, SUBDIR, DIRNAME, TASK = (MARK.format(name) for name in ("folder", "subdir", "dirname", "task"))
#: Resolvers that look at nothing that differs between jobs, or through what is marked.
KNOWN = {"oc.env", "now", "hydra"}
RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
NESTED = re.compile(r"\$\{[^{}]*\$\{")
#: Keys whose values decide on more than themselves.
APART = ("paths.", "callbacks.figures.", "trainer.accelerator", "trainer.devices")
Place = tuple[str | int, ...]


class Slot(NamedTuple):
    """A place in a tree of plain values whose value is, or is a text that holds, something of the job's own."""

    at: Place
    value: Any


class Tree(NamedTuple):
    """Plain values with marks among them."""

    values: dict[str, Any]
    slots: list[Slot]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Tree:
        return cls(values, [Slot(at, value) for at, value in _leaves(values) if _marked(value)])

    def filled(self, given: Mapping[Any, Any]) -> dict[str, Any]:
        """The values of a job; what it shares with the others is not copied, and must not be changed."""
        root = dict(self.values)
        own: dict[Place, Any] = {(): root}
        for at, value in self.slots:
            for depth in range(1, len(at)):
                if (place := at[:depth]) not in own:
                    above = own[place[:-1]]
                    shared = above[place[-1]]
                    above[place[-1]] = own[place] = list(shared) if isinstance(shared, list) else dict(shared)
            own[at[:-1]][at[-1]] = _put(value, given)
        return root


class Template:
    """What jobs have in common that differ in the values of some keys.

    Args:
        cfg: the config of one of them, which is changed.
        keys: those that differ, each with a plain value.
        overrides: what else was given.
    """

    def __init__(self, cfg: DictConfig, keys: Sequence[str], overrides: Sequence[str]) -> None:
        self.marks = {key: MARK.format(i) for i, key in enumerate(keys)}
        with open_dict(cfg):
            for key, mark in self.marks.items():
                OmegaConf.update(cfg, key, mark)
        cfg.hydra.overrides.task, cfg.hydra.job.override_dirname = [TASK], DIRNAME
        self.dirname: Any = OmegaConf.to_container(cfg.hydra.job.config.override_dirname)
        self.choices: Any = OmegaConf.to_container(cfg.hydra.runtime.choices)
        settle_paths(cfg)
        whole = Whole(cfg, overrides)
        self.typed = Tree.of(_plain(cfg))
        self.named = whole.subdir(NUMBER)
        parts = whole.parts(NUMBER, FOLDER, SUBDIR)
        self.written, self.config, self.hydra = Tree.of(dict(parts.typed)), Tree.of(parts.config), Tree.of(parts.hydra)
        own = {slot.at[0] for slot in self.written.slots}
        self.texts = {key: None if key in own else yaml_text({key: v}) for key, v in self.written.values.items()}

    @property
    def sound(self) -> bool:
        """Whether all that a job has of its own stands where its mark does."""
        again = [slot for slot in (*self.config.slots, *self.hydra.slots) if TASK in str(slot.value)]
        return [slot.at for slot in again] == [("overrides", "task", 0)] and TASK not in self.named


class Alike:
    """A point that differs from another one in plain values alone.

    Args:
        template: what they have in common.
        parsed: the overrides of this one.
    """

    def __init__(self, template: Template, parsed: Sequence[Override]) -> None:
        self.template = template
        ours = [override for override in parsed if not override.is_hydra_override()]
        self.task = [str(override.input_line) for override in ours]
        self.given: dict[Any, Any] = {
            mark: override.value() for override in parsed if (mark := template.marks.get(override.key_or_group))
        }
        self.given[DIRNAME] = get_overrides_dirname(overrides=ours, **template.dirname)

    def fields(self, ranged: Collection[str]) -> dict[str, Any]:
        common = self.template
        resolved, typed = common.config.filled(self.given), common.typed.filled(self.given)
        return fields_of(resolved, common.choices, self.task, ranged=ranged, typed=typed)

    def asked(self) -> Asked:
        config = self.template.config.filled(self.given)
        return asked_for(config["trainer"], config.get("threads"))

    def subdir(self, number: int) -> str:
        return str(_put(self.template.named, {**self.given, NUMBER: number}))

    def parts(self, number: int, folder: str, subdir: str) -> Parts:
        common = self.template
        given = {**self.given, NUMBER: number, FOLDER: folder, SUBDIR: subdir}
        typed, config, hydra = (tree.filled(given) for tree in (common.written, common.config, common.hydra))
        hydra["overrides"]["task"] = self.task
        text = "".join(yaml_text({key: typed[key]}) if kept is None else kept for key, kept in common.texts.items())
        return Parts(typed, text, config, hydra)


def plain(override: Override) -> bool:
    """Whether an override sets a value that stands by itself, and that nothing but what refers to it depends on."""
    key, value = override.key_or_group, override.value()
    if override.is_add() or override.is_force_add() or override.is_delete() or not re.fullmatch(r"\w+(\.\w+)*", key):
        return False
    if type(value) not in (int, float, bool, str, type(None)) or value == "???":
        return False
    return not entry(key).path and not key.startswith(APART)


def fits(keys: Sequence[str], cfg: DictConfig) -> bool:
    """Whether a mark can stand for the value of each of these keys, and is found again in all that refers to it."""
    above = {key[:i] for key in keys for i, sign in enumerate(key) if sign == "."}
    if len(set(keys)) < len(keys) or above & set(keys) or not all(_untyped(key, cfg) for key in keys):
        return False
    for _, text in _leaves(OmegaConf.to_container(cfg, resolve=False)):
        if isinstance(text, str) and (NESTED.search(text) or not {*RESOLVER.findall(text)} <= KNOWN):
            return False
    return True


def _untyped(key: str, cfg: DictConfig) -> bool:
    node: Any = cfg
    for name in key.split("."):
        if not isinstance(node, DictConfig) or node._is_interpolation() or name not in node:
            return False
        node = node._get_node(name)
    return type(node) is AnyNode


def _plain(cfg: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    values.pop("hydra")
    return dict(values)


def _leaves(node: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    inside: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inside:
        if isinstance(value, dict | list) and value:
            yield from _leaves(value, (*at, name))
        else:
            yield (*at, name), value


ANY = re.compile("|".join([MARK.format(r"\w+"), str(NUMBER)]))


def _marked(value: Any) -> bool:
    return value == NUMBER or (isinstance(value, str) and ANY.search(value) is not None)


def _put(value: Any, given: Mapping[Any, Any]) -> Any:
    """A value with what is given in the place of its marks; marks of which nothing is given yet stay."""
    if not isinstance(value, str):
        return given.get(value, value)
    if value in given:
        return given[value]
    return ANY.sub(lambda found: str(given.get(_key(found[0]), found[0])), value)


def _key(mark: str) -> str | int:
    return NUMBER if mark == str(NUMBER) else mark
