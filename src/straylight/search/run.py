"""A search from what was typed to what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna.study import StudyDirection

from straylight.atomic import replacing
from straylight.console import say
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.journal import NAME, Journal, opened, study
from straylight.objective import measure, named
from straylight.overrides import quoted
from straylight.search.search import Search
from straylight.search.settings import Settings
from straylight.search.space import Space
from straylight.search.words import found
from straylight.sweep.composer import Composer
from straylight.sweep.manifest import Manifest

QUEUED = 8  # trials at a time where a launcher does not know how many it has room for


def run(
    cfg: DictConfig,
    loader: Any,
    launcher: Launcher,
    typed: Sequence[str],
    own: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    resume: bool,
) -> None:
    """Search, and say what was found.

    Args:
        cfg: the sweep's config.
        loader: of Hydra's configs.
        launcher: runs the trials: one of ours several at once, any other in turns.
        typed: ranges, and overrides of all trials.
        own: overrides of one choice of a group alone, by its name.
        settings: see there.
        resume: whether the folder's search is gone on with.

    Raises:
        ConfigError: if what was typed does not fit, before there is a folder; if the journal is not to be used; if no
            run has what is searched for.
    """
    objectives = named(OmegaConf.to_container(cfg, resolve=False).get("objective") or ())  # type: ignore[union-attr]
    ours = callable(getattr(launcher, "pursue", None))
    space = Space(typed, launcher.compose if ours else Composer(cfg, loader), own, loader)  # type: ignore[attr-defined]
    settings.fit(objectives, space.groups)
    if ours:
        launcher.look_at(space.samples())  # type: ignore[attr-defined]
        at_once = settings.at_once or launcher.room() or QUEUED  # type: ignore[attr-defined]
    elif settings.pruner is not None:
        raise ConfigError("hydra.sweeper.pruner needs hydra/launcher=local, slurm or ray.")
    else:
        at_once = settings.at_once or 1
    folder = SweepFolder(Path(cfg.hydra.sweep.dir).absolute())
    journal = _journal(cfg, folder, objectives, space, resume)
    search = Search(journal, space, objectives, settings, folder, at_once, int(cfg.seed))
    try:
        if ours:
            launcher.pursue(search)  # type: ignore[attr-defined]
        else:
            _in_turns(launcher, search)
    finally:
        for line in found(search, [f"--config-dir={path}" for path in Manifest.of(cfg.hydra).config_dirs]):
            say(line)
    if settings.figures:
        from straylight.search.figures import draw

        draw(search.study, objectives, folder)


def _journal(cfg: DictConfig, folder: SweepFolder, objectives: Sequence[str], space: Space, resume: bool) -> Journal:
    """The journal of the folder's search, which is begun unless the sweep is resumed.

    Raises:
        ConfigError: if there is one already, or another one than was typed.
    """
    path = folder.path / NAME
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(exist_ok=resume)
    except FileExistsError:
        raise ConfigError(
            f"{folder.path} holds a search: go on with it by straylight train -m resume={quoted(str(folder.path))}, or "
            "type another hydra.sweep.dir."
        ) from None
    journal = opened(path)
    ways = {True: StudyDirection.MINIMIZE, False: StudyDirection.MAXIMIZE}
    kept = study(journal, directions=[ways[measure(name).lower] for name in objectives])
    before, told = kept.user_attrs, {"objective": list(objectives), "space": space.told()}
    if changed := [name for name, value in told.items() if before.get(name, value) != value]:
        raise ConfigError(
            f"The search in {folder.path} has another {' and '.join(changed)} than was typed: leave that out to go on "
            "with it, or type another hydra.sweep.dir for a new one."
        )
    for name, value in told.items():
        if name not in before:
            kept.set_user_attr(name, value)
    with replacing(folder.multirun) as aside:  # as Hydra's own sweepers do
        OmegaConf.save(cfg, aside)
    return journal


def _in_turns(launcher: Launcher, search: Search) -> None:
    """By a launcher that knows nothing of searches: so many trials, and when all have ended as many others."""
    while jobs := search.more():
        returns = launcher.launch([job.overrides for job in jobs], initial_job_idx=jobs[0].number)
        for job, returned in zip(jobs, returns, strict=True):
            place = OmegaConf.select(returned.hydra_cfg or OmegaConf.create(), "hydra.runtime.output_dir")
            job.folder = None if place is None else RunFolder(place)
            search.ended(job)
