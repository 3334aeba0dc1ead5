"""Classification without labels: the signal region against its sidebands."""

from straylight.detectors.over_density import Rows
from straylight.detectors.weak import Sample, WeaklySupervised, joined, some


class CWoLa(WeaklySupervised):
    """Tells events of the signal region from those of the sidebands.

    If background has the same features in both, the best classifier of the regions is the best of signal and
    background: p_region / p_sidebands is a rising function of p_signal / p_background, whatever the fractions are.
    Where the features hang on the mass, the classifier learns the mass instead.

    References:
        E. M. Metodiev, B. Nachman, J. Thaler, Classification without labels, JHEP 10 (2017) 174, arXiv:1708.02949
        J. H. Collins, K. Howe, B. Nachman, Anomaly detection for resonant new physics with machine learning, Phys. Rev.
        Lett. 121 (2018) 241803, arXiv:1805.02664

    Args:
        shape, classifier, trees, mlp, folds, common: see `WeaklySupervised`.

    Example:
        >>> import torch
        >>> CWoLa((4,), context=1, folds=2)(torch.zeros(3, 4), torch.zeros(3, 1)).tolist()  # nothing is learned yet
        [0.0, 0.0, 0.0]
    """

    def samples(self, rows: Rows, truth: Rows | None) -> list[Sample]:
        return [joined(some(rows, rows.of(k, True)), some(rows, rows.of(k, False))) for k in range(self.models)]
