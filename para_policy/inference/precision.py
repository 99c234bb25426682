"""Arithmetic of the network; what is around it stays in float32."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.inference.config import Precision
from para_policy.inference.failures import UnavailableError

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
ROUNDING: Mapping[Precision, float] = {
    "float32": 2.0**-23,
    "tf32": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float16": 2.0**-11,
}
"""Relative changes that rounding can hide; half of the smallest one would be lost in float32."""

TOLERANCE: Mapping[Precision, float] = {
    "float32": 1e-4,
    "tf32": 3e-2,
    "bfloat16": 2.5e-1,
    "float16": 3e-2,
}
"""Largest error of an output over the largest output, compared with PyTorch in float32. An error of
the implementation is larger; rounding in a deep network stays below."""


def check_precision(device: torch.device, precision: Precision) -> None:
    """Raise UnavailableError for an arithmetic that the device does not have."""
    if device.type != "cuda" and precision in ("tf32", "float16"):
        raise UnavailableError(
            f"precision {precision!r} needs an NVIDIA GPU; on {device.type} there are float32 and "
            "bfloat16"
        )


def in_precision(body: nn.Module, precision: Precision) -> nn.Module:
    """`body` in another arithmetic; it still takes and returns float32.

    Half precisions get a copy of the weights; the others differ in `tensor_cores` only. An input of
    one number per row, a timestep, is not rounded.
    """
    return _Half(body, HALF[precision]) if precision in HALF else body


class _Half(nn.Module):
    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.body = copy.deepcopy(body).to(dtype)

    def forward(self, *inputs: Tensor) -> Tensor:
        rounded = (v.to(self.dtype) if v.is_floating_point() and v.ndim > 1 else v for v in inputs)
        return self.body(*rounded).float()


@contextlib.contextmanager
def tensor_cores(precision: Precision) -> Iterator[None]:
    """Whether float32 products may be rounded to TF32: by default torch lets convolutions do so.

    The switches of the host program, old (`allow_tf32`) or new (`fp32_precision`, torch 2.9), are as
    before afterwards.
    """
    before, wanted = _Switches.now(), _Switches.all(precision == "tf32")
    if before == wanted:
        yield
        return
    wanted.set()
    try:
        yield
    finally:
        before.set()


@dataclass(frozen=True)
class _Switches:
    """Torch's switches of float32 products. Where old and new ones disagree, reading an old one is an
    error; both are set, as parts of torch read the one or the other.

    Attributes:
        level: of matrix products, "highest", "high" (TF32) or "medium".
        convolutions: of cuDNN, whether TF32 is allowed.
        new: values of the new switches, in the order of `_new`; empty in torch before 2.9.
    """

    level: str
    convolutions: bool
    new: tuple[str, ...]

    @classmethod
    def all(cls, allowed: bool) -> _Switches:
        """All alike."""
        new = ("tf32" if allowed else "ieee",) * len(_new())
        return cls("high" if allowed else "highest", allowed, new)

    @classmethod
    def now(cls) -> _Switches:
        """As they are: an old one that cannot be read is not what the new one says."""
        new = tuple(part.fp32_precision for part in _new())
        try:
            level = torch.get_float32_matmul_precision()
        except RuntimeError:
            matmul = torch.backends.cuda.matmul
            level = "high" if _read(matmul, matmul.fp32_precision != "tf32") else "highest"
        return cls(level, _read(torch.backends.cudnn, "tf32" not in new[1:3]), new)

    def set(self) -> None:
        """The old ones first, as they set the new ones, too."""
        torch.set_float32_matmul_precision(self.level)
        torch.backends.cudnn.allow_tf32 = self.convolutions
        for part, value in zip(_new(), self.new, strict=True):
            part.fp32_precision = value


@cache
def _new() -> tuple[Any, ...]:
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return ()
    # The old level of matrix products holds for the CPU, too.
    cudnn = backends.cudnn
    return backends.cuda.matmul, cudnn.conv, cudnn.rnn, backends.mkldnn.matmul


def _read(part: Any, otherwise: bool) -> bool:
    try:
        return bool(part.allow_tf32)
    except RuntimeError:
        return otherwise


def check_output(output: Tensor, reference: Tensor, precision: Precision) -> None:
    """Raise UnavailableError where `output` is not what PyTorch computes in float32.

    Rows in which the reference itself is not finite are not compared: the output only has to show it.
    """
    if output.shape != reference.shape:
        raise UnavailableError(
            f"it returns {tuple(output.shape)} instead of {tuple(reference.shape)}"
        )
    broken = ~reference.isfinite().reshape(len(reference), -1).all(dim=1)
    hidden = broken & output.isfinite().reshape(len(output), -1).all(dim=1)
    if hidden.any():
        raise UnavailableError(
            f"it returns finite numbers in {int(hidden.sum())} of {len(hidden)} rows where PyTorch "
            "returns NaN or infinity"
        )
    if broken.all():
        return
    expected = reference[~broken]
    error = (output[~broken] - expected).abs().max().item()
    scale = expected.abs().max().item()
    if not error <= TOLERANCE[precision] * scale:  # NaN fails, too
        raise UnavailableError(
            f"its outputs differ by {error:.1e} from PyTorch's, which reach {scale:.1e}; expected at "
            f"most {TOLERANCE[precision]:.0e} of that for precision {precision!r}"
        )
