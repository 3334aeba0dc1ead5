"""What a run can be exported to, by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from straylight.export.written import GRAPHS, Written, to_folder

#: What writes a run into a folder, given a `straylight.run.Run` and the folder. A further target is one more entry.
TARGETS: dict[str, Callable[[Any, Path], Written]] = {name: partial(to_folder, to=name) for name in GRAPHS}
