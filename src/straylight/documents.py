"""JSON and YAML as runs keep them, small and flat, read so that no other takes for ever or refers to itself."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

MOST_BYTES, MOST_DEEP = 2**20, 50  # of a config
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a character that takes two escapes


def read_json(path: str | Path) -> Any:
    """Read plain values that can be written again.

    NaN and Infinity, which are no JSON, are null, and half a pair of escapes, which is no character, is U+FFFD.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds no JSON.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        value = json.loads(text, parse_constant=lambda _: None)
        if HALF.search(text):
            written = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
            value = json.loads(written.decode("utf-16", "replace"))
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_yaml(path: str | Path, loader: Any = None) -> Any:
    """Read plain values.

    Args:
        path: of the file.
        loader: that makes values of scalars; YAML's own by default.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds no YAML, or more than a config does.
    """
    import yaml

    quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = Path(path).read_bytes()
    if len(text) > MOST_BYTES:
        raise ValueError("it is larger than any config")
    try:
        events, depth = [], 0
        for event in yaml.parse(text, Loader=quick):
            events.append(event)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MOST_DEEP:
                raise ValueError("it is nested, or refers to itself, as no config does")
        if loader is None and sum(isinstance(event, yaml.DocumentStartEvent) for event in events) == 1:
            with suppress(_Unusual):
                return _value(events[2], iter(events[3:]))  # after the beginnings of the stream and the document
        return yaml.load(text, Loader=loader or quick)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def yaml_text(value: Any) -> str:
    """Plain values as the text of a config, in which OmegaConf's loader finds the same: `1e3` in quotes stays a text.

    Example:
        >>> print(yaml_text({"name": "1e3", "note": "it's", "rate": 0.1, "none": None}), end="")
        name: '1e3'
        note: it's
        rate: 0.1
        none: null
    """
    import yaml

    return str(yaml.dump(value, Dumper=_dumper(), sort_keys=False, default_flow_style=False, allow_unicode=True))


@cache
def _dumper() -> Any:
    import yaml
    from omegaconf._utils import is_float, is_int, yaml_is_bool

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, data: str) -> Any:
        quoted = yaml_is_bool(data) or is_int(data) or is_float(data)
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="'" if quoted else None)

    Dumper.add_representer(str, text)
    return Dumper


class _Unusual(Exception):
    """What no config holds, and YAML's own constructor makes something of."""


def _value(event: Any, events: Iterator[Any]) -> Any:
    """What an event begins. YAML's own constructor takes several times as long for the same."""
    import yaml

    if event.tag is not None:
        raise _Unusual
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_value(event, events))
        return items
    found = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise _Unusual
        key = _value(event, events)
        found[key] = _value(next(events), events)
    return found


@lru_cache(maxsize=4096)
def _scalar(text: str) -> Any:
    """What a scalar without quotes says: hundreds of configs hold the same few."""
    import yaml

    if text in ("<<", "="):
        raise _Unusual
    loader = yaml.SafeLoader("")
    return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))
