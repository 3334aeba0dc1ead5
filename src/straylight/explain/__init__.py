"""Why an event is strange: what each feature adds to its score above that of nominal events like it."""

from straylight.explain.contributions import Contributions, contributions, explained_in
from straylight.explain.explainer import Explainer, Explanation
from straylight.explain.features import Features, features_of
from straylight.explain.nearest import Nominal

__all__ = [
    "Contributions",
    "Explainer",
    "Explanation",
    "Features",
    "Nominal",
    "contributions",
    "explained_in",
    "features_of",
]
