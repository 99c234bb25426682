"""`sample`: any network and scheduler, compared with the loop that diffusers' users write."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
)
from torch import Tensor

from para_policy import samplers
from para_policy.adapters import sample
from para_policy.diffusion.schedulers import SCHEDULERS
from para_policy.errors import InputError, NonFiniteError
from para_policy.samplers import SampleResult
from tests import problems

UNTRAINED = ("sequential", "paradigms", "parataa", "x0", "asd")
PARALLEL = {"ddpm": DDPMParallelScheduler, "ddim": DDIMParallelScheduler}


def denoise(x: Tensor, t: Tensor) -> Tensor:
    phase = t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)) / 100
    return x - 0.3 * torch.tanh(x + x.flip(-1)) + 0.1 * phase


def loop(
    scheduler: Any, shape: tuple[int, ...], steps: int, start: Tensor | None = None, **options: Any
) -> Tensor:
    """The sequential loop, with a generator of seed 3."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator) if start is None else start
    scheduler.set_timesteps(steps)
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = generator
    for t in scheduler.timesteps:
        output = denoise(x, t.expand(len(x)))
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("shape", [(2, 5), (2, 50, 1), (1, 3, 6, 6), (1, 2, 3, 4, 4)])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_any_shape_and_scheduler(shape: tuple[int, ...], kind: str) -> None:
    scheduler = problems.scheduler(kind)
    # Steps are network calls, of which Heun's rule makes two for each level but the last.
    expected = loop(scheduler, shape, 13 if kind == "flow_match_heun" else 25)
    generator = torch.Generator().manual_seed(3)
    result = sample(denoise, scheduler, shape, steps=25, tolerance=1e-5, generator=generator)
    assert float((result.sample - expected).abs().max()) < 1e-4
    assert result.converged.all()
    assert result.rounds.shape == (shape[0],)


def test_stochastic_flow_matching_draws_as_its_loop_does() -> None:
    scheduler = problems.scheduler("flow_match_euler", stochastic_sampling=True)
    expected = loop(scheduler, (2, 4, 3), 20)
    generator = torch.Generator().manual_seed(3)
    found = sample(denoise, scheduler, (2, 4, 3), steps=20, tolerance=1e-5, generator=generator)
    assert float((found.sample - expected).abs().max()) < 1e-4


def test_stochastic_ddim_and_given_noise() -> None:
    scheduler, start = problems.scheduler("ddim"), torch.randn(2, 4, 3)
    expected = loop(scheduler, (2, 4, 3), 20, start, eta=0.7)
    given = {"steps": 20, "eta": 0.7, "tolerance": 1e-5}
    found = sample(denoise, scheduler, start, generator=torch.Generator().manual_seed(3), **given)
    assert float((found.sample - expected).abs().max()) < 1e-4
    torch.manual_seed(3)  # None is torch's global generator
    assert torch.equal(sample(denoise, scheduler, start, **given).sample, found.sample)


def test_each_sample_has_its_condition() -> None:
    scheduler, start = problems.scheduler("ddim"), torch.randn(3, 4)
    shift = torch.tensor([[-0.5], [0.0], [0.5]])
    together = sample(
        lambda x, t, c: denoise(x, t) + c, scheduler, start, condition=shift, tolerance=1e-6
    )
    for i in range(3):
        alone = sample(
            lambda x, t, i=i: denoise(x, t) + shift[i], scheduler, start[i : i + 1], tolerance=1e-6
        )
        assert torch.allclose(together.sample[i], alone.sample[0], atol=1e-4)


def test_the_scheduler_is_left_alone() -> None:
    scheduler = problems.scheduler("ddpm")
    scheduler.set_timesteps(10)
    before = scheduler.timesteps.clone()
    assert sample(denoise, scheduler, (1, 4)).trajectory.shape[1] == 11  # what is set
    sample(denoise, scheduler, (1, 4), steps=7)
    assert torch.equal(scheduler.timesteps, before)


def test_asd_gets_its_coins_from_the_generator() -> None:
    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        scheduler = problems.scheduler("ddpm")
        return sample(denoise, scheduler, (2, 4), sampler="asd", generator=generator).sample

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": (3,)}, r"start is \(3,\); expected \(batch, \*shape\)"),
        ({"start": torch.zeros(0, 3)}, r"start is \(0, 3\)"),
        ({"condition": torch.zeros(2, 1)}, "condition has 2 rows for 1 samples"),
        ({"sampler": "fast"}, "unknown sampler 'fast'"),
        ({"sampler": samplers.get("x0"), "tolerance": 1e-3}, r"options \['tolerance'\]"),
        ({"steps": 101}, "num_steps is 101"),
        ({"eta": 0.5}, "only DDIM takes it"),
        ({"start": torch.zeros(1, 3, dtype=torch.int64)}, "dtype torch.int64"),
    ],
)
def test_bad_arguments(given: dict[str, Any], message: str) -> None:
    arguments = {"start": (1, 3), **given}
    with pytest.raises(InputError, match=message):
        sample(denoise, problems.scheduler("ddpm"), **arguments)


