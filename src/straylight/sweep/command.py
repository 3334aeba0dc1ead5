"""What one command of `straylight train` is about, as far as a sweep must know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straylight.phases import Phases

if TYPE_CHECKING:
    from straylight.job.lead import Leader


@dataclass
class Command:
    """Handed from the command through Hydra to its launcher, as an attribute of the function that Hydra calls.

    Attributes:
        resume: whether jobs go on with what earlier ones left in their folders.
        failures: jobs that failed, for the exit status.
        sweep: the folder of the sweep that has begun; `None` if there is none.
        trust: what configs may build that came with a folder; `None` where all was typed.
        manifest: of the sweep that is gone on with; `None` of a new one.
        phases: told what is done now.
        leader: of the ranks that somebody else started, this one among them; `None` where this process is alone.
        here: the folder that it was typed in, which need not be the one that a job runs in.
    """

    resume: bool = False
    failures: int = 0
    sweep: Path | None = None
    trust: tuple[str, ...] | None = None
    manifest: Path | None = None
    phases: Phases = field(default_factory=Phases)
    leader: Leader | None = None
    here: Path = field(default_factory=Path.cwd)

    @classmethod
    def of(cls, task: Any) -> Command:
        """That of a function of Hydra's; one of its own where somebody else's calls our launcher."""
        return getattr(task, "command", None) or cls()
