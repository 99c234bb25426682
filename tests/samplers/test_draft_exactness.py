"""Exactness of PCM: another network begins the solve, the base network alone decides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from para_policy import Denoiser, Noise, load_policy
from para_policy.checkpoints.native import read_config
from para_policy.checkpoints.observations import read_observations
from para_policy.samplers import SPLITTINGS, Draft, Status
from tests.problems import Mixture, Network, Problem, Rational, problem
from tests.samplers.drafts import (
    ADVERSARIES,
    BLENDS,
    KINDS,
    LAYOUTS,
    SEQUENTIAL,
    WRONG,
    Log,
    N,
    always,
    assert_exact,
    between,
    draft_calls,
    exact_problem,
    noise_of,
    options_of,
    pcm,
)
from tests.training.demonstrations import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_tolerance_zero_gives_the_sequential_floats(
    kind: str, blend: str, splitting: str, layout: dict[str, Any]
) -> None:
    solved = exact_problem(kind)
    options = {"blend": blend, "horizon": 3, "tolerance": 0.0, **layout}
    sampler = pcm(between(solved.network, WRONG), splitting, **options)
    assert_exact(solved, sampler, noise_of(solved, dtype=torch.float32))


@pytest.mark.parametrize("layout", ["all rows", "window", "lookahead"])
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tight_tolerance_gives_the_sequential_sample_of_a_mixture(
    kind: str, splitting: str, layout: str
) -> None:
    solved = problem(kind, 16)
    other = problem(kind, 16, Mixture(seed=9)).network
    noise = noise_of(solved)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    for blend in BLENDS:
        options = {"blend": blend, "horizon": 2, "tolerance": 1e-8, **LAYOUTS[layout]}
        sampler = pcm(between(solved.network, other), splitting, steps=16, **options)
        result = solved.solve(sampler, noise)
        assert set(result.status) == {Status.CONVERGED}
        torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("tuned", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_fine_tuned_network_can_reach_the_answer(
    kind: str, splitting: str, tuned: Network
) -> None:
    solved = exact_problem(kind)
    noise = noise_of(solved)
    for blend, layout in zip(BLENDS, ("all rows", "window", "lookahead"), strict=True):
        options = {"blend": blend, "horizon": 2, "tolerance": 0.0, **LAYOUTS[layout]}
        assert_exact(solved, pcm(always(tuned), splitting, **options), noise)


@pytest.mark.parametrize("tuned", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_unclipped_predictions_cannot_either(splitting: str, tuned: Network) -> None:
    base = problem("ddim", N, clip_sample=False, eta=0.5)
    solved = Problem(Rational(), base.process)
    dtypes = itertools.cycle((torch.float32, torch.float64))
    for dtype, layout in zip(dtypes, ({}, *LAYOUTS.values()), strict=False):
        sampler = pcm(always(tuned), splitting, horizon=2, tolerance=0.0, **layout)
        assert_exact(solved, sampler, noise_of(solved, dtype=dtype))


@settings(max_examples=120)
@given(
    steps=st.integers(1, 10),
    kind=st.sampled_from(KINDS),
    splitting=st.sampled_from(SPLITTINGS),
    tuned=st.sampled_from(list(ADVERSARIES)),
    options=options_of(),
    seed=st.integers(0, 10**6),
)
def test_every_solve_is_exact_and_counts_its_calls(
    steps: int, kind: str, splitting: str, tuned: str, options: dict[str, Any], seed: int
) -> None:
    log = Log(exact_problem(kind, steps), ADVERSARIES[tuned])
    sampler = pcm(log.consistency, splitting, steps=steps, tolerance=0.0, **options)
    noise = noise_of(log.solved, first_seed=seed)
    result, denoiser = log.solve(sampler, noise)
    assert set(result.status) == {Status.CONVERGED}
    assert torch.equal(result.trajectory, log.solved.solve(SEQUENTIAL, noise).trajectory)
    assert isinstance(sampler.guess, Draft)
    drafts = draft_calls(sampler.guess)
    assert drafts < result.rounds.max() <= steps + drafts
    assert (denoiser.rounds, denoiser.evals) == (result.rounds.max(), result.evals.sum())
    assert {share for share, _ in log.calls[drafts:]} == {0.0}


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_the_shipped_network_with_filled_calls_gives_the_very_floats(splitting: str) -> None:
    path, steps = REPOSITORY / "checkpoints" / "pusht_state", 8
    policy = load_policy(path, calibrated=False)
    values = {name: value[:1] for name, value in read_observations(path, read_config(path)).items()}
    condition = policy.denoiser(values).condition
    noise = Noise.from_seeds([3], (16, 2), steps)

    def tuned(share: float) -> Network:
        return lambda *inputs: (1 + share) * policy.network(*inputs)

    if splitting == "chord":
        drawn = torch.randn(steps, 32, 32, generator=torch.Generator().manual_seed(0))
        made = pcm(tuned, splitting, matrices=0.1 * drawn, horizon=2, tolerance=0.0)
    else:
        made = pcm(tuned, splitting, horizon=2, blend="features", tolerance=0.0)
    padded, process = (
        Denoiser(policy.network, condition, pad_to=steps),
        policy.process("ddim", steps),
    )
    exact, result = (sampler(padded, process, noise) for sampler in (SEQUENTIAL, made))
    assert result.converged.all()
    assert torch.equal(result.trajectory, exact.trajectory)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(KINDS),
    splitting=st.sampled_from(SPLITTINGS),
    tuned=st.sampled_from(list(ADVERSARIES)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    tolerance=st.sampled_from([0.0, 1e-3, 0.1]),
    options=options_of(),
)
def test_a_sample_does_not_depend_on_the_rest_of_its_batch(
    kind: str,
    splitting: str,
    tuned: str,
    dtype: torch.dtype,
    tolerance: float,
    options: dict[str, Any],
) -> None:
    solved = exact_problem(kind, 8)
    consistency = between(solved.network, ADVERSARIES[tuned])
    sampler = pcm(consistency, splitting, steps=8, tolerance=tolerance, **options)
    noise = noise_of(solved, batch=4, dtype=dtype)
    together = solved.solve(sampler, noise)
    for i in range(4):
        alone = solved.solve(sampler, noise.select([i]))
        assert torch.equal(alone.trajectory[0], together.trajectory[i])
        for statistic in ("rounds", "evals", "residual", "correction"):
            assert getattr(alone, statistic)[0] == getattr(together, statistic)[i], statistic


@pytest.mark.parametrize(
    ("splitting", "tolerance"), [("identity", 1.0), ("x0", 0.1), ("chord", 0.1)]
)
def test_samples_leave_at_different_times_with_the_same_answer(
    splitting: str, tolerance: float
) -> None:
    solved = problem("ddpm", 24)
    other = problem("ddpm", 24, Mixture(seed=9)).network
    noise = noise_of(solved, batch=6)
    options = {"steps": 24, "tolerance": tolerance, "horizon": 2}
    sampler = pcm(between(solved.network, other), splitting, **options)
    together = solved.solve(sampler, noise)
    assert len(set(together.rounds.tolist())) > 1
    for i in range(6):
        alone = solved.solve(sampler, noise.select([i]))
        torch.testing.assert_close(alone.trajectory[0], together.trajectory[i], rtol=0, atol=1e-12)
        assert alone.rounds[0] == together.rounds[i]
