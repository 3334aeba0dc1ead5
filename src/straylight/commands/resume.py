"""`straylight train resume=FOLDER`: going on with a run or a sweep, whoever made it."""

import logging
from collections.abc import Collection, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from straylight import config
from straylight.commands.app import concluded, run_here, run_hydra, show_next
from straylight.console import say
from straylight.engines.choose import ENGINES
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.groups import FOLDER, GROUPS, config_folders
from straylight.job.order import fields_of
from straylight.job.perform import log_into
from straylight.keys import KEYS, entry, key_of
from straylight.overrides import composable, from_here, merged, quoted, value_of
from straylight.result import headline
from straylight.sweep.command import Command
from straylight.sweep.launcher import POLICY
from straylight.sweep.lease import held, leased
from straylight.sweep.manifest import Manifest
from straylight.trust import check_hydra, typed_in

log = logging.getLogger(__name__)

LAUNCHER, OF = "hydra/launcher", "hydra.launcher."
OWN = {LAUNCHER: ENGINES, "hydra/sweeper": ("grid", "optuna")}


def resume(command: Command, folder: RunFolder, overrides: list[str], trust: Collection[str] = ()) -> None:
    """Go on with an interrupted run, in its own folder, with its own config.

    A run that was finished keeps what it had reached, unless it ends well once more.

    Args:
        command: counts failures.
        folder: of the run.
        overrides: as typed.
        trust: what its config may build, see `Run.open`.

    Raises:
        ConfigError: if the folder is not a run's, another process is at it, its config names what nobody trusts, or an
            override names a key that its config does not have.
    """
    cfg = config.opened(folder, trust)
    with leased(folder.path, alone=True, what="run"):
        if not folder.result.is_file() and held(folder.path.parent):
            raise ConfigError(f"{folder} belongs to a sweep that is running; wait for its end.")
        if folder.put_back():  # what a process that was killed had set aside
            cfg = config.opened(folder, trust)
        result = folder.read()
        if result and result["status"] == "ok" and not overrides:
            say(f"{folder} is finished; there is nothing to resume.")
            return
        chosen = [o for o in overrides if o.startswith("logger=")]  # of which nothing follows for what is computed
        values = [o for o in overrides if o not in chosen]
        if unknown := [o for o in values if "=" not in o or key_of(o) in GROUPS or not entry(key_of(o)).resumable]:
            if entry(group := key_of(unknown[0])).resumable and group in GROUPS:
                raise ConfigError(
                    f"A run is resumed with its own {group}: {unknown[0]!r} cannot be chosen, only its values changed, "
                    "such as trainer.max_epochs=50."
                )
            may = [k for k, known in KEYS.items() if known.resumable and not entry(k.rpartition(".")[0]).resumable]
            raise ConfigError(
                f"A run is resumed with its own data and detector: {unknown[0]!r} cannot be changed, only values of "
                f"{', '.join(may)}, such as trainer.max_epochs=50."
            )
        typed = {key_of(o) for o in overrides}
        longer = typed & {"trainer.max_epochs", "trainer.max_steps", "trainer.max_time"}
        waiting = any(key.startswith("callbacks.early_stopping") for key in typed)
        if result and result.get("stopped_early") and longer and not waiting:
            raise ConfigError(
                f"Early stopping has ended {folder}, however long it may train: type callbacks.early_stopping=null, or "
                "a larger callbacks.early_stopping.patience, too."
            )
        if not folder.hydra.is_file():
            raise ConfigError(f"{folder} cannot be resumed: it has no .hydra/hydra.yaml.")
        started: Any = OmegaConf.to_container(config.read(folder.hydra), resolve=False)  # as typed, ${...} and all
        known = started.get("hydra") or {}
        OmegaConf.set_struct(cfg, True)
        if chosen:
            with open_dict(cfg):
                cfg.logger = _composed([], chosen, RunMode.RUN)["logger"]
        cfg.merge_with_dotlist([o for o in values if not o.startswith("+")])
        with open_dict(cfg):
            cfg.merge_with_dotlist([o.lstrip("+") for o in values if o.startswith("+")])
        config.settle_paths(cfg)
        config.check(cfg)
        try:
            given, choices = [*known["overrides"]["task"], *overrides], dict(known["runtime"]["choices"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{folder.hydra} is not what Hydra writes of a run.") from error
        fields = fields_of(cfg, choices, given, [f"resume={folder}", *overrides])
        log_into(folder)
        with _kept(folder, bool(result and result["status"] == "ok")) as ended:
            finished = run_here(command, cfg, folder, fields, resume=True, again=overrides)
            ended.append(finished is not None)
        if finished is not None:
            log.info(headline(finished))
            show_next(command, folder.path)


@contextmanager
def _kept(folder: RunFolder, finished: bool) -> Iterator[list[bool]]:
    """Set aside what a finished run has reached, and put it back unless what is done here ends well."""
    ended: list[bool] = []
    if finished:
        folder.set_aside()
    try:
        yield ended
    finally:
        if finished and not any(ended):
            folder.put_back()
            say(f"What {folder} had reached before stands as it was.", error=True)
        folder.forget_aside()


def resume_sweep(
    command: Command, folder: SweepFolder, options: list[str], typed: list[str], trust: Collection[str] = ()
) -> None:
    """Go on with all sweeps of a folder, as they were asked for, but for what is typed in the place of that.

    Args:
        command: counts failures.
        folder: of the sweeps.
        options, typed: Hydra's options and the overrides that were typed.
        trust: what their configs may build, see `Run.open`.

    Raises:
        ConfigError: if the folder is none of a sweep, a sweep runs in it, or it names what nobody trusts.
    """
    found = Manifest.all(folder)
    if not found:
        raise ConfigError(f"{folder.path} is not the folder of a sweep: it holds no {folder.multirun.name}.")
    typed_folders, options = config_folders(options)
    place = f"hydra.sweep.dir={quoted(str(folder.path.absolute()))}"
    typed = [from_here(o) for o in typed]
    free = {*trust, *typed_in(typed_folders, typed)}
    asked = []
    for manifest in found:
        manifest.overrides, dropped = launched(manifest.overrides, typed)
        if dropped:
            say(f"Another launcher than before takes no {', '.join(dropped)}: left out.")
        standard = _composed(typed_folders, [*own_plugins(manifest.overrides), *typed, place], RunMode.MULTIRUN)
        started = Path(manifest.cwd)  # its relative paths were meant from there
        here = started if started.is_dir() else Path.cwd()
        dirs = [path.absolute() for path in typed_folders or map(Path, manifest.config_dirs)]
        overrides = merged([o for o in manifest.overrides if key_of(o) != "hydra.mode"], typed, [place])
        with chdir(here):  # before Hydra runs anything
            check_hydra(_composed(dirs, overrides, RunMode.MULTIRUN)["hydra"], standard["hydra"], free)
        asked.append((manifest, here, [*options, *(f"--config-dir={path}" for path in dirs), "-m"], overrides))
    command.resume, command.trust = True, tuple(free)
    with leased(folder.path, alone=True), concluded(command):
        for manifest, here, given, overrides in asked:
            command.manifest = manifest.path
            run_hydra(command, given, overrides, here)


def launched(before: list[str], typed: list[str]) -> tuple[list[str], list[str]]:
    """What a sweep was asked for, without what its launcher was told if another one goes on with it; the keys of that.

    What every launcher of ours knows stays: how often a job is tried again, and the like.

    Example:
        >>> launched(["hydra.launcher.n_jobs=2", "hydra.launcher.retry=1", "seed=0,1"], ["hydra/launcher=slurm"])
        (['hydra.launcher.retry=1', 'seed=0,1'], ['hydra.launcher.n_jobs'])
    """
    was = [value_of(o) for o in before if key_of(o) == LAUNCHER] or ["local"]
    now = [value_of(o) for o in typed if key_of(o) == LAUNCHER] or was
    if was[-1] == now[-1]:
        return before, []
    own = [key for o in before if (key := key_of(o)).startswith(OF) and key.removeprefix(OF) not in POLICY]
    return [o for o in before if key_of(o) not in own], own


def own_plugins(overrides: list[str]) -> list[str]:
    """The choice of a launcher and a sweeper, as far as they are ours, whose settings are known then."""
    return [o for o in overrides if value_of(o) in OWN.get(key_of(o), ())]


def _composed(folders: list[Path], overrides: list[str], mode: RunMode) -> Any:
    """A config with Hydra's own part, as plain values; nothing is built of it."""
    search = create_config_search_path(str(FOLDER))
    for path in folders:
        search.prepend(
            provider="command-line", path=f"file://{path.absolute()}", anchor=SearchPathQuery(provider="schema")
        )
    try:
        composer = Hydra.create_main_hydra2("train", search)
        cfg = composer.compose_config("train", composable(overrides), mode)
        return OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    finally:
        GlobalHydra.instance().clear()
