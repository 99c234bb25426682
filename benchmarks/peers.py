"""Outside peers: diffusers' own samplers on the same network and noise, to compare ours with.

para-policy bench --checkpoint DIR --json OUT --samplers chord,benchmarks.peers:paradigms:window=10
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, DDPMParallelScheduler, DDPMScheduler
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import build_scheduler
from para_policy.errors import InputError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers import Callback, Guess, SampleResult, Status
from para_policy.samplers.checks import check_number, check_optional_count
from para_policy.samplers.deadline import Deadline


@dataclass(frozen=True)
class DiffusersParadigms:
    """The published ParaDiGMS loop around `DDPMParallelScheduler` (Shih et al. 2023).

    After `StableDiffusionParadigmsPipeline` of diffusers 0.42, with two changes: the noise is given
    instead of drawn, and the yardstick is computed once for all solves, which is in its favour. As
    there, one window moves for the whole batch, at the pace of its slowest sample. It measures
    corrections, not residuals, so `residual` and `correction` are NaN.

    Attributes:
        scheduler: with its timesteps set.
        window: rows in flight; None for all.
        tolerance: largest RMS change of an accepted state, in noise stds.
    """

    same_sample: ClassVar[bool] = True

    scheduler: Any
    window: int | None = 20
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        check_optional_count("window", self.window)
        check_number("tolerance", self.tolerance)
        t, config = self.scheduler.timesteps, self.scheduler.config
        stride = config.num_train_timesteps // len(t)
        if not bool((t[:-1] - t[1:] == stride).all()):
            raise InputError(
                f"batch_step_no_noise steps by {stride}, the timesteps {t.tolist()} do not; "
                'use timestep_spacing "leading" and a number of steps that fits'
            )

    @functools.cached_property
    def _variance(self) -> Tensor:
        return _variances(self.scheduler)

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
        """Solve; `process` and `guess` are not used, and there is no `callback`."""
        _check(self.scheduler, noise, deadline)
        N, batch, shape = noise.num_steps, noise.batch, noise.initial.shape[1:]
        timesteps = self.scheduler.timesteps.to(noise.initial.device)
        variance = self._variance.to(noise.initial)
        std = variance.sqrt()
        # The pipeline draws noise for the last step too, 1e-10 of it, because the variance is kept
        # above 1e-20. Sequential DDPM adds none there, and neither do we.
        std[timesteps == 0] = 0.0
        # Time first, as in the pipeline.
        Z = (std.reshape(-1, *(1,) * len(shape)) * noise.steps).transpose(0, 1)
        X = noise.initial[None].repeat_interleave(N + 1, dim=0)
        yardstick = torch.cat([variance, variance.new_zeros(1)])
        inverse = (1.0 / yardstick)[:, None] / noise.initial[0].numel()
        begin, end, rounds, evals = 0, min(self.window or N, N), 0, 0
        window = end
        while begin < N:
            count = end - begin
            block = X[begin:end]
            t = timesteps[begin:end].repeat_interleave(batch)
            rows = block.flatten(0, 1)
            output = denoiser(rows, t, torch.arange(batch, device=X.device).repeat(count))
            mean = self.scheduler.batch_step_no_noise(output, t, rows).reshape(block.shape)
            rounds, evals = rounds + 1, evals + count
            new = X[begin] + (mean - block).cumsum(dim=0) + Z[begin:end].cumsum(dim=0)
            change = (new - X[begin + 1 : end + 1]).reshape(count, batch, -1)
            error = torch.linalg.norm(change, dim=-1).square() * inverse[begin + 1 : end + 1]
            # A sentinel after the window fails always, so that there is a first failing row.
            error = torch.nn.functional.pad(error, (0, 0, 0, 1), value=1e9)
            failing = (error > self.tolerance**2).any(dim=1).int()
            # The first failing row is accepted as well: it was computed from accepted rows.
            new_begin = begin + min(1 + int(failing.argmax()), window)
            new_end = min(new_begin + window, N)
            X[begin + 1 : end + 1] = new
            X[end : new_end + 1] = X[end][None]  # rows that enter copy the cleanest state
            begin, end = new_begin, new_end
        return _result(X.transpose(0, 1), rounds, evals, torch.nan)


@dataclass(frozen=True)
class DiffusersDdpm:
    """`DDPMScheduler.step` in a loop: an outside check of `sequential`.

    Attributes:
        scheduler: with its timesteps set.
    """

    same_sample: ClassVar[bool] = True

    scheduler: Any

    @functools.cached_property
    def _mean(self) -> _MeanOnly:
        return _MeanOnly.like(self.scheduler)

    @functools.cached_property
    def _variance(self) -> Tensor:
        return _variances(self.scheduler)

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
        """Solve; `process` and `guess` are not used, and there is no `callback`."""
        _check(self.scheduler, noise, deadline)
        std = self._variance.to(noise.initial).sqrt()
        x, states = noise.initial, [noise.initial]
        for s, t in enumerate(self.scheduler.timesteps.tolist()):
            output = _predict(denoiser, x, t)
            x = self._mean.step(output, t, x, generator=self._mean.unused).prev_sample
            if t > 0:
                x = x + std[s] * noise.steps[:, s]
            states.append(x)
        N = noise.num_steps
        return _result(torch.stack(states, dim=1), N, N, 0.0)


@dataclass(frozen=True)
class DiffusersDdim:
    """`DDIMScheduler.step` in a loop, eta = 0: the usual way to spend fewer network calls.

    It starts at the same X_0 but takes other, fewer steps, so its sample is not that of the other
    samplers and its difference to it is no error of solving. Which is the better action, only an
    evaluation in closed loop can tell.

    Attributes:
        scheduler: with its timesteps set.
    """

    same_sample: ClassVar[bool] = False

    scheduler: Any

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
        """Solve; `process` and `guess` are not used, and there is no `callback`."""
        _refuse(deadline)
        timesteps = self.scheduler.timesteps.tolist()
        x, states = noise.initial, [noise.initial]
        for t in timesteps:
            x = self.scheduler.step(_predict(denoiser, x, t), t, x, eta=0.0).prev_sample
            states.append(x)
        return _result(torch.stack(states, dim=1), len(timesteps), len(timesteps), 0.0)


def paradigms(
    policy: DiffusionPolicy,
    scheduler: str | None = None,
    steps: int | None = None,
    *,
    window: int | None = 20,
    tolerance: float = 0.1,
) -> DiffusersParadigms:
    """The published loop for a process of ddpm; arguments as for `DiffusionPolicy.sampler`.

    Raises:
        InputError: for a process or option that the loop does not have.
    """
    made = _of_ddpm(DDPMParallelScheduler, policy, scheduler, steps)
    return DiffusersParadigms(made, window, tolerance)


def ddpm(
    policy: DiffusionPolicy, scheduler: str | None = None, steps: int | None = None
) -> DiffusersDdpm:
    """Steps of `DDPMScheduler` for a process of ddpm; arguments and errors as for `paradigms`."""
    return DiffusersDdpm(_of_ddpm(DDPMScheduler, policy, scheduler, steps))


def ddim(
    policy: DiffusionPolicy,
    scheduler: str | None = None,
    steps: int | None = None,
    *,
    num_steps: int = 10,
) -> DiffusersDdim:
    """`num_steps` of DDIM on the policy's schedule, whatever process the other samplers solve."""
    return DiffusersDdim(_build(DDIMScheduler, policy.config.noise_scheduler, num_steps))


