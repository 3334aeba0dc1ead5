"""Pure functions that measure; numpy only, so that reports open without torch."""

from straylight.metrics.pareto import pareto_front
from straylight.metrics.ranking import auroc, average_precision, ranking, tpr_at_fpr

__all__ = ["auroc", "average_precision", "pareto_front", "ranking", "tpr_at_fpr"]
