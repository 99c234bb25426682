"""States that a draft of PCM leaves, also where its network fails."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Noise
from para_policy.samplers import SPLITTINGS, Prior, Status, Trajectory
from tests.problems import Network, Problem, Rational, problem
from tests.samplers.drafts import (
    BLENDS,
    KINDS,
    SEQUENTIAL,
    N,
    always,
    base_only,
    between,
    constant,
    exact_problem,
    iterates,
    linear_part,
    noise_of,
    pcm,
    swept,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_network_makes_plain_sweeps_of_the_base_network(
    kind: str, blend: str, splitting: str
) -> None:
    """Neither window nor acceleration touches the drafts."""
    solved = exact_problem(kind)
    noise = noise_of(solved)
    sampler = pcm(
        always(solved.network), splitting, blend=blend, horizon=4, window=3, tolerance=0.0
    )
    _, seen = iterates(solved, sampler, noise)
    X, _ = Prior().start(solved.process, noise)
    for state in seen[:4]:
        X = swept(solved, X, noise, linear_part(splitting, solved))
        torch.testing.assert_close(state, X, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_untrained_draft_is_the_first_base_sweep_to_the_bit(
    kind: str, splitting: str
) -> None:
    solved = exact_problem(kind)
    noise = noise_of(solved)
    sampler = pcm(always(solved.network), splitting, history=1, tolerance=0.0)
    (drafted, *_), (plain, *_) = (
        iterates(solved, made, noise)[1] for made in (sampler, base_only(sampler))
    )
    assert torch.equal(drafted, plain)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_shares_weigh_the_step_and_not_its_input(kind: str, blend: str) -> None:
    """Clipping makes the difference between blended weights and blended steps."""
    solved = exact_problem(kind)
    noise = noise_of(solved)

    def tuned(x: Tensor, t: Tensor) -> Tensor:
        return solved.network(x, t) + 3.0

    mixed = between(solved.network, tuned)
    sampler = pcm(mixed, "x0", blend=blend, horizon=4, tolerance=0.0)
    _, seen = iterates(solved, sampler, noise)
    first = torch.zeros(2, dtype=torch.int64)

    def step(network: Network) -> Tensor:
        x = noise.initial
        clean = solved.process.predict_clean(x, network(x, solved.process.timesteps[first]), first)
        noisy = solved.process.noise(noise.steps[:, 0], first)
        return solved.process.mean(x, clean, clean, first) + noisy

    base, full = step(solved.network), step(tuned)
    for k, share in enumerate([1.0, 0.75, 0.5, 0.25, 0.0]):
        expected = {
            "weights": step(mixed(share)),
            "features": share * full + (1 - share) * base,
            "none": full if share else base,
        }[blend]
        torch.testing.assert_close(seen[k][:, 1], expected, rtol=0, atol=1e-12)
    assert not torch.allclose(base, full)


@pytest.mark.parametrize("layout", [{}, {"window": 4}, {"window": 4, "lookahead": 3}], ids=str)
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_after_the_switch_it_is_the_base_solve_from_the_last_draft(
    kind: str, splitting: str, layout: dict[str, Any]
) -> None:
    """Its residual and correction know nothing of the drafts, which a loose tolerance lets pass."""
    solved = exact_problem(kind)
    noise = noise_of(solved)
    options = {"horizon": 2, "tolerance": 0.5, **layout}
    sampler = pcm(always(solved.network), splitting, **options)
    result, seen = iterates(solved, sampler, noise)
    plain = base_only(sampler)
    expected, states = iterates(solved, plain, noise, guess=Trajectory(seen[1]))
    assert all(torch.equal(a, b) for a, b in zip(seen[2:], states, strict=True))
    assert torch.equal(result.residual, expected.residual)
    assert torch.equal(result.correction, expected.correction)
    assert torch.equal(result.rounds, expected.rounds + 2)
    assert torch.equal(result.evals, expected.evals + 2 * N)
    torch.testing.assert_close(
        result.residuals[2:], expected.residuals, rtol=0, atol=0, equal_nan=True
    )


def state_blind(solved: Problem, noise: Noise) -> Network:
    """Predicts, whatever the state, what the base network says along the solution."""
    states = solved.solve(SEQUENTIAL, noise).trajectory[0]
    steps = {int(t): s for s, t in enumerate(solved.process.timesteps)}

    def network(x: Tensor, t: Tensor) -> Tensor:
        return solved.network(states[[steps[int(value)] for value in t]], t)

    return network


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_draft_is_confirmed_in_one_round(kind: str) -> None:
    solved = Problem(Rational(0.5), problem(kind, N, prediction_type="sample").process)
    noise = noise_of(solved, batch=1)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    tuned = always(state_blind(solved, noise))
    sampler = pcm(tuned, "x0", tolerance=1e-9)
    result, seen = iterates(solved, sampler, noise)
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-12)
    assert result.rounds.tolist() == [2]
    plain = solved.solve(base_only(sampler), noise)
    assert plain.rounds.item() > 2


@pytest.mark.parametrize("stride", [2, 3, 7, N])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_strided_draft_interpolates_between_its_rows(kind: str, stride: int) -> None:
    """Predictions that are linear in the step, and ignore the state, need only a few rows."""
    process = problem(kind, N, prediction_type="sample").process

    def net(x: Tensor, t: Tensor) -> Tensor:
        row = N - 1 - torch.searchsorted(process.timesteps.flip(0), t)
        return 0 * x + 0.05 * row.to(x.dtype).reshape(-1, 1, 1) - 0.3

    solved = Problem(net, process)
    noise = noise_of(solved)
    result, seen = iterates(solved, pcm(always(net), "x0", stride=stride), noise)
    torch.testing.assert_close(
        seen[0], solved.solve(SEQUENTIAL, noise).trajectory, rtol=0, atol=1e-6
    )
    assert result.rounds.tolist() == [2, 2]


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"stride": 3},
        {"window": 4},
        {"window": 4, "lookahead": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("splitting", ["x0", "chord"])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_draft_of_nan_is_passed_over(
    kind: str, splitting: str, layout: dict[str, Any], history: int
) -> None:
    """What follows is the solve without a fine-tuned network."""
    solved = exact_problem(kind)
    noise = noise_of(solved)
    sampler = pcm(
        always(constant(math.nan)), splitting, horizon=2, tolerance=1e-3, history=history, **layout
    )
    result, seen = iterates(solved, sampler, noise)
    plain, expected = iterates(solved, base_only(sampler), noise)
    start, _ = Prior().start(solved.process, noise)
    assert all(torch.equal(state, start) for state in seen[:2])
    assert result.rounds.tolist() == [rounds + 2 for rounds in plain.rounds.tolist()]
    for state, want in zip(seen[2:], expected, strict=True):
        torch.testing.assert_close(state, want, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_numbers_leave_the_other_rows_a_draft(bad: float) -> None:
    solved = Problem(constant(0.3), problem("ddim", N, prediction_type="sample").process)
    noise = noise_of(solved)
    row = 5

    def tuned(x: Tensor, t: Tensor) -> Tensor:
        broken = (t == solved.process.timesteps[row])[:, None, None]
        return torch.where(broken, bad, torch.full_like(x, 0.3))

    _, seen = iterates(solved, pcm(always(tuned), "x0", tolerance=1e-9), noise)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    assert seen[0].isfinite().all()
    torch.testing.assert_close(seen[0][:, : row + 1], expected[:, : row + 1], rtol=0, atol=1e-12)
    assert not torch.allclose(seen[0][:, row + 1], expected[:, row + 1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_sample_whose_draft_breaks_leaves_the_others_alone(
    splitting: str, blend: str, bad: float
) -> None:
    base = exact_problem("ddpm")
    noise = noise_of(base, batch=3)

    def network(x: Tensor, t: Tensor, poison: Tensor) -> Tensor:
        return base.network(x, t)

    def tuned(x: Tensor, t: Tensor, poison: Tensor) -> Tensor:
        return base.network(x, t) + 0.1 + poison[:, None, None]

    sampler = pcm(always(tuned), splitting, blend=blend, horizon=2, tolerance=1e-3)
    together = sampler(
        Denoiser(network, torch.tensor([0.0, bad, 0.0], dtype=torch.float64)), base.process, noise
    )
    healthy = torch.zeros(2, dtype=torch.float64)
    alone = sampler(Denoiser(network, healthy), base.process, noise.select([0, 2]))
    assert set(together.status) == {Status.CONVERGED}
    assert torch.equal(together.trajectory[[0, 2]], alone.trajectory)
    assert together.rounds[[0, 2]].tolist() == alone.rounds.tolist()
    assert together.trajectory[1].isfinite().all()


@pytest.mark.parametrize("blend", BLENDS)
def test_a_broken_base_network_shows_whatever_the_drafts_said(blend: str) -> None:
    base = exact_problem("ddim")
    last = base.process.timesteps[-1]

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t == last)[:, None, None], torch.nan, base.network(x, t))

    solved = Problem(net, base.process)
    sampler = pcm(always(base.network), "x0", blend=blend, horizon=3)
    result = solved.solve(sampler, noise_of(solved), partial=True)
    assert set(result.status) == {Status.NON_FINITE}