@dataclass(frozen=True)
class Output:
    """As diffusers' own networks answer."""

    sample: Tensor


ANSWERS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a list": (lambda x: [x], "returns a list, not a tensor"),
    "nothing": (lambda x: None, "returns a NoneType"),
    "numpy": (lambda x: x.numpy(), "returns a ndarray"),
    "an object": (Output, "returns a Output, not a tensor; return its attribute 'sample'"),
    "too few rows": (lambda x: x[:1], r"maps \(\d+, 4\) to \(1, 4\)"),
    "more channels": (lambda x: torch.cat([x, x], dim=1), r"\(\d+, 8\); the shape must not change"),
    "one number": (lambda x: x.sum(), r"to \(\)"),
    "whole numbers": (lambda x: x.long(), "to torch.int64"),
    "complex numbers": (lambda x: x + 1j, "to torch.complex64"),
    "elsewhere": (lambda x: x.to("meta"), "float32 on meta"),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("sampler", ["sequential", "x0"])
def test_answers_that_are_no_prediction_are_refused(sampler: str, answer: str) -> None:
    make, message = ANSWERS[answer]
    with pytest.raises(InputError, match=message):
        sample(lambda x, t: make(x), problems.scheduler("ddim"), (3, 4), steps=5, sampler=sampler)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_predictions_of_another_precision_are_taken(dtype: torch.dtype) -> None:
    scheduler, noise = problems.scheduler("ddim"), torch.randn(2, 4)
    result = sample(lambda x, t: (0.5 * x).to(dtype), scheduler, noise, steps=5)
    assert (result.sample.dtype, bool(result.converged.all())) == (torch.float32, True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("sampler", UNTRAINED)
def test_nan_is_an_error_for_every_sampler_unless_the_rest_is_asked_for(
    sampler: str, bad: float
) -> None:
    start, condition = torch.randn(3, 4), torch.tensor([[0.0], [bad], [0.0]])

    def answer(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return 0.5 * x + condition

    given: dict[str, Any] = {"steps": 8, "sampler": sampler, "condition": condition}
    scheduler = problems.scheduler("ddpm")  # asd needs noise in every step
    with pytest.raises(NonFiniteError, match=r"1 of 3 samples .*number 1.*must not be executed"):
        sample(answer, scheduler, start, **given)
    result = sample(answer, scheduler, start, partial=True, **given)
    assert result.converged.tolist() == [True, False, True]
    assert result.sample.isnan().all(dim=1).tolist() == [False, True, False]
    assert result.sample[[0, 2]].isfinite().all()


def test_a_sampler_of_ones_own_may_not_hide_nan_either() -> None:
    def own(*args: Any, **kwargs: Any) -> SampleResult:
        result = samplers.get("sequential")(*args, **kwargs)
        return replace(result, sample=result.sample * torch.nan)

    with pytest.raises(NonFiniteError, match="2 of 2 samples"):
        sample(denoise, problems.scheduler("ddim"), (2, 4), steps=5, sampler=own)
    result = sample(denoise, problems.scheduler("ddim"), (2, 4), steps=5, sampler=own, partial=True)
    assert not result.converged.any()


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_diffusers_parallel_schedulers_take_the_same_steps(kind: str) -> None:
    plain = problems.scheduler(kind)
    parallel = PARALLEL[kind].from_config(plain.config)
    expected = loop(parallel, (2, 5), 20)
    generator = torch.Generator().manual_seed(3)
    result = sample(denoise, parallel, (2, 5), steps=20, tolerance=1e-5, generator=generator)
    assert float((result.sample - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("target", [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_options_that_a_former_scheduler_leaves_behind_have_no_effect(
    kind: str, target: type[Any]
) -> None:
    """`from_config` keeps clip_sample in the configuration of DPM-Solver, which does not clip."""
    options = {"clip_sample": True, "clip_sample_range": 0.3}
    if kind == "ddpm":  # DDIM cannot represent it, and DPM-Solver has nothing to do with it
        options["variance_type"] = "fixed_large"
    scheduler = target.from_config(
        dict(problems.scheduler(kind, **options).config), lambda_min_clipped=-5.1
    )
    expected = loop(scheduler, (2, 5), 20)
    generator = torch.Generator().manual_seed(3)
    result = sample(denoise, scheduler, (2, 5), steps=20, tolerance=1e-5, generator=generator)
    assert float((result.sample - expected).abs().max()) < 1e-4
