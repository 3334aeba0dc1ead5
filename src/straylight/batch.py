"""Where data sets of one's own have imported what flows through the house from; see `straylight.rows.batch`."""

from straylight.rows.batch import HIDDEN, Batch, Events, Group, Scored, Splits

__all__ = ["HIDDEN", "Batch", "Events", "Group", "Scored", "Splits"]
