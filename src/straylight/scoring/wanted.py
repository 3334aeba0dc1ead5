"""What is wanted of every row beside its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from straylight.files.fitting import Rules
from straylight.metrics.judge import Cut

AS_USUAL = Rules()


@dataclass(frozen=True)
class Wanted:
    """What is wanted of every row beside its score.

    Attributes:
        cuts: thresholds, of which each flags.
        rules: what is done about rows that do not fit.
        keep: columns of the file.
        members: whether the scores of an ensemble's members are wanted.
        explain: how many of the features that contribute most.
        top: how many of the strangest rows are told.
    """

    cuts: tuple[Cut, ...] = ()
    rules: Rules = AS_USUAL
    keep: tuple[str, ...] = ()
    members: bool = False
    explain: int = 0
    top: int = 0

    @property
    def leaves_out(self) -> bool:
        """Whether a row may be left without a score."""
        return "skip" in self.rules

    def flag(self, cut: Cut) -> str:
        """What the column of a threshold is called."""
        return "flag" if len(self.cuts) == 1 else f"flag_{cut.name}"

    def identity(self) -> dict[str, Any]:
        """What tells it from another, in plain values."""
        return {
            "cuts": [list(cut) for cut in self.cuts],
            "rules": list(self.rules),
            "keep": list(self.keep),
            "members": self.members,
            "explain": self.explain,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which `of_json` makes it again."""
        return {**self.identity(), "top": self.top}

    @classmethod
    def of_json(cls, known: Mapping[str, Any]) -> Wanted:
        """What `to_json` made plain values of."""
        cuts = tuple(Cut(*cut) for cut in known["cuts"])
        return cls(**{**known, "cuts": cuts, "rules": Rules(*known["rules"]), "keep": tuple(known["keep"])})
