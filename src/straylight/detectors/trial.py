"""A detector tried on two rows before it is trained on all of them, so that what is wrong with it is said at once.

Shapes: `B` events, `C` context columns, `*shape` one event.
"""

import copy
import inspect
import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from straylight.errors import StraylightError
from straylight.rows.batch import HIDDEN, Batch

ROWS = 2


def try_score(detector: Any, x: Tensor, context: Tensor) -> None:
    """Score two events together and one by itself, and see that each gets a number.

    Args:
        detector: ready to score.
        x, context: events in the data's own units, `(B, *shape)` and `(B, C)`, of which the first two are taken.

    Raises:
        StraylightError: that says what `score` returned and what is wanted.
    """
    name = f"{type(detector).__name__}.score"
    with _as_it_was(detector), torch.no_grad():
        detector.eval()
        for n in range(min(ROWS, len(x)), 0, -1):
            events = "one event" if n == 1 else f"{n} events"
            try:
                score = detector.as_computed(x[:n], detector.scaling(x[:n]), context[:n])
            except Exception as error:
                alone = ", as it must score any number of them" if n == 1 else ""
                raise StraylightError(f"{name} fails for {events}{alone}: {_told(error, detector)}.") from error
            wanted = f"wanted is a floating-point number for each, of shape ({n},)"
            if not isinstance(score, Tensor):
                raise StraylightError(f"{name} returned no tensor but {type(score).__name__} for {events}; {wanted}.")
            if score.shape != (n,):
                remedy = ": squeeze(1) takes the last axis away" if score.shape == (n, 1) else ""
                raise StraylightError(
                    f"{name} returned a tensor of shape {tuple(score.shape)} for {events}; {wanted}{remedy}."
                )
            if not score.is_floating_point():
                raise StraylightError(f"{name} returned {_kind(score)} for {events}; {wanted}.")
            if not score.isfinite().all():
                raise StraylightError(
                    f"{name} returned {_values(score)} for {events} of the training rows; wanted are finite numbers."
                )


def try_loss(detector: Any, batch: Batch) -> None:
    """See that the loss of a mini-batch is one number with a gradient; gradients are left as they are.

    Args:
        detector: about to be trained, in a mode and with weights that may change: a copy.
        batch: events, scaled.

    Raises:
        StraylightError: that says what `loss` returned and what is wanted.
    """
    name = f"{type(detector).__name__}.loss"
    parameters = [p for p in detector.parameters() if p.requires_grad]
    if not parameters:
        raise StraylightError(
            f"{type(detector).__name__} has no parameter to train: one that is fitted without a gradient is a "
            "straylight.detectors.FittedDetector, and writes fit(x, context, weight)."
        )
    detector.train()
    with torch.enable_grad():
        try:
            found = detector.loss(batch)
        except Exception as error:
            raise StraylightError(f"{name} fails for {len(batch.x)} events: {_told(error, detector)}.") from error
        wanted = "wanted is one number, the mean over the mini-batch, as batch.mean(values) is"
        if isinstance(found, dict):
            if "loss" not in found:
                names = ", ".join(map(str, found)) or "nothing"
                raise StraylightError(f"{name} returned {names}, and no 'loss', which is the one that is minimised.")
            name, found = f"'loss' of {name}", found["loss"]
            said = f"{name} is"
        else:
            said = f"{name} returned"
        if not isinstance(found, Tensor):
            raise StraylightError(f"{said} no tensor but {type(found).__name__}; {wanted}.")
        if found.ndim:
            raise StraylightError(f"{said} a tensor of shape {tuple(found.shape)}; {wanted}.")
        if not found.is_floating_point():
            raise StraylightError(f"{said} {_kind(found)}; {wanted}.")
        if not found.isfinite():
            raise StraylightError(f"{said} {_values(found)} for two training rows; wanted is a finite number.")
        gradients = torch.autograd.grad(found, parameters, allow_unused=True) if found.requires_grad else ()
        if all(gradient is None for gradient in gradients):
            raise StraylightError(
                f"{said} a number without a gradient to any parameter, by which nothing is learned; wanted is one "
                "computed from the networks without detach, item, numpy or no_grad."
            )


def try_out(detector: Any, x: Tensor, context: Tensor, *, loss: bool, score: bool = True) -> None:
    """Try a detector that is about to be trained on two training rows; it and all random numbers stay as they are.

    Args:
        detector: attached to a Trainer, its scaling fitted.
        x, context: training rows in the data's own units.
        loss: whether its loss is tried, by which alone it is trained.
        score: whether its score is.

    Raises:
        StraylightError: as `try_score` and `try_loss`.
    """
    if any(inspect.isroutine(value) for value in vars(detector).values()):  # of this object, and not of a copy
        return
    try:
        tried = copy.deepcopy(detector)
    except Exception:  # which is no fault of a detector's
        return
    for part in tried.modules():
        if hasattr(part, "_trainer"):
            part._trainer = detector._trainer
    for silent in ("notice", "log", "log_dict", "warn"):
        setattr(tried, silent, lambda *_, **__: None)
    n = min(ROWS, len(x))
    rows = {"y": torch.full((n,), HIDDEN), "weight": torch.ones(1).expand(n), "index": torch.arange(n)}
    own = {name: column.to(x.device) for name, column in rows.items()}
    with _random_as_it_was(x.device):
        if loss:
            try_loss(tried, Batch(tried.scaling(x[:n]), own["y"], context[:n], own["weight"], own["index"]))
        if score:
            try_score(tried, x[:n], context[:n])


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _random_as_it_was(device: torch.device) -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - which a detector of one's own may draw from
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _values(value: Tensor) -> str:
    return ", ".join(f"{number:g}" for number in value.flatten().tolist())


def _told(error: Exception, detector: Any) -> str:
    """An error in one line, with the last line of the detector's own file that it came through."""
    files = {getattr(sys.modules.get(cls.__module__), "__file__", None) for cls in type(detector).__mro__}
    lines = [f"{f.filename}, line {f.lineno}" for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    where = f" ({lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}{where}"
