"""Sampling from any network and scheduler, without a policy: `sample`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from para_policy import samplers
from para_policy.adapters.solve import Mixed, draw_steps, gather, solve
from para_policy.arguments import check_kind
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import Scheduler
from para_policy.errors import InputError
from para_policy.inference.device import check_device
from para_policy.samplers import Sampler, SampleResult, as_sampler
from para_policy.samplers.checks import check_count


@torch.no_grad()
def sample(
    denoise: Callable[..., Tensor],
    scheduler: Scheduler,
    start: Tensor | Sequence[int],
    *,
    steps: int | None = None,
    sampler: str | Sampler = "x0",
    condition: Tensor | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    partial: bool = False,
    **options: Any,
) -> SampleResult:
    """Solve the denoising steps of a diffusers scheduler in parallel.

    The sample is that of the usual loop, `x = scheduler.step(denoise(x, t), t, x).prev_sample`, up
    to the sampler's tolerance, if that draws its noise from the same generator.

    Args:
        denoise: `denoise(x, t)`, or `denoise(x, t, condition)` if there is one: states (M, *shape)
            of *many* timesteps (M,), int64 or with flow matching floating point, to the scheduler's
            prediction type (M, *shape).
        scheduler: as `Process.from_scheduler` takes it; left unchanged.
        start: initial noise X_0 (batch, *shape), or its shape, to be drawn; shapes of any rank.
        steps: N; None keeps the timesteps that the scheduler has, or uses all.
        sampler: a name from `samplers.names()`, or a sampler.
        condition: (batch, ...), row i belongs to sample i.
        eta: noise level of DDIM in [0, 1].
        generator: of all noise; None for torch's global one.
        device: where noise is drawn, if `start` is a shape.
        partial: return the other samples of a batch where some are not finite; those are NaN.
        options: of the sampler, such as `tolerance` and `window`; see `samplers.options(name)`.

    Returns:
        `sample` (batch, *shape), float32 or float64, and for every sample `rounds`, `evals`,
        `converged`, `status` and the rest of `SampleResult`.

    Raises:
        InputError: for schedulers, options or shapes that do not fit, and for what a network returns
            if it is no tensor, or one of another shape, type or device.
        NonFiniteError: if a sample holds NaN or infinity, unless `partial`.

    >>> from diffusers import DDIMScheduler
    >>> scheduler = DDIMScheduler(1000, prediction_type="sample")
    >>> result = sample(lambda x, t: 0.5 * x.tanh(), scheduler, (2, 3, 8, 8), steps=50)
    >>> result.sample.shape, bool(result.converged.all()), int(result.rounds.max()) < 20
    (torch.Size([2, 3, 8, 8]), True, True)
    """
    check_kind("denoise", denoise, Callable)
    check_kind("start", start, Tensor, Sequence)
    check_kind("condition", condition, Tensor, NoneType)
    check_kind("generator", generator, torch.Generator, NoneType)
    check_kind("steps", steps, Integral, NoneType)
    if isinstance(sampler, str):
        sampler = samplers.get(sampler, **options)
    elif options:
        raise InputError(f"options {sorted(options)} are for a sampler by name; set them in yours")
    sampler = as_sampler(sampler)
    if isinstance(start, Tensor):
        initial = start
    else:
        for size in start:
            check_count("a size in start", size)
        initial = torch.randn(tuple(start), generator=generator, device=check_device(device))
    check_device(initial.device)
    if initial.ndim < 2 or len(initial) == 0:
        raise InputError(
            f"start is {tuple(initial.shape)}; expected (batch, *shape), batch above 0"
        )
    if not initial.is_floating_point():
        raise InputError(f"start has dtype {initial.dtype}; expected floating-point numbers")
    if condition is not None and len(condition) != len(initial):
        raise InputError(
            f"condition has {len(condition)} rows for {len(initial)} samples; expected as many"
        )
    process = Process.from_scheduler(scheduler, steps, eta=eta)
    network = Mixed.here(denoise, initial.dtype, initial.device)
    dtype = network.step_noise_dtype(process, initial, condition)
    drawn = draw_steps(process, initial, dtype, eta=eta, generator=generator)
    noise = gather(sampler, network, initial, drawn, generator)
    return solve(sampler, network, condition, process, noise, partial=partial)