def _of_ddpm(
    cls: type[Any], policy: DiffusionPolicy, scheduler: str | None, steps: int | None
) -> Any:
    kind, num_steps = policy.chain(scheduler, steps).key
    if kind != "ddpm":
        raise InputError(f"{cls.__name__} solves ddpm only, not {kind}; leave it out")
    return _build(cls, policy.config.noise_scheduler, num_steps)


def _build(cls: type[Any], config: Mapping[str, Any], num_steps: int) -> Any:
    kind = "ddim" if cls is DDIMScheduler else "ddpm"
    made = cls(**_given(build_scheduler(config, kind)))
    if not 1 <= num_steps <= made.config.num_train_timesteps:
        raise InputError(
            f"num_steps is {num_steps}; this schedule allows 1 to {made.config.num_train_timesteps}"
        )
    made.set_timesteps(num_steps)
    return made


def _given(scheduler: Any) -> dict[str, Any]:
    return {key: value for key, value in scheduler.config.items() if not key.startswith("_")}


def _variances(scheduler: Any) -> Tensor:
    """(N,) variance of the noise of each step."""
    values = torch.stack([scheduler._get_variance(t) for t in scheduler.timesteps.tolist()])
    # Under this name `_get_variance` returns the standard deviation.
    return values**2 if scheduler.config.variance_type == "fixed_small_log" else values


class _MeanOnly(DDPMScheduler):
    """`step` times the noise that it draws by 0, so that given noise can be added."""

    unused: torch.Generator
    """For the draws that come to nothing: they must not move torch's own generator."""

    @classmethod
    def like(cls, scheduler: Any) -> _MeanOnly:
        made = cls(**_given(scheduler))
        made.timesteps = scheduler.timesteps
        made.num_inference_steps = scheduler.num_inference_steps
        made.alphas_cumprod = scheduler.alphas_cumprod
        made.unused = torch.Generator()
        return made

    def _get_variance(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros(())


def _predict(denoiser: Denoiser, x: Tensor, t: int) -> Tensor:
    batch = len(x)
    timesteps = torch.full((batch,), t, dtype=torch.int64, device=x.device)
    return denoiser(x, timesteps, torch.arange(batch, device=x.device))


def _check(scheduler: Any, noise: Noise, deadline: Deadline | None) -> None:
    _refuse(deadline)
    if noise.num_steps != len(scheduler.timesteps):
        raise InputError(
            f"noise has {noise.num_steps} steps, the scheduler {len(scheduler.timesteps)}"
        )


def _refuse(deadline: Deadline | None) -> None:
    if deadline is not None:
        raise InputError("diffusers' loops cannot stop early: use no deadline with them")


def _result(X: Tensor, rounds: int, evals: int, residual: float) -> SampleResult:
    """`X` (batch, N + 1, *shape); all samples of the batch share rounds and rows."""
    batch = len(X)
    finite = X[:, -1].isfinite().flatten(1).all(dim=1).tolist()
    unknown = torch.full((batch,), residual)
    return SampleResult(
        sample=X[:, -1],
        trajectory=X,
        rounds=torch.full((batch,), rounds),
        evals=torch.full((batch,), evals),
        residual=unknown,
        correction=unknown,
        residuals=torch.full((rounds, batch), residual),
        status=tuple(Status.CONVERGED if ok else Status.NON_FINITE for ok in finite),
    )
