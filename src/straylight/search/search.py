"""A search: it asks for trials as there is room for them, and tells what they reached."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from straylight.console import say
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.journal import Journal, study
from straylight.keys import key_of
from straylight.objective import COSTS, measure, reached
from straylight.search.samplers import sampler_of
from straylight.search.settings import Settings
from straylight.search.space import Space
from straylight.sweep.job import Job

UNMEASURED = 5  # trials that ended well without the objective, after which none is expected to have it
REPEATS = 30  # trials in a row that repeat earlier ones, after which nothing new is expected


class Search:
    """Where the jobs of a sweep come from that is a search, see `straylight.sweep.source`.

    Nothing of a run is read but what `objective` names, whether it was pruned, and how it ended.

    Args:
        journal: of the search; trials in it that have not ended come first, as they were.
        space: what trials may be.
        objectives: what is searched for.
        settings: how.
        folder: of the sweep.
        at_once: trials that run or wait at a time.
        seed: of the trials' own.
    """

    def __init__(
        self,
        journal: Journal,
        space: Space,
        objectives: tuple[str, ...],
        settings: Settings,
        folder: SweepFolder,
        at_once: int,
        seed: int,
    ) -> None:
        self.journal, self.study = journal, study(journal)
        self.space, self.objectives, self.settings = space, objectives, settings
        self.folder, self.at_once, self.seed = folder, at_once, seed
        trials = self.study.get_trials(deepcopy=False)
        self._asked = len(trials)
        self._left = [trial for trial in trials if not trial.state.is_finished()]
        self._reached = any(trial.state == TrialState.COMPLETE for trial in trials)
        self._open: dict[int, optuna.Trial] = {}
        self._twins: dict[int, list[Job]] = {}  # of jobs that run, by their numbers
        self._repeats = 0
        self._until = math.inf if settings.timeout_s is None else time.monotonic() + settings.timeout_s
        self._without: list[Mapping[str, Any]] = []  # records that lack the objective
        self._tried: set[str] = set()
        self.confirming: dict[int, Job] = {}
        self.confirmed: dict[int, Mapping[str, Any]] = {}  # records by the numbers of jobs

    # what a sweep asks for

    def more(self) -> list[Job]:
        """Trials that there is room for now; in the end the best one, with fresh seeds.

        Raises:
            ConfigError: if runs end well without what is searched for.
        """
        self._refuse_unmeasured()
        jobs = []
        while len(self._open) < self.at_once and (trial := self._next()) is not None:
            self._open[trial.number] = trial
            overrides = self.space.ask(trial)
            jobs.append(Job(trial.number, overrides, self.space.what(overrides), added=self._added(trial.number)))
        if jobs:
            self.journal.settle()  # before anything of them runs
        if jobs or self._open or self.confirming:
            return jobs
        self.confirming = {job.number: job for job in self._confirmation()}
        return list(self.confirming.values())

    def ended(self, job: Job) -> None:
        """Tell what a job reached; of one that is the same as another that still runs, when that has."""
        if job.same is not None and job.same.number in self._open:
            self._twins.setdefault(job.same.number, []).append(job)
            return
        folder = (job.same or job).folder
        result: Mapping[str, Any] = (folder.read() if folder is not None else None) or {}
        if job.number in self.confirming:
            self.confirmed[job.number] = result
            return
        self._repeats = self._repeats + 1 if job.same is not None else 0
        self._tell(self._open.pop(job.number), result, folder)
        self._tried.update(job.overrides)
        for twin in self._twins.pop(job.number, ()):
            self.ended(twin)

    # trials

    def _next(self) -> optuna.Trial | None:
        """A trial of before that has not ended, as it was, or another one."""
        if self._left:
            before = self._left.pop(0)
            self.study.sampler = self._sampler(before.number)
            return optuna.Trial(self.study, before._trial_id)
        if self._asked >= self.settings.n_trials or time.monotonic() > self._until:
            return None
        if self._repeats >= REPEATS:
            say(f"The last {self._repeats} trials repeated earlier ones: the search ends with {self._asked}.")
            self._until = -math.inf
            return None
        self.study.sampler = self._sampler(self._asked)
        self._asked += 1
        return self.study.ask()

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        asked = self.settings
        return sampler_of(asked.sampler, asked.sampler_options, asked.seed, number, self.study.sampler)

    def _added(self, number: int) -> dict[str, dict[str, Any]]:
        """What watches a trial that may be pruned."""
        if self.settings.pruner is None:
            return {}
        watching = {
            "_target_": "straylight.callbacks.Pruning",
            "folder": "${paths.run}",
            "trial": number,
            "monitor": self.settings.monitor,
            "lower": measure(self.objectives[0]).lower,
            "pruner": self.settings.pruner,
            "options": dict(self.settings.pruner_options),
        }
        return {"callbacks": {"pruning": watching}}

    def _tell(self, trial: optuna.Trial, result: Mapping[str, Any], folder: RunFolder | None) -> None:
        if folder is not None:
            trial.set_user_attr("folder", folder.path.name)
        known = [reached(result, name) for name in self.objectives]
        values = [value for value in known if value is not None and math.isfinite(value)]
        if result.get("status") != "ok":
            self._fail(trial, str(result.get("reason") or result.get("status") or "It has no record."))
        elif result.get("pruned"):
            self.study.tell(trial, state=TrialState.PRUNED)
        elif len(values) < len(known):
            self._without.append(result)
            self._fail(trial, f"It has no {', '.join(self.objectives)}.")
        else:
            self._reached = True
            self.study.tell(trial, values)

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr("reason", reason[:500])
        self.study.tell(trial, state=TrialState.FAIL)

    def _refuse_unmeasured(self) -> None:
        if self._reached or not self._without:
            return
        over = self._asked >= self.settings.n_trials and not self._open
        choices = {searched.override(v) for searched in self.space.groups.values() for v in searched.values}
        if not over and (len(self._without) < UNMEASURED or not choices <= self._tried):
            return
        last = self._without[-1]
        there = [name for name, value in (last.get("criteria") or {}).items() if value is not None]
        there += [name for name in COSTS if reached(last, name) is not None]
        raise ConfigError(
            f"No run has objective={','.join(self.objectives)}: {len(self._without)} trials ended well without; they "
            f"have {', '.join(there) or 'nothing to go by'}."
        )

    # the best one again

    def _confirmation(self) -> list[Job]:
        best = self.best
        if not self.settings.confirm or best is None:
            return []
        again = optuna.trial.FixedTrial(best.params)
        overrides = [o for o in self.space.ask(again) if key_of(o) != "seed"]  # type: ignore[arg-type]
        seeds = [self.seed + 1 + i for i in range(self.settings.confirm)]
        what = self.space.what(overrides)
        return [
            Job(self._asked + i, [*overrides, f"seed={seed}"], f"{what} seed={seed}") for i, seed in enumerate(seeds)
        ]

    @property
    def best(self) -> FrozenTrial | None:
        """The trial that reached most; `None` if none ended well, or of several objectives there is none."""
        return self.study.best_trial if self._reached and len(self.objectives) == 1 else None

    def overrides(self, trial: FrozenTrial) -> Sequence[str]:
        """Those of a trial that has ended."""
        return self.space.ask(optuna.trial.FixedTrial(trial.params))  # type: ignore[arg-type]
