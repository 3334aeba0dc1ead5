"""The Hydra app around a run, single or many: what is done with a config once it is composed."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from straylight import config, habits
from straylight.commands.pages import asked_for as page_asked_for
from straylight.commands.pages import write_run
from straylight.commands.typed import MANY
from straylight.console import say
from straylight.errors import ConfigError, Interrupted
from straylight.folder import RunFolder, SweepFolder
from straylight.groups import FOLDER
from straylight.job.attempt import attempt
from straylight.job.devices import asked_for
from straylight.job.order import Order, fields_of, keep_hydra, parts_of, placed
from straylight.keys import key_of
from straylight.loading import loading
from straylight.objective import returned
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
    if MANY & set(options) or any(key_of(o) == "hydra.mode" for o in overrides):
        alone(command)
    sys.argv = ["straylight train", *options, *composable(overrides)]
    # otherwise Hydra prints errors its own way and exits; the user's own setting is kept in mind
    os.environ.setdefault("STRAYLIGHT_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def task(cfg: DictConfig) -> float | None:
        return _job(command, cfg)

    task.command = command  # type: ignore[attr-defined]
    with chdir(here or Path()):
        hydra.main(version_base=config.HYDRA, config_path=str(FOLDER), config_name="train")(task)()


def alone(command: Command) -> None:
    """See that a sweep was not started as several ranks.

    Raises:
        ConfigError: if it was.
    """
    if command.leader is not None:
        raise ConfigError(
            f"A sweep starts processes of its own, and {command.leader.world.size} ranks of it were started: type it "
            "without srun or torchrun; they are for a single run."
        )


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


def _job(command: Command, cfg: DictConfig) -> Any:
    """One job of the Hydra app. A failure is reported and counted, so that the other jobs of a sweep go on."""
    job = HydraConfig.get()
    config.settle_paths(cfg, job.runtime.cwd)  # with hydra.job.chdir we are elsewhere
    single = job.mode == RunMode.RUN
    if not single:
        command.sweep = Path(job.sweep.dir).absolute()
    if not single and command.resume:
        raise ConfigError(
            "A sweep is resumed by hydra/launcher=local, slurm or ray; other launchers know jobs by number only."
        )
    known: Any = OmegaConf.to_container(job, resolve=False, enum_to_str=True)  # as typed, ${...} and all
    overrides = known["overrides"]["task"]
    if not single:
        without_figures(cfg, overrides)
    folder = RunFolder(job.runtime.output_dir)
    try:
        with (
            leased(folder.path, alone=True, what="run") if single else nullcontext(),
            _anew(folder, job.output_subdir) if single else nullcontext(),
        ):
            if (fault := config.lacking(cfg) or (_fault(command, cfg) if single else None)) is not None:
                raise ConfigError(fault)
            if folder.used:
                folder.clear_logs()
            keep_hydra(folder, known)
            fields = fields_of(cfg, job.runtime.choices, overrides)
            result = run_here(command, cfg, folder, fields, keep=not single)
    except ConfigError as error:  # Hydra would show more than it says
        command.failures += 1
        command.phases.done()
        say(f"Error: {error}", error=True)
        return None
    finally:
        with suppress(OSError):  # which holds something, and stays
            folder.path.rmdir()
    if result is None:
        return None
    log.info(("" if single else f"#{job.job.num} ") + headline(result))
    if single:
        if OmegaConf.select(cfg, "report.html"):
            say(f"To open in a browser, or to send: {as_typed(command, write_run(folder.path))}")
        show_next(command, folder.path)
    return returned(result)


@contextmanager
def _anew(folder: RunFolder, subdir: str | None) -> Iterator[None]:
    """A run that is refused before it trains leaves no folder, or the one that was there as it was."""
    before = folder.run if folder.used else None
    if folder.used:
        folder.set_aside()
    try:
        yield
    finally:
        if folder.run == before or not folder.begun:
            if folder.aside:
                folder.put_back()
            elif not folder.result.is_file():  # which who crashed or was interrupted leaves
                folder.take_back(subdir)


def _fault(command: Command, cfg: DictConfig) -> str | None:
    """What is wrong with the values of a run's config, before there is a run."""
    try:
        trial = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
        trial.paths.run = "."
        plain: Any = OmegaConf.to_container(trial, resolve=True)
        habits.refuse(plain)
        habits.refuse_ranks(plain["trainer"])
    except (ConfigError, OmegaConfBaseException) as error:
        return config.explain(error) or str(error)
    command.phases("loading torch and Lightning")
    if command.leader is None and asked_for(cfg.trainer).ranks > 1:  # not in the process that waits for others
        from straylight.engines.local.pool import ask, warm

        warm()
        found = ask(config.faults, [plain])
    else:
        with loading():
            found = config.faults([plain])
    return found[0] if found else None


def run_here(
    command: Command,
    cfg: DictConfig,
    folder: RunFolder,
    fields: dict[str, Any],
    *,
    resume: bool = False,
    again: Sequence[str] = (),
    keep: bool = True,
) -> Any:
    """Train in `folder`, by as many processes as the config asks for; `None`, after it was said why, if it failed.

    Args:
        command: counts failures.
        cfg: the composed config.
        folder: of the run.
        fields: what `result.json` is to say of what was asked for.
        resume: whether to go on from a checkpoint there.
        again: overrides to be typed once more to go on after an interruption.
        keep: whether a run that is refused before it trains is kept as a failed one.

    Raises:
        Interrupted: if it was, after it was said how to go on.
        ConfigError: if the config asks for other ranks than there are.
    """
    habits.refuse_ranks(cfg.trainer)
    leader = command.leader
    ranks = asked_for(cfg.trainer).ranks if leader is None else leader.world.size
    if ranks > 1 and leader is None:
        command.phases.done()  # their first process says how far they are
    result: Any
    try:
        nodes = asked_for(cfg.trainer).nodes
        parts = parts_of(cfg, str(folder.path.absolute()))
        order = placed(parts, folder, fields, resume=resume, ranks=ranks, nodes=nodes)
    except OmegaConfBaseException as error:
        result = {"metrics": {}, "latency": [], **fields, "status": "failed", "reason": config.explain(error)}
        folder.write_result(result)
    else:
        if leader is not None:
            result = leader.lead(order, folder, command.phases)
        else:
            result = _ranks(order, folder) if ranks > 1 else attempt(order, folder, command.phases)
    command.phases.done()
    if result["status"] == "ok":
        return result
    if result["status"] == "interrupted":
        typed = shlex.join([f"resume={as_typed(command, folder.path)}", *again])
        say(f"\nInterrupted. To go on where it stopped: straylight train {typed}", error=True)
        raise Interrupted
    command.failures += 1
    say(f"Error: {result['reason']}", error=True)
    if result.get("refused") and not keep and not folder.begun:
        folder.result.unlink(missing_ok=True)
    return None


def _ranks(order: Order, folder: RunFolder) -> Any:
    from straylight.engines.local.foreground import run_ranks

    return run_ranks(order, folder)


def _conclude(command: Command, folder: Path, interrupted: bool) -> None:
    from straylight.report.page import report

    typed = as_typed(command, folder)
    place = SweepFolder(typed)
    if place.has_results:
        report(Path(typed), html=place.page if page_asked_for(place) else None)
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
