"""The reference: one network call after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.samplers.deadline import Deadline
from para_policy.samplers.guess import Guess
from para_policy.samplers.sampler import Callback, RoundInfo, SampleResult, Status, check_noise


@dataclass(frozen=True)
class Sequential:
    """Ancestral sampling, N rounds of one row per sample.

    Tables live on the device and nothing is read back before the end, so the loop is limited by
    the network alone. Every other sampler is measured against this one.
    """

    same_sample: ClassVar[bool] = True

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        *,
        guess: Guess | None = None,
        deadline: Deadline | None = None,
        callback: Callback | None = None,
    ) -> SampleResult:
        """Return X_N after N steps; see `Sampler` and `SampleResult`."""
        check_noise(process, noise)
        if deadline is not None:
            raise InputError(
                "sequential has no answer before its last step: use no deadline with it"
            )
        X = self.states(denoiser, process, noise, callback)
        return self.result(X)

    def states(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Tensor:
        """X_0 .. X_N (batch, N + 1, *shape); reads nothing back."""
        N, batch, device = process.num_steps, noise.batch, noise.initial.device
        process = process.to(device, noise.initial.dtype)
        X = noise.initial[:, None].repeat_interleave(N + 1, dim=1)
        sample = torch.arange(batch, device=device)
        steps = torch.arange(N, device=device)[:, None].expand(N, batch)
        nothing = torch.zeros(batch, device=device, dtype=X.dtype)
        x0_previous = torch.zeros_like(noise.initial)
        for step, s in enumerate(steps):
            x = X[:, step]
            x0 = denoiser.predict_clean(process, x, s, sample)
            X[:, step + 1] = process.mean(x, x0, x0_previous, s) + process.noise(
                noise.steps[:, step], s
            )
            x0_previous = x0
            if callback is not None:
                done = torch.full_like(sample, step + 1)
                callback(RoundInfo(step + 1, X, done, nothing, evals=done))
        return X

    def result(self, X: Tensor) -> SampleResult:
        """The result that consists of these states."""
        batch, N = X.shape[0], X.shape[1] - 1
        finite = X[:, -1].isfinite().flatten(1).all(dim=1).tolist()
        return SampleResult(
            sample=X[:, -1],
            trajectory=X,
            rounds=torch.full((batch,), N),
            evals=torch.full((batch,), N),
            residual=torch.zeros(batch, dtype=X.dtype),
            correction=torch.zeros(batch, dtype=X.dtype),
            residuals=torch.zeros(N, batch),
            status=tuple(Status.CONVERGED if ok else Status.NON_FINITE for ok in finite),
        )
