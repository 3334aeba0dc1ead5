"""Pure functions that measure; numpy only, so that reports open without torch."""

from straylight.metrics.pareto import pareto_front
from straylight.metrics.ranking import (
    Ranked,
    auroc,
    average_precision,
    max_sic,
    partial_auroc,
    ranking,
    sic,
    tpr_at_fpr,
)

__all__ = [
    "Ranked",
    "auroc",
    "average_precision",
    "max_sic",
    "pareto_front",
    "partial_auroc",
    "ranking",
    "sic",
    "tpr_at_fpr",
]
