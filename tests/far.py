"""A device that is far from the host: it computes on the CPU, and counts what is read back.

On a GPU each read waits for all that was launched before; here that is seen without one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("meta")
"""What the device calls itself."""

_aten = torch.ops.aten
_READ = (_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.equal.default)
"""These return a number, or a size that hangs on values."""
_INDEX = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class Far(Tensor):
    """A tensor of the device.

    Attributes:
        held: what is in it.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Far:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=FAR,
        )
        made.held = held
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of a device that is not there any more")

    def tolist(self) -> Any:
        """One read."""
        return self.cpu().tolist()


class FarDevice(TorchDispatchMode):
    """The device is there as long as this context.

    Attributes:
        reads: so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self) -> None:
        """Something is read back."""
        self.reads += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        touches = any(isinstance(value, Far) for value in tree_leaves((args, kwargs)))
        target = kwargs.get("device")
        stays = touches if target is None else torch.device(target) == FAR
        into_host = func is _aten.copy_.default and not isinstance(args[0], Far)
        by_mask = func in _INDEX and any(
            isinstance(index, Far) and index.dtype == torch.bool for index in args[1]
        )
        if touches and (func in _READ or not stays or into_host or by_mask):
            self.read()
        result = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        stays = stays and not into_host
        return tree_map(lambda v: Far(v) if stays and isinstance(v, Tensor) else v, result)


def _near(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.held if isinstance(value, Far) else value
