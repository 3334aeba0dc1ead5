"""`straylight train`: the Hydra app around a run, single or many."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from straylight import config
from straylight.errors import ConfigError, Interrupted, StraylightError
from straylight.groups import FOLDER
from straylight.job.devices import asked_for
from straylight.launcher.held import held

log = logging.getLogger(__name__)

HYDRA = "1.3"  # whose behaviour is asked for
_failures = 0
#: Whether the job of this process goes on with what an earlier one left in its folder.
resuming = False
#: What `result.json` says of what was asked for, where the launcher of the job knows.
asked: Mapping[str, Any] | None = None
#: What may be changed when a run is resumed: how long and where it runs, not what it computes.
RESUMABLE = ("trainer.", "callbacks.", "logger.", "paths.data=", "threads=")
CONFIG_DIR = {"--config-dir", "-cd"}
#: Hydra's options that are followed by a value.
VALUED = {*CONFIG_DIR, "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"}


def main(arguments: list[str]) -> None:
    """Run the Hydra app on these arguments; exits with status 1 if a run failed, 130 if one was interrupted."""
    global resuming, _failures
    resuming, _failures = False, 0
    signal.signal(signal.SIGTERM, _as_interrupt)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a terminal that is closed; nohup says otherwise
        signal.signal(signal.SIGHUP, _as_interrupt)
    options, overrides = _parted(arguments)
    resumed = [o.removeprefix("resume=") for o in overrides if o.startswith("resume=")]
    overrides = [o for o in overrides if not o.startswith("resume=")]
    if not resumed:
        _guarded(lambda: _hydra(options, overrides))
    elif {"-m", "--multirun"} & set(options) or Path(resumed[-1], "multirun.yaml").is_file():
        _guarded(lambda: _resume_sweep(Path(resumed[-1]), options, overrides))
    else:
        sys.argv = ["straylight train", *arguments]
        _guarded(lambda: resume(Path(resumed[-1]), [*options, *overrides]))
    if _failures:
        sys.exit(1)


def _hydra(options: list[str], overrides: list[str], here: Path | None = None) -> None:
    """Run Hydra's app, from another folder if one is given."""
    if any(o.startswith("experiment=sweep/") for o in overrides) and not {"--cfg", "-c", "--info", "-i"} & set(options):
        options = [*options, "-m"]  # it says so itself, but is heard only where all else of the command is right
    # Hydra composes what is not swept over on top of the default of a group that is, which need not have the key
    swept = tuple(f"{o.partition('=')[0]}." for o in overrides if "," in o and "." not in o.partition("=")[0])
    sys.argv = ["straylight train", *options, *(_as_choice(o) if o.startswith(swept) else o for o in overrides)]
    # otherwise Hydra prints errors its own way and exits; the user's own setting is kept in mind
    os.environ.setdefault("STRAYLIGHT_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    Begun.sweep = None
    interrupted = False
    try:
        with chdir(here or Path()):
            hydra.main(version_base=HYDRA, config_path=str(FOLDER), config_name="train")(task)()
    except (KeyboardInterrupt, Interrupted):
        interrupted = True
        raise
    finally:  # whatever happened
        if Begun.sweep is not None:
            conclude_sweep(Begun.sweep, interrupted)


def task(cfg: DictConfig) -> float | None:
    """One job of the Hydra app. A failure is reported and counted, so that the other jobs of a sweep go on."""
    job = HydraConfig.get()
    single = job.mode == RunMode.RUN
    overrides: Any = OmegaConf.to_container(job.overrides.task, resolve=False)  # as typed, ${...} and all
    if not single and resuming and asked is None:
        raise ConfigError("A sweep is resumed by hydra/launcher=local alone; other launchers know jobs by number only.")
    choices = job.runtime.choices
    fields = dict(asked or fields_of(cfg, choices.get("detector"), choices.get("data"), overrides))
    folder = Path(job.runtime.output_dir)
    result = run(cfg, folder, fields, resume=resuming)
    if result is None:
        return None
    number = "" if single else f"#{job.job.num} "
    _say(result, number)
    if single:
        _next(folder)
    return result.get("metrics", {}).get("test/auroc")


def fields_of(
    cfg: DictConfig, detector: str | None, data: str | None, overrides: list[str], command: list[str] | None = None
) -> dict[str, Any]:
    """What `result.json` says of what was asked for; the `command` is the overrides where it is not given."""
    return {
        "detector": detector,
        "data": data,
        "seed": cfg.seed if isinstance(cfg.get("seed"), int) else None,
        "overrides": overrides,
        "config_hash": config.identity(cfg),
        "variant": config.identity(cfg, seed=False),
        "command": shlex.join(["straylight", "train", *(overrides if command is None else command)]),
    }


def failed() -> None:
    """Count a job that failed, for the exit status."""
    global _failures
    _failures += 1


def run(cfg: DictConfig, folder: Path, fields: dict[str, Any], *, resume: bool = False) -> dict[str, Any] | None:
    """Train in `folder`, by as many processes as the config asks for; `None`, after it was said why, if it failed.

    Raises:
        Interrupted: if it was, after it was said how to go on.
    """
    several = 1 if "LOCAL_RANK" in os.environ else asked_for(cfg.trainer).ranks
    if several > 1:
        from straylight.launcher.ranks import run_ranks

        result = run_ranks(cfg, folder, fields, several, resume)
    else:
        result = attempt(cfg, folder, fields, resume=resume)
    if result["status"] == "ok":
        return result
    if result["status"] == "interrupted":
        print(
            f"\nInterrupted. To go on where it stopped: straylight train resume={shlex.quote(_shown(folder))}",
            file=sys.stderr,
        )
        raise Interrupted
    failed()
    print(f"Error: {result['reason']}", file=sys.stderr)
    return None


def attempt(cfg: DictConfig, folder: Path, fields: dict[str, Any], *, resume: bool = False) -> dict[str, Any]:
    """Train in `folder` and see to it that `result.json` says how it ended, which is returned."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from straylight.callbacks.record import versions
    from straylight.job.train import train
    from straylight.report.results import read, write_result

    # of an earlier run in the same folder: until this one ends, nothing looks finished or could be taken for its own
    kept = [f"checkpoints/{name}.ckpt" for name in ("best", "last", "interrupt")]
    for name in ["result.json"] if resume else ["result.json", "scores.parquet", "shape.json", *kept]:
        (folder / name).unlink(missing_ok=True)

    def conclude(status: str, reason: str | None) -> dict[str, Any]:
        early = {"metrics": {}, "latency": [], "versions": versions(), **fields}
        known = read(folder) or {}  # what the callbacks recorded, if there was a Trainer already
        known.pop("folder", None)
        result = {**early, **known, "status": status, "reason": reason}
        write_result(folder, result)
        return result

    try:
        result = train(cfg, folder, fields=fields, resume=resume)
        return result if (folder / "result.json").exists() else conclude("ok", None)  # nobody recorded it
    except (KeyboardInterrupt, SystemExit) as error:
        status = error.code if isinstance(error, SystemExit) else None
        if status not in (None, 1, 130):  # which Lightning and we end an interrupted training with
            return conclude("failed", f"Something in the run called sys.exit({status!r}).")
        return conclude("interrupted", None)
    except Exception as error:
        said = isinstance(error, StraylightError | MisconfigurationException)
        reason = " ".join(str(error).split()) if said else f"{type(error).__name__}: {' '.join(str(error).split())}"
        if not said or os.environ.get("STRAYLIGHT_FULL_ERROR") == "1":
            traceback.print_exc()
        return conclude("failed", reason)


def resume(folder: Path, overrides: list[str]) -> None:
    """Go on with an interrupted run, in its own folder, with its own config.

    Raises:
        ConfigError: if the folder is not a run's, or an override names a key that its config does not have.
    """
    from straylight.report.results import read
    from straylight.run import saved_config

    cfg = saved_config(folder)
    result = read(folder)
    if result and result["status"] == "ok" and not overrides:
        print(f"{folder} is finished; there is nothing to resume.")
        return
    if unknown := [o for o in overrides if "=" not in o or not o.startswith(RESUMABLE)]:
        raise ConfigError(
            f"A run is resumed with its own data and detector: {unknown[0]!r} cannot be changed, only values of "
            f"{', '.join(name.rstrip('.=') for name in RESUMABLE)}, such as trainer.max_epochs=50."
        )
    OmegaConf.set_struct(cfg, True)
    cfg.merge_with_dotlist(overrides)
    config.check(cfg)
    hydra_yaml = folder / ".hydra" / "hydra.yaml"
    if not hydra_yaml.is_file():
        raise ConfigError(f"{folder} cannot be resumed: it has no .hydra/hydra.yaml.")
    saved = saved_config(folder, run=None)
    saved.merge_with_dotlist(overrides)
    OmegaConf.save(saved, folder / ".hydra" / "config.yaml")  # what an opened or again resumed run goes by
    # relative paths were meant from where the run was started
    its_own: Any = OmegaConf.to_container(OmegaConf.load(hydra_yaml), resolve=False)
    started = its_own["hydra"]
    with open_dict(cfg):
        cfg.paths.data = str(Path(started["runtime"]["cwd"]) / cfg.paths.data)
    choices, given = started["runtime"]["choices"], [*started["overrides"]["task"], *overrides]
    fields = fields_of(cfg, choices["detector"], choices["data"], given, [f"resume={folder}", *overrides])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    finished = run(cfg, folder, fields, resume=True)
    if finished is not None:
        _say(finished, "")
        _next(folder)


class Begun(Callback):
    """Hydra callback: notes where a sweep is that has begun; `on_multirun_end` would miss those that break."""

    sweep: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Begun.sweep = Path(config.hydra.sweep.dir).absolute()


def conclude_sweep(folder: Path, interrupted: bool = False) -> None:
    """What a sweep reached, as far as it came, and what to type next."""
    from straylight.report.page import report

    if any(folder.glob("**/result.json")):
        report(Path(_shown(folder)))
        _next(folder)
    if interrupted:
        print(f"\nInterrupted. To go on where it stopped: straylight train -m resume={shlex.quote(_shown(folder))}")


def _say(result: dict[str, Any], number: str) -> None:
    log.info(f"{number}{headline(result)}")


def headline(result: dict[str, Any]) -> str:
    """One line on how a run went."""
    metrics = result.get("metrics", {})
    numbers = [
        f"{name} {metrics[key]:.4f}" for name, key in (("AUROC", "test/auroc"), ("AP", "test/ap")) if key in metrics
    ]
    one = next((e for e in result.get("latency", []) if e["batch"] == 1), None)
    if one:
        numbers.append(f"p50 {one['p50_us']:.0f} us")
    numbers.append(f"{result.get('duration_s', 0):.1f} s")
    what = f"{result.get('detector')} on {result.get('data')}, seed {result.get('seed')}"
    return f"{what}: {', '.join(numbers)}"


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


def quoted(name: str) -> str:
    """A text as Hydra reads it back, whatever it looks like."""
    try:
        float(name)
    except ValueError:
        if re.fullmatch(r"[\w.-]+", name) and name.lower() not in ("true", "false", "null"):
            return name
    escaped = name.replace("'", "\\'")
    return f"'{escaped}'"


def _as_choice(override: str) -> str:
    key, _, value = override.partition("=")
    sweeps = ("," in value and not value.startswith(("[", "{"))) or re.match(r"[a-z]+\(", value)
    return override if sweeps or not value else f"{key}=choice({value})"


def _as_interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _resume_sweep(folder: Path, options: list[str], typed: list[str]) -> None:
    """Go on with a sweep in its folder, as it was asked for, but for what is typed in the place of that.

    Raises:
        ConfigError: if the folder is none of a sweep, or a sweep runs in it.
    """
    global resuming
    if not (folder / "multirun.yaml").is_file():
        raise ConfigError(f"{folder} is not the folder of a sweep: it holds no multirun.yaml.")
    saved: Any = OmegaConf.to_container(OmegaConf.load(folder / "multirun.yaml"), resolve=False)
    its_own, runtime = saved["hydra"]["overrides"], saved["hydra"]["runtime"]
    before = [o for o in (*its_own["hydra"], *its_own["task"]) if not o.startswith("hydra.mode=")]
    place = f"hydra.sweep.dir={quoted(str(folder.absolute()))}"
    options = [
        f"--config-dir={Path(value or o).absolute()}" if name == "--config-dir" or last in CONFIG_DIR else o
        for last, o in zip(["", *options], options, strict=False)
        for name, _, value in [o.partition("=")]
        if o not in CONFIG_DIR
    ]
    if not any(option.startswith("--config-dir") for option in options):
        own = [s["path"] for s in runtime["config_sources"] if s["provider"] == "command-line" and s["path"]]
        options = [*options, *(part for path in own for part in ("--config-dir", path))]
    started = Path(runtime["cwd"])
    given = [*before, *map(_absolute, typed), place]
    resuming = True
    with held(folder, alone=True):  # and from where it was started: its relative paths were meant from there
        _hydra([*options, "-m"], list({_key(o): o for o in given}.values()), started if started.is_dir() else None)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _absolute(override: str) -> str:
    """A path that was typed here, as it is seen from anywhere."""
    key, _, value = override.partition("=")
    path = key.startswith("paths.") or key.rpartition(".")[2] in ("path", "root", "test_path", "dir")
    return f"{key}={quoted(str(Path(value).absolute()))}" if path and value and "," not in value else override
