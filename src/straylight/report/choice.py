"""Which figures a run draws: the names there are, and those that are essential. Light, since every run reads it.

The rule: a run draws `losses`, `scores` and `roc` by itself, those of them that apply, and of `OWN`, which show what is
peculiar to its detector and its data, the first two that apply. In a plane these are `plane` and `detected`; of a
detector with codes `reconstructions` and `latent_2d`; of any other `extremes` and `data`. Where a signal is looked for
in the spectrum of a resonance they are `spectrum`, or `sculpting` where nothing was fitted, and `significance`. A job
of a sweep draws none unless it is told which. All others are drawn when they are asked for.
"""

from collections.abc import Callable, Collection, Sequence

#: All figures, in the order of being drawn; see `straylight.callbacks.drawings`.
NAMES = (
    "data",
    "particles",
    "losses",
    "auroc_by_epoch",
    "scores",
    "selected",
    "confusion",
    "p_values",
    "roc",
    "precision_recall",
    "significance",
    "spectrum",
    "sculpting",
    "plane",
    "detected",
    "score_plane",
    "latent_2d",
    "latent_3d",
    "latent_normal",
    "reconstructions",
    "extremes",
    "contributions",
    "samples",
    "manifold",
)
ESSENTIAL, ALL = "essential", "all"
ALWAYS = ("losses", "scores", "roc")
RESONANT, WITH_IT = ("spectrum", "sculpting"), "significance"  # the first that applies, and what is drawn beside it
OWN, MOST_OWN = ("plane", "detected", "reconstructions", "latent_2d", "latent_normal", "extremes", "data"), 2

Only = str | tuple[str, ...]


def understood(only: str | Sequence[str] | None, key: str = "callbacks.figures.only") -> Only:
    """What was asked for: `essential`, `all`, or names; one name is a list of one, and `None` is `all`.

    Raises:
        ValueError: if a name is none of a figure's.

    Example:
        >>> understood("roc"), understood(["roc", "scores"]), understood("all"), understood([])
        (('roc',), ('roc', 'scores'), 'all', ())
    """
    if only is None:
        return ALL
    names = (only,) if isinstance(only, str) else tuple(dict.fromkeys(only))
    if names in ((ESSENTIAL,), (ALL,)):
        return names[0]
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(
            f"{key} knows {', '.join(NAMES)}, or {ESSENTIAL} or {ALL} alone, and not {', '.join(map(str, unknown))}"
        )
    return names


def each(only: Only, draws: Callable[[str], bool]) -> None:
    """Try the figures that were asked for, one by one; `draws` says whether a figure applies.

    Example:
        >>> tried = []
        >>> each("essential", lambda name: not tried.append(name))
        >>> tried
        ['losses', 'scores', 'roc', 'spectrum', 'significance']
        >>> tried.clear()
        >>> each("essential", lambda name: tried.append(name) or name not in (*RESONANT, "plane"))
        >>> tried
        ['losses', 'scores', 'roc', 'spectrum', 'sculpting', 'plane', 'detected', 'reconstructions']
    """
    if only != ESSENTIAL:
        for name in NAMES if only == ALL else only:
            draws(name)
        return
    for name in ALWAYS:
        draws(name)
    own = int(any(map(draws, RESONANT)))
    own += own and draws(WITH_IT)
    for name in OWN:
        own += own < MOST_OWN and draws(name)


def complete(only: Only, drawn: Collection[str], none: Collection[str]) -> bool:
    """Whether all that was asked for is drawn, where `none` names the figures that do not apply.

    Example:
        >>> complete(("roc", "plane"), ["roc"], ["plane"]), complete("all", ["roc"], ["plane"])
        (True, False)
    """
    missing: list[str] = []

    def draws(name: str) -> bool:
        if name not in drawn and name not in none:
            missing.append(name)
        return name not in none

    each(only, draws)
    return not missing
