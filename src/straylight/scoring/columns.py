"""What columns of a table of scores are called; see `straylight.rows.origin` for those that name a row."""

from straylight.rows.origin import FILE, ROW

SCORE, P_VALUE, RANK, REASON = "score", "p_value", "rank", "reason"
__all__ = ["FILE", "P_VALUE", "RANK", "REASON", "ROW", "SCORE"]
