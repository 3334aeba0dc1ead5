"""The Hydra app around a run, single or many: what is done with a config once it is composed."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from straylight import config, habits
from straylight.console import say
from straylight.errors import ConfigError, Interrupted
from straylight.folder import RunFolder, SweepFolder
from straylight.groups import FOLDER
from straylight.job.attempt import attempt
from straylight.job.devices import asked_for, rank_here
from straylight.job.order import Order, fields_of, keep_hydra, placed
from straylight.overrides import composable
from straylight.result import headline
from straylight.sweep.command import Command
from straylight.sweep.figures import without_figures
from straylight.sweep.lease import leased

log = logging.getLogger(__name__)


def run_hydra(command: Command, options: list[str], overrides: list[str], here: Path | None = None) -> None:
    """Run Hydra's app, from another folder if one is given."""
    if any(o.startswith("experiment=sweep/") for o in overrides) and not {"--cfg", "-c", "--info", "-i"} & set(options):
        options = [*options, "-m"]  # it says so itself, but is heard only where all else of the command is right
    sys.argv = ["straylight train", *options, *composable(overrides)]
    # otherwise Hydra prints errors its own way and exits; the user's own setting is kept in mind
    os.environ.setdefault("STRAYLIGHT_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def task(cfg: DictConfig) -> float | None:
        return _job(command, cfg)

    task.command = command  # type: ignore[attr-defined]
    with chdir(here or Path()):
        hydra.main(version_base=config.HYDRA, config_path=str(FOLDER), config_name="train")(task)()


@contextmanager
def concluded(command: Command) -> Iterator[None]:
    """Say in the end what the sweep reached that ran in here, if one did, as far as it came, and what to type next."""
    interrupted = False
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        interrupted = True
        raise
    finally:  # whatever happened
        if command.sweep is not None:
            _conclude(command, command.sweep, interrupted)


def _job(command: Command, cfg: DictConfig) -> float | None:
    """One job of the Hydra app. A failure is reported and counted, so that the other jobs of a sweep go on."""
    job = HydraConfig.get()
    config.settle_paths(cfg, job.runtime.cwd)  # with hydra.job.chdir we are elsewhere
    single = job.mode == RunMode.RUN
    if not single:
        command.sweep = Path(job.sweep.dir).absolute()
    if not single and command.resume:
        raise ConfigError("A sweep is resumed by hydra/launcher=local alone; other launchers know jobs by number only.")
    known: Any = OmegaConf.to_container(job, resolve=False, enum_to_str=True)  # as typed, ${...} and all
    overrides = known["overrides"]["task"]
    if not single:
        without_figures(cfg, overrides)
    folder = RunFolder(job.runtime.output_dir)
    if single and (said := _habit(cfg)) is not None:
        folder.take_back(job.output_subdir)  # which Hydra has made by now
        command.failures += 1
        say(f"Error: {said}", error=True)
        return None
    try:
        with leased(folder.path, alone=True, what="run") if single and rank_here() in (None, 0) else nullcontext():
            if folder.used:
                folder.clear_logs()
            keep_hydra(folder, known)
            result = run_here(command, cfg, folder, fields_of(cfg, job.runtime.choices, overrides))
    except ConfigError as error:  # Hydra would show more than it says
        command.failures += 1
        say(f"Error: {error}", error=True)
        return None
    if result is None:
        return None
    log.info(("" if single else f"#{job.job.num} ") + headline(result))
    if single:
        show_next(command, folder.path)
    return result.get("metrics", {}).get("test/auroc")


def _habit(cfg: DictConfig) -> str | None:
    """What is to be said of what is typed out of habit, before there is a run."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    try:
        habits.refuse(plain)
    except ConfigError as error:
        return str(error)
    return None


def run_here(
    command: Command,
    cfg: DictConfig,
    folder: RunFolder,
    fields: dict[str, Any],
    *,
    resume: bool = False,
    again: Sequence[str] = (),
) -> Any:
    """Train in `folder`, by as many processes as the config asks for; `None`, after it was said why, if it failed.

    Args:
        command: counts failures.
        cfg: the composed config.
        folder: of the run.
        fields: what `result.json` is to say of what was asked for.
        resume: whether to go on from a checkpoint there.
        again: overrides to be typed once more to go on after an interruption.

    Raises:
        Interrupted: if it was, after it was said how to go on.
    """
    ranks = asked_for(cfg.trainer).ranks if rank_here() is None else 1
    result: Any
    try:
        order = placed(cfg, folder, fields, resume=resume, ranks=ranks)
    except OmegaConfBaseException as error:
        result = {"metrics": {}, "latency": [], **fields, "status": "failed", "reason": config.explain(error)}
        folder.write_result(result)
    else:
        result = _ranks(order, folder) if ranks > 1 else attempt(order, folder)
    if result["status"] == "ok":
        return result
    if result["status"] == "interrupted":
        typed = shlex.join([f"resume={as_typed(command, folder.path)}", *again])
        say(f"\nInterrupted. To go on where it stopped: straylight train {typed}", error=True)
        raise Interrupted
    command.failures += 1
    say(f"Error: {result['reason']}", error=True)
    return None


def _ranks(order: Order, folder: RunFolder) -> Any:
    from straylight.engines.local.foreground import run_ranks

    return run_ranks(order, folder)


def _conclude(command: Command, folder: Path, interrupted: bool) -> None:
    from straylight.report.page import report

    typed = as_typed(command, folder)
    if SweepFolder(folder).has_results:
        report(Path(typed))
        show_next(command, folder)
    if interrupted:
        say(f"\nInterrupted. To go on where it stopped: straylight train -m resume={shlex.quote(typed)}")


def show_next(command: Command, folder: Path) -> None:
    shown = as_typed(command, folder)
    typed = shlex.quote(shown)
    say(f"\nFolder: {shown}\nNext:   straylight report {typed}\n        tensorboard --logdir {typed}")


def as_typed(command: Command, folder: Path) -> str:
    """A folder as it would be typed where the command was."""
    relative = os.path.relpath(folder, command.here)
    return str(folder) if relative.startswith("..") else relative
