"""A part of the clean sample is known: every sampler solves the problem that is left."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from para_policy import Denoiser, Noise, samplers
from para_policy.diffusion.inpainting import Inpainting, prefix_weights
from para_policy.errors import InputError
from para_policy.samplers import SampleResult
from tests import problems

BATCH, HORIZON, WIDTH, N = 3, 6, 2, 20
SHAPE = (HORIZON, WIDTH)
TIGHT = {
    "paradigms": {"tolerance": 1e-6, "window": None},
    "parataa": {"tolerance": 1e-9, "relative_tolerance": 0.0},
    "x0": {"tolerance": 1e-8},
    "chord": {"tolerance": 1e-8},
    "collocation": {"tolerance": 1e-8},
}


def solve(
    name: str, kind: str, known: Inpainting | None, data: problems.Data | None = None
) -> SampleResult:
    problem = problems.problem(kind, N, data or problems.Mixture())
    noise = Noise.from_seeds(range(BATCH), SHAPE, N, dtype=torch.float64)
    denoiser = Denoiser(problem.network, known=known)
    sampler = problems.solver(name, problem.process, math.prod(SHAPE), **TIGHT.get(name, {}))
    return sampler(denoiser, problem.process, noise)


def known_prefix(count: int, *, soft: bool = False) -> Inpainting:
    drawn = torch.Generator().manual_seed(1)
    sample = torch.rand(BATCH, *SHAPE, dtype=torch.float64, generator=drawn)
    counts = torch.full((BATCH,), count)
    weight = prefix_weights(counts, torch.full((BATCH,), HORIZON), HORIZON, soft=soft)
    return Inpainting(1.6 * sample - 0.8, weight)


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["sequential", *TIGHT])
def test_the_known_part_comes_out_and_all_samplers_agree_on_the_rest(
    name: str, kind: str, soft: bool
) -> None:
    known = known_prefix(2, soft=soft)
    reference, result = solve("sequential", kind, known), solve(name, kind, known)
    assert result.converged.all()
    torch.testing.assert_close(result.sample, reference.sample, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.sample[:, :2], known.sample[:, :2], rtol=0, atol=1e-6)
    free = solve("sequential", kind, None)
    assert (reference.sample[:, 2:] - free.sample[:, 2:]).abs().max() > 0.01  # it fits the prefix


def test_the_known_part_is_exact_to_the_bit_and_its_states_are_the_posteriors() -> None:
    known = known_prefix(HORIZON)
    result = solve("sequential", "ddpm", known)
    assert torch.equal(result.sample, known.sample)
    process = problems.problem("ddpm", N).process.to("cpu", torch.float64)
    noise = Noise.from_seeds(range(BATCH), SHAPE, N, dtype=torch.float64)
    X = noise.initial
    for s in range(N):
        X = process.B[s] * X + process.A[s] * known.sample + process.c[s] * noise.steps[:, s]
        torch.testing.assert_close(result.trajectory[:, s + 1], X, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["sequential", *TIGHT])
def test_weights_of_zero_change_no_bit(name: str) -> None:
    nothing = dataclasses.replace(known_prefix(0), weight=torch.zeros(BATCH, 1, 1))
    assert torch.equal(solve(name, "ddpm", nothing).sample, solve(name, "ddpm", None).sample)


def test_independent_coordinates_do_not_notice() -> None:
    gaussian = problems.Gaussian(0.1, 0.2)
    known = known_prefix(3)
    free, bound = (solve("sequential", "ddpm", part, gaussian) for part in (None, known))
    assert torch.equal(free.sample[:, 3:], bound.sample[:, 3:])


def test_each_sample_has_its_own_known_part() -> None:
    both = known_prefix(2)
    weight = both.weight.clone()
    weight[1] = 0.0
    mixed = solve("x0", "ddpm", dataclasses.replace(both, weight=weight))
    bound, free = solve("x0", "ddpm", both), solve("x0", "ddpm", None)
    for row, alike in enumerate([bound, free, bound]):
        torch.testing.assert_close(mixed.sample[row], alike.sample[row], rtol=0, atol=1e-12)


def test_values_beyond_the_clip_are_clipped_like_predictions() -> None:
    known = dataclasses.replace(known_prefix(1), sample=torch.full((BATCH, *SHAPE), 3.0))
    assert solve("sequential", "ddpm", known).sample[:, 0].unique().tolist() == [1.0]


@given(st.integers(0, 16), st.integers(0, 16))
def test_prefix_weights(frozen: int, rest: int) -> None:
    horizon = 16
    last = min(frozen + rest, horizon)
    hard, soft = (
        prefix_weights(torch.tensor([frozen]), torch.tensor([last]), horizon, soft=soft)[0, :, 0]
        for soft in (False, True)
    )
    assert hard.tolist() == [1.0] * frozen + [0.0] * (horizon - frozen)
    for i in range(horizon):
        c = (last - i) / (last - frozen + 1)
        later = c * (math.e**c - 1) / (math.e - 1) if i < last else 0.0
        assert soft[i].item() == pytest.approx(1.0 if i < frozen else later)
    assert (soft.diff() <= 0).all()


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(-1e6, 1e6), st.floats(-1, 1))
def test_a_projection_lies_between(weight: float, clean: float, value: float) -> None:
    known = Inpainting(
        torch.tensor([[value]], dtype=torch.float64), torch.tensor([[weight]], dtype=torch.float64)
    )
    made = known.project(torch.tensor([[clean]], dtype=torch.float64), torch.tensor([0])).item()
    assert made == pytest.approx(clean + weight * (value - clean), rel=1e-9, abs=1e-9)
    if weight in (0.0, 1.0):
        assert made == (value if weight else clean)


@pytest.mark.parametrize(
    ("sample", "weight", "problem"),
    [
        (torch.zeros(2, 4, 1), torch.ones(2, 3, 1), r"weights \(2, 3, 1\) do not fit"),
        (torch.zeros(2, 4, 1), torch.ones(3, 2, 4, 1), "do not fit"),
        (torch.zeros(2, 4, 1), torch.full((2, 4, 1), 1.5), "not in"),
        (torch.zeros(2, 4, 1), torch.full((2, 4, 1), -0.1), "not in"),
        (torch.zeros(2, 4, 1), torch.full((2, 4, 1), math.nan), "not in"),
        (torch.full((2, 4, 1), math.nan), torch.ones(2, 4, 1), "NaN"),
    ],
)
def test_what_makes_no_sense_is_refused(sample: Tensor, weight: Tensor, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Inpainting(sample, weight)


def test_asd_samples_the_same_problem() -> None:
    known = known_prefix(2)
    problem = problems.problem("ddpm", N, problems.Mixture())
    noise = Noise.from_seeds(range(BATCH), SHAPE, N, dtype=torch.float64)
    result = samplers.get("asd")(Denoiser(problem.network, known=known), problem.process, noise)
    assert torch.equal(result.sample[:, :2], known.sample[:, :2])
