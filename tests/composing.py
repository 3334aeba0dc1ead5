"""What Hydra's compositions have in common, kept for the next one in this process.

To compose a config Hydra reads some twenty files and merges them, which takes longer than to train a small detector.
Here the list of files and what they are merged to are kept by the groups that were chosen; what else was typed is
applied to a copy, by Hydra. A composition that looks into a folder other than our own `conf`, as one of a test's, is
made as ever. Programs that are started by `fresh` know nothing of this.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import DefaultsList

from straylight.groups import FOLDER

#: As Hydra has them.
list_them, merge = config_loader_impl.create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list
OURS = {f"file://{FOLDER}", "pkg://hydra.conf", "structured://"}


def _places(repo: Any) -> tuple[str, ...] | None:
    """Where Hydra looks for files, if nobody changes any of them."""
    found = tuple(source.full_path() for source in repo.get_sources() if source.path)
    return found if OURS.issuperset(found) else None


@contextmanager
def kept() -> Iterator[None]:
    """Keep them, until the end."""
    lists: dict[Any, DefaultsList] = {}
    merged: dict[Any, Any] = {}

    def listed(repo: Any, config_name: Any, overrides_list: Any, **how: bool) -> DefaultsList:
        places = _places(repo)
        if places is None:
            return list_them(repo, config_name, overrides_list, **how)
        groups, values = [], []
        for override in overrides_list:  # as `Overrides` tells them apart
            if not override.is_sweep_override():
                of_a_group = repo.group_exists(override.key_or_group) and not isinstance(override.value(), dict)
                (groups if of_a_group else values).append(override)
        key = (places, config_name, tuple(override.input_line for override in groups), *sorted(how.items()))
        if key not in lists:
            lists[key] = list_them(repo, config_name, overrides_list, **how)
        known = lists[key]
        return DefaultsList(known.defaults, known.defaults_tree, values, known.overrides)

    def composed(self: ConfigLoaderImpl, defaults: Any, repo: Any) -> Any:
        places = _places(repo)
        if places is None:
            return merge(self, defaults=defaults, repo=repo)
        key = (places, tuple(map(repr, defaults)))
        if key not in merged:
            merged[key] = merge(self, defaults=defaults, repo=repo)
        return copy.deepcopy(merged[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_loader_impl, "create_defaults_list", listed)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", composed)
        yield
