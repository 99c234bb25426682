"""Splittings: the linear part Phi_s of a step that a sweep solves exactly.

A sweep evaluates the first-order residuals r_s = S_s(X_s) + c_s xi_s - X_{s+1} of all rows in one
batched call. The correction E of the states then obeys a linear recurrence that costs no network call,

    E_{s+1} = Phi_s E_s + r_s,      E = 0 at the first row of the window,

and the new states are X_{s+1} + E_{s+1}. Every choice of Phi has the sequential trajectory as its
only fixed point; the closer Phi_s is to dS_s/dx, the fewer sweeps it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from para_policy.arguments import check_kind
from para_policy.errors import InputError
from para_policy.samplers.checks import check_optional_count

if TYPE_CHECKING:
    from para_policy.diffusion.process import Process

_SMALL = 512
"""Entries of a block up to which one product with a dense matrix beats many small ones."""

_TOGETHER = 2048
"""Rows, all steps of all samples counted: of a larger batch many samples are worked on at once, and so
many rows then are a group."""

_Pass = Callable[[Tensor], Tensor]

Propagate = Callable[[Tensor, Tensor], Tensor]
"""Maps residuals r_s (n, W, *shape) at steps (n, W) to Phi_s E_s (n, W, *shape)."""


class Splitting(Protocol):
    """A choice of Phi_s."""

    def bind(self, process: Process, shape: Sequence[int]) -> Propagate:
        """Prepare the recurrence for samples of `shape`.

        Raises:
            InputError: if the linear part was made for another process or shape.
        """
        ...

    def times(self, process: Process, s: int, x: Tensor) -> Tensor:
        """Phi_s x (n, *shape)."""
        ...


@dataclass(frozen=True)
class Scalar:
    """One number per step.

    Attributes:
        drift: what stays outside the linear part.
            "identity": Phi = 1, Picard iteration (ParaDiGMS, Shih et al. 2023).
            "epsilon": Phi_s = signal_{s+1} / signal_s; the predicted noise drives the
                system (ParaTAA, Tang et al. 2024, eq. 6). Phi > 1: early errors are amplified.
            "clean": Phi_s = B_s; the predicted clean sample drives the system. Phi < 1.
        order: each state integrates so many of the steps before it, at least 1; the order k of
            ParaTAA's equations. 1 is the plain recursion, None the whole window.
    """

    drift: Literal["identity", "epsilon", "clean"]
    order: int | None = None

    def __post_init__(self) -> None:
        if self.drift not in ("identity", "epsilon", "clean"):
            raise InputError(f"drift is {self.drift!r}; expected identity, epsilon or clean")
        check_optional_count("order", self.order)

    def _phi(self, process: Process) -> Tensor:
        """(N,) Phi_s."""
        if self.drift == "identity":
            return torch.ones_like(process.B)
        if self.drift == "epsilon":
            return process.signal[1:] / process.signal[:-1]
        return process.B

    def times(self, process: Process, s: int, x: Tensor) -> Tensor:
        return self._phi(process)[s] * x

    def bind(self, process: Process, shape: Sequence[int]) -> Propagate:
        transfer = transfer_matrix(self._phi(process))
        if self.order is not None:
            transfer = transfer.triu(1 - self.order)
        strict = transfer.tril(-1)

        def some(residual: Tensor, rows: Tensor) -> Tensor:
            return strict[rows[..., :, None], rows[..., None, :]] @ residual

        return lambda residual, rows: scan(some, residual, rows)


@dataclass(frozen=True, eq=False)
class Chord:
    """A matrix per step, the chord (fixed-Jacobian Newton) method.

    The recurrence is solved in blocks of about sqrt(N) steps: all blocks at once from zero, then
    from block to block. That takes 2 sqrt(N) small operations one after the other instead of N; where
    a block of samples is small, each of the two passes is one product with a matrix made before.

    Attributes:
        matrices: (N, d, d), row by row dS_s/dx averaged over observations; d is the number of
            entries of a sample.
    """

    matrices: Tensor

    def __post_init__(self) -> None:
        check_kind("matrices", self.matrices, Tensor)
        if self.matrices.ndim != 3 or self.matrices.shape[1] != self.matrices.shape[2]:
            raise InputError(f"chord matrices are {tuple(self.matrices.shape)}; expected (N, d, d)")
        if not self.matrices.isfinite().all():
            raise InputError("chord matrices hold NaN or infinity; calibrate again")

    @cached_property
    def _passes(self) -> tuple[Tensor, _Pass, _Pass]:
        """Running products (blocks, d, m d) of the matrices of each block, transposed, and the two
        passes: inside the blocks, and from block to block."""
        N, d, _ = self.matrices.shape
        m = math.isqrt(N - 1) + 1
        blocks = -(-N // m)
        padded = torch.cat([self.matrices, self.matrices.new_zeros(m * blocks - N, d, d)])
        phi = padded.mT.reshape(blocks, m, d, d)
        products = [phi[:, 0]]
        for k in range(1, m):
            products.append(products[-1] @ phi[:, k])
        # An absurd calibration may overflow; times an error of 0 that must still be 0.
        product = torch.stack(products, dim=2).nan_to_num()  # (blocks, d, m, d)

        def inside(r: Tensor) -> Tensor:
            """Phi_s E_s (blocks, n, m d) from E = 0 at the first row of each block."""
            rows = r.unflatten(2, (m, d)).unbind(2)
            carry = [torch.zeros_like(rows[0])]
            for k in range(1, m):
                carry.append((carry[-1] + rows[k - 1]) @ phi[:, k])
            return torch.cat(carry, dim=2)

        def across(leaving: Tensor) -> Tensor:
            """E (1, n, blocks d) that enters each block, from what leaves each one by itself."""
            found = leaving.unflatten(2, (blocks, d)).unbind(2)
            entering = [torch.zeros_like(found[0])]
            for b in range(blocks - 1):
                entering.append(entering[-1] @ product[b, :, -1] + found[b])
            return torch.cat(entering, dim=2)

        return (
            product.flatten(2),
            _dense(inside, padded, blocks, m * d),
            _dense(across, padded, 1, blocks * d),
        )

    def times(self, process: Process, s: int, x: Tensor) -> Tensor:
        return _each_row(lambda row: self.matrices[s].to(row) @ row, x)

    def bind(self, process: Process, shape: Sequence[int]) -> Propagate:
        d = torch.Size(shape).numel()
        expected = (process.num_steps, d, d)
        if self.matrices.shape != expected:
            raise InputError(
                f"chord matrices are {tuple(self.matrices.shape)}; {process.num_steps} steps and "
                f"samples of shape {tuple(shape)} need {expected}: calibrate for this process"
            )
        if self.matrices.dtype != process.B.dtype or self.matrices.device != process.B.device:
            return Chord(self.matrices.to(process.B)).bind(process, shape)
        product, inside, across = self._passes
        blocks, m = len(product), product.shape[2] // d

        def some(residual: Tensor, rows: Tensor) -> Tensor:
            r = residual.new_zeros(*residual.shape[:-2], m * blocks, d)
            # Rows past the end are clamped to the last step; their residuals are 0.
            r.scatter_add_(-2, rows[..., None].expand(residual.shape), residual)
            r = r.reshape(-1, blocks, m * d).transpose(0, 1)  # (blocks, n, m d)
            carry = inside(r)
            # What overflows in one block must not reach those before it as infinity times 0.
            leaving = (carry + r)[:, :, -d:].transpose(0, 1).reshape(1, -1, blocks * d).nan_to_num()
            entering = across(leaving).reshape(-1, blocks, d).transpose(0, 1)
            found = torch.baddbmm(carry, entering, product).transpose(0, 1)
            found = found.reshape(*residual.shape[:-2], m * blocks, d)
            return found.gather(-2, rows[..., None].expand(residual.shape))

        return lambda residual, rows: scan(some, residual, rows)


@dataclass(frozen=True, eq=False)
class LowRankChord:
    """The chord method for many action coordinates: Phi_s = B_s + left_s right_s.

    A step then costs 2 d r operations instead of d^2, in memory and in time.

    Attributes:
        left: (N, d, r).
        right: (N, r, d).
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 3 or self.left.mT.shape != self.right.shape:
            raise InputError(
                f"chord factors are {tuple(self.left.shape)} and {tuple(self.right.shape)}; "
                "expected (N, d, r) and (N, r, d)"
            )
        if not (self.left.isfinite().all() and self.right.isfinite().all()):
            raise InputError("chord factors hold NaN or infinity; calibrate again")

    @classmethod
    def compress(cls, matrices: Tensor, process: Process, rank: int) -> LowRankChord:
        """The best approximation of (N, d, d) mean Jacobians by factors of `rank`."""
        d = matrices.shape[1]
        B = process.B.to(matrices)[:, None, None] * torch.eye(d).to(matrices)
        left, scale, right = torch.linalg.svd(matrices - B, full_matrices=False)
        return cls(left[:, :, :rank] * scale[:, None, :rank], right[:, :rank])

    def times(self, process: Process, s: int, x: Tensor) -> Tensor:
        left, right = self.left[s].to(x), self.right[s].to(x)
        return process.B[s] * x + _each_row(lambda row: left @ (right @ row), x)

    def bind(self, process: Process, shape: Sequence[int]) -> Propagate:
        d = torch.Size(shape).numel()
        if self.left.shape[:2] != (process.num_steps, d):
            raise InputError(
                f"chord factors are {tuple(self.left.shape)}; {process.num_steps} steps and samples "
                f"of shape {tuple(shape)} need ({process.num_steps}, {d}, r): calibrate for this process"
            )
        B, left, right = process.B, self.left.to(process.B), self.right.to(process.B)

        def some(residual: Tensor, rows: Tensor) -> Tensor:
            carry = [torch.zeros_like(residual[..., 0, :])]
            s = rows[..., 1:]
            clamped = s == rows[..., :-1]  # past the end
            b, up, down = B[s], left[s], right[s]
            for k in range(s.shape[-1]):
                change = carry[-1] + residual[..., k, :]
                low = _times(down[..., k, :, :], change)
                moved = b[..., k, None] * change + _times(up[..., k, :, :], low)
                carry.append(torch.where(clamped[..., k, None], carry[-1], moved))
            return torch.stack(carry, dim=-2)

        return lambda residual, rows: scan(some, residual, rows)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """Products (..., i) of matrices (..., i, j) and vectors (..., j)."""
    return matrix @ x if x.ndim == 1 else (matrix @ x[..., None])[..., 0]


