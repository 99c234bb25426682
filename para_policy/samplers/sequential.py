"""Sequential sampling, the reference: one network call after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from para_policy.samplers.result import RoundInfo, SampleResult, Status
from para_policy.samplers.sampler import Launch, Sampler

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process
    from para_policy.samplers.guess import Guess


@dataclass(frozen=True)
class Sequential(Sampler):
    """Ancestral sampling, N rounds of one row per sample.

    Tables live on the device and nothing is read back before the end, so the loop is limited by
    the network alone. Every other sampler is measured against this one.
    """

    name: str = field(default="sequential", kw_only=True, compare=False)

    recordable: ClassVar[bool] = True

    def begin(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> SequentialSolve:
        """See `Sampler`."""
        return SequentialSolve(process, noise)

    def rows(self, batch: int, num_steps: int) -> int:
        """See `Sampler`."""
        return batch


class SequentialSolve:
    """One step after the other.

    Attributes:
        X: (batch, N + 1, *shape), final up to the present step.
    """

    limit: int | None = None
    sizes: int = 1
    begins_with: int = 1

    def __init__(self, process: Process, noise: Noise) -> None:
        device = noise.initial.device
        self.N, self.noise = process.num_steps, noise
        self.opening = self.N  # no two steps are alike
        self._process = process.to(device, noise.initial.dtype)
        self._sample = torch.arange(noise.batch, device=device)
        self._steps = torch.arange(self.N, device=device)[:, None].expand(self.N, noise.batch)
        self.X = noise.initial[:, None].repeat_interleave(self.N + 1, dim=1)
        self._nothing = torch.zeros_like(noise.initial)
        self._x0_before = self._nothing

    def start(self, guess: Guess | None, condition: Tensor | None) -> None:
        """Begin anew, with what the tensors of `noise` hold now."""
        self.X[:, 0] = self.noise.initial

    def most_rounds(self) -> int:
        """See `RecordableSolve`."""
        return self.N

    def wanted(self) -> Tensor:
        """See `RecordableSolve`: nothing is left after the last step."""
        return self._sample.new_zeros(())

    def launches(self, denoiser: Denoiser) -> Iterator[Launch]:
        """See `Solve`."""
        return (self.launch(k, denoiser, None) for k in range(self.N))

    def launch(self, k: int, denoiser: Denoiser, size: int | None) -> Launch:
        """Step `k`."""
        return Launch(len(self.X), 1, partial(self.step, k, denoiser))

    def step(self, k: int, denoiser: Denoiser) -> None:
        """One network call."""
        s, x = self._steps[k], self.X[:, k]
        before = self._x0_before if k else self._nothing
        x0 = denoiser.predict_clean(self._process, x, s, self._sample)
        xi = self.noise.steps[:, k]
        self.X[:, k + 1] = self._process.step(x, x0, before, xi, s)
        self._x0_before = x0

    def info(self, rounds: int) -> RoundInfo:
        """See `Solve`."""
        done = torch.full_like(self._sample, rounds)
        nothing = torch.zeros(len(done), device=done.device, dtype=self.X.dtype)
        return RoundInfo(rounds, self.X, done, nothing, evals=done)

    def result(self, unfinished: Status) -> SampleResult:
        """See `Solve`."""
        X, batch = self.X.clone(), len(self.X)
        finite = X[:, -1].isfinite().flatten(1).all(dim=1).tolist()
        return SampleResult(
            sample=X[:, -1],
            trajectory=X,
            rounds=torch.full((batch,), self.N),
            evals=torch.full((batch,), self.N),
            residual=torch.zeros(batch, dtype=X.dtype),
            correction=torch.zeros(batch, dtype=X.dtype),
            residuals=torch.zeros(self.N, batch, dtype=X.dtype),
            status=tuple(Status.CONVERGED if ok else Status.NON_FINITE for ok in finite),
        )
