"""A device that is not there: tensors that say they are elsewhere, and compute on the CPU all the same.

Whatever mixes them with tensors of the CPU is refused, as a card would refuse it, so that a detector which forgets
where its rows are is found out on a machine without a card. torch's own device of this kind, `meta`, lends its name;
its tensors hold no numbers, and these do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
#: What goes from one device to another, or leaves it.
CROSSING = {"_to_copy", "copy_"}
#: What makes a tensor of plain numbers: torch makes one of `meta` without looking at them.
MAKING = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor}
MAKING_LIKE = {Tensor.new_tensor}


class There(Tensor):
    """A tensor that says it is elsewhere.

    Args:
        here: where its numbers are.
    """

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        like = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        made = Tensor._make_wrapper_subclass(cls, here.shape, device=DEVICE, **like)
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.here.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.here!r})"


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    name, device = func.overloadpacket.__name__, kwargs.get("device")
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, There)]
    if there and name not in CROSSING:
        # a single number of the CPU's is an argument of a kernel that goes element by element, and of no other
        scalars = torch.Tag.pointwise in func.tags and isinstance(args[0], There)
        if strangers := [tuple(t.shape) for t in tensors if not isinstance(t, There) and (t.ndim or not scalars)]:
            raise RuntimeError(f"{func} mixes devices: {strangers} on the CPU and {[tuple(t.shape) for t in there]}")
    if name == "copy_":
        goes = isinstance(args[0], There)
    else:
        goes = bool(there) if device is None else torch.device(device) == DEVICE
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*tree_map(_here, args), **tree_map(_here, kwargs))
    if not goes:
        return out
    out = tree_map(lambda t: There(t) if isinstance(t, Tensor) else t, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if there else out


def _here(value: Any) -> Any:
    return value.here if isinstance(value, There) else value


class _Computing(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Making(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in MAKING and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            del kwargs["device"]
            return func(*args, **kwargs).to(DEVICE)
        if func in MAKING_LIKE and isinstance(args[0], There):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(DEVICE)
        return func(*args, **kwargs)


def _enter(mode: Any) -> None:
    mode.grad = torch.set_grad_enabled(not mode.mode)


def _leave(mode: Any, *error: Any) -> None:
    mode.grad.__exit__(*error)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """The device, while it can be used."""
    autocast = torch.autocast
    with pytest.MonkeyPatch.context() as patch, _Making(), _Computing():
        # which knows of no such device
        patch.setattr(torch, "autocast", lambda kind, **o: nullcontext() if kind == "meta" else autocast(kind, **o))
        # whose tensors have no place for what autograd would keep of views of ours
        patch.setattr(torch.inference_mode, "__enter__", _enter)
        patch.setattr(torch.inference_mode, "__exit__", _leave)
        yield DEVICE