def _dense(linear: _Pass, like: Tensor, batch: int, size: int) -> _Pass:
    """A linear map of (batch, n, size) tensors as a product with a matrix, if that is small."""
    if size > _SMALL:
        return linear
    matrix = linear(torch.eye(size).to(like).expand(batch, -1, -1)).nan_to_num()
    return lambda value: torch.bmm(value, matrix)


def each(work: Callable[[Tensor, Tensor], Tensor], residual: Tensor, rows: Tensor) -> Tensor:
    """Apply `work` (W, d), (W) -> (W, d) to the samples one by one.

    Matrix products of another size may round differently. A sample must not depend on how many
    others share its batch, not even in the last bit.
    """
    flat = residual.flatten(2)
    return torch.stack([work(r, at) for r, at in zip(flat, rows, strict=True)]).reshape(
        residual.shape
    )


def many(batch: int, span: int) -> bool:
    """Whether `scan` takes samples together."""
    return batch * span > _TOGETHER


def scan(work: Callable[[Tensor, Tensor], Tensor], residual: Tensor, rows: Tensor) -> Tensor:
    """As `each`, for `work` that also takes many samples at once, (n, W, d), (n, W) -> (n, W, d).

    It does so where they are many: to launch the kernels of one sample after the other would take a GPU
    longer than the network. All groups have the same size, the last one being filled up, so that there,
    too, a sample does not depend on the size of its batch.
    """
    n, span = rows.shape
    if not many(n, span):
        return each(work, residual, rows)
    size = max(_TOGETHER // span, 1)
    groups = [
        torch.cat([value, value.new_zeros(-n % size, *value.shape[1:])]).split(size)
        for value in (residual.flatten(2), rows)
    ]
    return torch.cat([work(*group) for group in zip(*groups, strict=True)])[:n].reshape(
        residual.shape
    )


def _each_row(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `work` (d,) -> (d,) to samples (n, *shape) one by one, see `each`."""
    return torch.stack([work(row) for row in x.flatten(1)]).reshape(x.shape)


def transfer_matrix(phi: Tensor) -> Tensor:
    """(N, N) lower triangular products phi_{j+1} .. phi_s: how a residual of step j reaches X_{s+1}.

    >>> transfer_matrix(torch.tensor([5.0, 2.0, 3.0]))
    tensor([[1., 0., 0.],
            [2., 1., 0.],
            [6., 3., 1.]])
    """
    N = len(phi)
    below = torch.ones(N, N, dtype=torch.bool, device=phi.device).tril(-1)
    factors = torch.where(below, phi.double()[:, None], 1.0)
    return factors.cumprod(dim=0).tril().to(phi.dtype)
