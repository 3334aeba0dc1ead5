"""Figures: pure functions from arrays to a matplotlib figure."""

from straylight.report.figures.pareto import pareto

__all__ = ["pareto"]
