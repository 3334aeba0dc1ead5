"""`straylight train`: the Hydra app around a run, single or many."""

import logging
import os
import shlex
import signal
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from straylight import config
from straylight.errors import ConfigError, Interrupted, StraylightError
from straylight.folder import RunFolder, SweepFolder
from straylight.groups import CONFIG_DIR, FOLDER, GROUPS, config_folders
from straylight.job.attempt import attempt
from straylight.job.devices import asked_for
from straylight.job.order import Order, fields_of, placed
from straylight.keys import KEYS, entry, key_of
from straylight.overrides import composable, from_here, merged, quoted, readable
from straylight.result import headline
from straylight.sweep.command import Command
from straylight.sweep.lease import leased

log = logging.getLogger(__name__)

#: Hydra's options that are followed by a value.
VALUED = {*CONFIG_DIR, "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"}


def main(arguments: list[str]) -> None:
    """Run the Hydra app on these arguments; exits with status 1 if a run failed, 130 if one was interrupted."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a terminal that is closed; nohup says otherwise
        signal.signal(signal.SIGHUP, _as_interrupt)
    options, overrides = _parted(arguments)
    resumed = [o.removeprefix("resume=") for o in overrides if o.startswith("resume=")]
    overrides = [readable(o) for o in overrides if not o.startswith("resume=")]
    command = Command()
    if not resumed:
        _guarded(lambda: _hydra(command, options, overrides))
    elif {"-m", "--multirun"} & set(options) or SweepFolder(resumed[-1]).multirun.is_file():
        _guarded(lambda: _resume_sweep(command, Path(resumed[-1]), options, overrides))
    else:
        sys.argv = ["straylight train", *arguments]
        _guarded(lambda: resume(command, RunFolder(resumed[-1]), [*options, *overrides]))
    if command.failures:
        sys.exit(1)


def _hydra(command: Command, options: list[str], overrides: list[str], here: Path | None = None) -> None:
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
    interrupted = False
    try:
        with chdir(here or Path()):
            hydra.main(version_base=config.HYDRA, config_path=str(FOLDER), config_name="train")(task)()
    except (KeyboardInterrupt, Interrupted):
        interrupted = True
        raise
    finally:  # whatever happened
        if command.sweep is not None:
            _conclude_sweep(command.sweep, interrupted)


def _job(command: Command, cfg: DictConfig) -> float | None:
    """One job of the Hydra app. A failure is reported and counted, so that the other jobs of a sweep go on."""
    job = HydraConfig.get()
    single = job.mode == RunMode.RUN
    if not single:
        command.sweep = Path(job.sweep.dir).absolute()
    if not single and command.resume:
        raise ConfigError("A sweep is resumed by hydra/launcher=local alone; other launchers know jobs by number only.")
    overrides: Any = OmegaConf.to_container(job.overrides.task, resolve=False)  # as typed, ${...} and all
    folder = RunFolder(job.runtime.output_dir)
    if folder.used:
        folder.clear_logs()
    result = _perform(command, cfg, folder, fields_of(cfg, job.runtime.choices, overrides))
    if result is None:
        return None
    log.info(("" if single else f"#{job.job.num} ") + headline(result))
    if single:
        _next(folder.path)
    return result.get("metrics", {}).get("test/auroc")


def _perform(
    command: Command, cfg: DictConfig, folder: RunFolder, fields: dict[str, Any], *, resume: bool = False
) -> Any:
    """Train in `folder`, by as many processes as the config asks for; `None`, after it was said why, if it failed.

    Raises:
        Interrupted: if it was, after it was said how to go on.
    """
    ranks = 1 if "LOCAL_RANK" in os.environ else asked_for(cfg.trainer).ranks
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
        print(
            f"\nInterrupted. To go on where it stopped: straylight train resume={shlex.quote(_shown(folder.path))}",
            file=sys.stderr,
        )
        raise Interrupted
    command.failures += 1
    print(f"Error: {result['reason']}", file=sys.stderr)
    return None


def _ranks(order: Order, folder: RunFolder) -> Any:
    from straylight.engines.local.foreground import run_ranks

    return run_ranks(order, folder)


def resume(command: Command, folder: RunFolder, overrides: list[str]) -> None:
    """Go on with an interrupted run, in its own folder, with its own config.

    Raises:
        ConfigError: if the folder is not a run's, or an override names a key that its config does not have.
    """
    cfg = config.saved(folder)
    result = folder.read()
    if result and result["status"] == "ok" and not overrides:
        print(f"{folder} is finished; there is nothing to resume.")
        return
    if unknown := [o for o in overrides if "=" not in o or key_of(o) in GROUPS or not entry(key_of(o)).resumable]:
        may = [key for key, known in KEYS.items() if known.resumable and not entry(key.rpartition(".")[0]).resumable]
        raise ConfigError(
            f"A run is resumed with its own data and detector: {unknown[0]!r} cannot be changed, only values of "
            f"{', '.join(may)}, such as trainer.max_epochs=50."
        )
    if not folder.hydra.is_file():
        raise ConfigError(f"{folder} cannot be resumed: it has no .hydra/hydra.yaml.")
    its_own: Any = OmegaConf.to_container(OmegaConf.load(folder.hydra), resolve=False)
    OmegaConf.set_struct(cfg, True)
    cfg.merge_with_dotlist(overrides)
    config.settle_paths(cfg)
    config.check(cfg)
    started = its_own["hydra"]
    given = [*started["overrides"]["task"], *overrides]
    fields = fields_of(cfg, started["runtime"]["choices"], given, [f"resume={folder}", *overrides])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    finished = _perform(command, cfg, folder, fields, resume=True)
    if finished is not None:
        log.info(headline(finished))
        _next(folder.path)


def _resume_sweep(command: Command, folder: Path, options: list[str], typed: list[str]) -> None:
    """Go on with a sweep in its folder, as it was asked for, but for what is typed in the place of that.

    Raises:
        ConfigError: if the folder is none of a sweep, or a sweep runs in it.
    """
    multirun = SweepFolder(folder).multirun
    if not multirun.is_file():
        raise ConfigError(f"{folder} is not the folder of a sweep: it holds no {multirun.name}.")
    saved: Any = OmegaConf.to_container(OmegaConf.load(multirun), resolve=False)
    its_own, runtime = saved["hydra"]["overrides"], saved["hydra"]["runtime"]
    before = [o for o in (*its_own["hydra"], *its_own["task"]) if key_of(o) != "hydra.mode"]
    folders, options = config_folders(options)
    own = folders or [
        Path(s["path"]) for s in runtime["config_sources"] if s["provider"] == "command-line" and s["path"]
    ]
    options = [*options, *(part for path in own for part in ("--config-dir", str(path.absolute())))]
    started = Path(runtime["cwd"])
    place = f"hydra.sweep.dir={quoted(str(folder.absolute()))}"
    command.resume = True
    with leased(folder, alone=True):  # and from where it was started: its relative paths were meant from there
        here = started if started.is_dir() else None
        _hydra(command, [*options, "-m"], merged(before, [from_here(o) for o in typed], [place]), here)


def _conclude_sweep(folder: Path, interrupted: bool = False) -> None:
    """What a sweep reached, as far as it came, and what to type next."""
    from straylight.report.page import report

    if SweepFolder(folder).has_results:
        report(Path(_shown(folder)))
        _next(folder)
    if interrupted:
        print(f"\nInterrupted. To go on where it stopped: straylight train -m resume={shlex.quote(_shown(folder))}")


def _next(folder: Path) -> None:
    shown = _shown(folder)
    typed = shlex.quote(shown)
    print(f"\nFolder: {shown}\nNext:   straylight report {typed}\n        tensorboard --logdir {typed}")


def _shown(folder: Path) -> str:
    """A folder as it would be typed from here."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def _guarded(app: Any) -> None:
    try:
        app()
    except KeyboardInterrupt:
        raise Interrupted from None
    except Exception as error:
        if os.environ.get("STRAYLIGHT_FULL_ERROR") == "1":
            raise
        if isinstance(error, StraylightError):
            sentence: str | None = str(error)
        elif isinstance(error, OSError) and error.filename:
            sentence = f"{error.filename} cannot be written or read: {error.strerror}."
        else:
            sentence = config.explain(error)
        if sentence is None:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(1)


def _parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options and overrides: Hydra's parser wants options first; people type them where they come to mind."""
    options, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        options.append(argument)
        if argument in VALUED:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, overrides


def _as_interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
