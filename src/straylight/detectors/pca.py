"""Principal component analysis.

Shapes: `B` events, `D` features, `q` components.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.moments import Moments, resolution
from straylight.errors import DataError
from straylight.nn.principal import checked, leading
from straylight.nn.sums import Sums

Variant = Literal["whitened", "reconstruction", "whitened_reconstruction"]


class PCA(Moments):
    """How far an event lies from the training rows, along their principal components or beside them.

    With z the event's coordinates along the eigenvectors of the training rows' covariance and l the variances there:
    `whitened` is the sum of z^2 / l over the first q components (Hotelling's T^2; with all of them the squared
    Mahalanobis distance), `reconstruction` the sum of z^2 over those left out (the squared error of a reconstruction
    from q components), `whitened_reconstruction` the sum of z^2 / l over those left out.

    A direction in which training rows do not vary gets the variance that float32 resolves there, so that an event that
    leaves the plane of the training rows is strange and its score finite. Assumes features of comparable scale.

    References:
        H. Hotelling, Analysis of a complex of statistical variables into principal components, J. Educ. Psychol. 24
        (1933) 417, doi:10.1037/h0071325
        M.-L. Shyu, S.-C. Chen, K. Sarinnapakorn, L. Chang, A novel anomaly detection scheme based on principal
        component classifier, ICDM Foundations workshop 2003 (first and last components)

    Args:
        components: q; below 1 the fraction of the variance that they must hold at least; `None` for all.
        variant: `whitened`, `reconstruction` or `whitened_reconstruction`.
        shape, common: see `FittedDetector`; events are flattened.

    Raises:
        DataError: in training, if no component is left out and the score is an error of reconstruction.

    Example:
        >>> pca = PCA((2,), components=1, variant="reconstruction", scaling="none")
        >>> pca.fit(torch.tensor([[-2., 0.], [2., 0.], [0., 1.], [0., -1.]]), torch.zeros(4, 0), torch.ones(4))
        >>> pca(torch.tensor([[9., 0.], [0., 3.]]))
        tensor([0., 9.])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        components: int | float | None = None,
        variant: Variant = "whitened",
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checked("detector.components", components, self.features)
        checks.one_of("detector", Variant, variant=variant)
        self.components, self.variant = components, variant

    def solve(self, sums: Sums) -> Tensor:
        variances, vectors = torch.linalg.eigh(sums.covariance * (sums.weight / (sums.weight - 1)))
        variances, vectors = variances.flip(0).clamp_min(0), vectors.flip(1)
        q = leading(variances, self.components)
        kept = slice(None, q) if self.variant == "whitened" else slice(q, None)
        if self.variant != "whitened" and q == self.features:
            raise DataError(
                f"PCA leaves out none of {self.features} components, so that every reconstruction is perfect; lower "
                "detector.components or set detector.variant=whitened."
            )
        if self.variant != "reconstruction":
            vectors = vectors / variances.clamp_min(resolution(variances)).sqrt()
        return vectors[:, kept]
