"""JSON and YAML as runs keep them, small and flat, read so that no other takes for ever or refers to itself."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES, MOST_DEEP = 2**20, 50  # of a config


def read_json(path: str | Path) -> Any:
    """Read plain values.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
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
        depth = 0
        for event in yaml.parse(text, Loader=quick):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MOST_DEEP:
                raise ValueError("it is nested, or refers to itself, as no config does")
        return yaml.load(text, Loader=loader or quick)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error
