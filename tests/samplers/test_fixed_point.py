"""Guarantees of the engine that hold for every network, tolerance and window."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, samplers
from para_policy.errors import InputError
from para_policy.samplers import RoundInfo, Status
from tests.problems import SOLVERS, Gaussian, Mixture, Problem, problem, row_by_row, solver

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["ddpm", "ddim", "dpmsolver++"]
SEQUENTIAL = samplers.get("sequential")
N = 20


def exact_problem(kind: str, num_steps: int = N) -> Problem:
    """A mixture whose network computes row by row, so that bitwise claims can be checked."""
    made = problem(kind, num_steps)
    return Problem(row_by_row(made.network), made.process)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_window_one_is_the_sequential_sampler_to_the_bit(kind: str, dtype: torch.dtype) -> None:
    solved = exact_problem(kind)
    noise = solved.noise(dtype=dtype)
    result = solved.solve(samplers.get("paradigms", window=1), noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert result.rounds.tolist() == result.evals.tolist() == [N] * 3
    assert (result.residual == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("window", [2, 7, N, None])
@pytest.mark.parametrize("kind", KINDS)
def test_tolerance_zero_is_the_sequential_sampler_to_the_bit(
    kind: str, window: int | None, dtype: torch.dtype
) -> None:
    solved = exact_problem(kind)
    noise = solved.noise(dtype=dtype)
    result = solved.solve(samplers.get("paradigms", window=window, tolerance=0.0), noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert result.rounds.max() <= N
    assert (result.residual == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_after_m_rounds_the_first_m_states_are_exact(kind: str) -> None:
    solved = exact_problem(kind)
    noise = solved.noise()
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    seen = []

    def check(info: RoundInfo) -> None:
        seen.append(info.round)
        assert (info.accepted >= info.round).all()
        for got, want, frozen in zip(info.trajectory, expected, info.accepted, strict=True):
            assert torch.equal(got[: frozen + 1], want[: frozen + 1])

    solved.solve(samplers.get("paradigms", tolerance=0.0), noise, callback=check)
    assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("m", [1, 3, N - 1])
def test_a_round_budget_returns_the_exact_prefix_and_says_so(m: int) -> None:
    solved = exact_problem("ddpm")
    noise = solved.noise()
    sampler = samplers.get("paradigms", window=4, tolerance=0.0, max_rounds=m)
    result = solved.solve(sampler, noise)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    assert torch.equal(result.trajectory[:, : m + 1], expected[:, : m + 1])
    assert result.rounds.tolist() == [m] * 3
    assert torch.equal(result.residual, result.residuals[-1])  # not only of what is exact
    assert (result.residual > 0).all()
    assert set(result.status) == {Status.ROUND_BUDGET}
    assert not result.converged.any()
    assert "max_rounds" in Status.ROUND_BUDGET.value


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
@pytest.mark.parametrize("gain", [50.0, -50.0])
def test_a_saturated_clip_changes_nothing(kind: str, gain: float) -> None:
    """Every coordinate of x0hat sits on the bound; DDIM keeps the raw noise beside it."""
    base = problem(kind, N)
    solved = Problem(row_by_row(lambda x, t: gain * base.network(x, t) + gain), base.process)
    noise = solved.noise()
    expected = solved.solve(SEQUENTIAL, noise)
    exact = solved.solve(samplers.get("paradigms", tolerance=0.0), noise)
    assert torch.equal(exact.trajectory, expected.trajectory)
    close = solved.solve(samplers.get("paradigms", tolerance=1e-7), noise)
    scale = expected.trajectory.abs().max()
    assert ((close.trajectory - expected.trajectory).abs().max() / scale) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_sample_does_not_depend_on_the_rest_of_its_batch(name: str, kind: str) -> None:
    solved = exact_problem(kind)
    noise = solved.noise(batch=5)
    together = solved.solve(solver(name, solved.process, window=6), noise)
    for i in range(5):
        alone = solved.solve(solver(name, solved.process, window=6), noise.select([i]))
        assert torch.equal(alone.trajectory[0], together.trajectory[i])
        for statistic in ("rounds", "evals", "residual"):
            assert getattr(alone, statistic)[0] == getattr(together, statistic)[i], statistic
        rounds = int(alone.rounds[0])
        assert torch.equal(alone.residuals[:, 0], together.residuals[:rounds, i])


def test_counters_agree_with_the_denoiser() -> None:
    solved = problem("ddpm", 50)
    noise = solved.noise(batch=6)
    denoiser = Denoiser(solved.network)
    result = samplers.get("paradigms", window=8)(denoiser, solved.process, noise)
    assert denoiser.evals == result.evals.sum()
    assert denoiser.rounds == result.rounds.max() == len(result.residuals)
    sequential = Denoiser(solved.network)
    result = SEQUENTIAL(sequential, solved.process, noise)
    assert (sequential.rounds, sequential.evals) == (50, 300)
    assert result.rounds.tolist() == result.evals.tolist() == [50] * 6


def test_residuals_are_recorded_until_a_sample_leaves() -> None:
    solved = problem("ddpm", 50)
    result = solved.solve(samplers.get("paradigms", window=8), solved.noise(batch=6))
    assert len(set(result.rounds.tolist())) > 1, "samples are to leave at different times"
    for i, rounds in enumerate(result.rounds.tolist()):
        assert result.residuals[:rounds, i].isfinite().all()
        assert result.residuals[rounds:, i].isnan().all()


def test_the_residual_is_the_largest_residual_that_was_let_pass() -> None:
    """It vanishes with the tolerance, and no accepted residual is larger."""
    solved = problem("ddpm", 50)
    noise = solved.noise(batch=6)
    largest = []
    for tolerance in (1e-1, 1e-2, 1e-4, 0.0):
        result = solved.solve(samplers.get("paradigms", tolerance=tolerance), noise)
        largest.append(result.residual.max().item())
        assert (result.residual <= result.residuals.nan_to_num(0).amax(dim=0)).all()
    assert largest == sorted(largest, reverse=True)
    assert largest[-1] == 0


@pytest.mark.parametrize("name", SOLVERS)
def test_a_callback_sees_every_round(name: str) -> None:
    solved = problem("ddim", N)
    noise = solved.noise()
    seen: list[RoundInfo] = []

    def record(info: RoundInfo) -> None:
        seen.append(info)
        assert torch.equal(info.trajectory[:, 0], noise.initial)

    result = solved.solve(solver(name, solved.process), noise, callback=record)
    assert [info.round for info in seen] == list(range(1, int(result.rounds.max()) + 1))
    assert (seen[-1].accepted == N).all()
    assert all(
        info.accepted.shape == info.residual.shape == info.evals.shape == (3,) for info in seen
    )
    evals = torch.stack([torch.zeros_like(seen[0].evals), *(info.evals for info in seen)])
    assert torch.equal((evals.diff(dim=0) > 0).sum(dim=0), result.rounds)
    assert torch.equal(evals[-1], result.evals)
    assert torch.equal(seen[-1].trajectory, result.trajectory)


def test_what_a_callback_was_given_is_not_changed_afterwards() -> None:
    solved = problem("ddim", N)
    progress: list[Tensor] = []
    solved.solve(
        samplers.get("paradigms", window=4),
        solved.noise(),
        callback=lambda info: progress.append(info.accepted),
    )
    counts = torch.stack(progress)
    assert (counts.diff(dim=0) >= 0).all()
    assert (counts[0] < N).all(), "frozen of the first round was overwritten by later rounds"


@pytest.mark.parametrize("name", SOLVERS)
def test_the_arguments_are_left_unchanged(name: str) -> None:
    solved = problem("ddpm", N)
    noise = solved.noise()
    before = (noise.initial.clone(), noise.steps.clone(), solved.process.A.clone())
    solved.solve(solver(name, solved.process), noise)
    now = (noise.initial, noise.steps, solved.process.A)
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))


@pytest.mark.parametrize("name", SOLVERS)
def test_noise_of_another_process_is_refused(name: str) -> None:
    solved, other = problem("ddpm", N), problem("ddpm", N + 5)
    with pytest.raises(InputError, match=r"25 steps.*20"):
        solved.solve(solver(name, solved.process), other.noise())


def test_one_step_and_one_coordinate_are_enough() -> None:
    solved = problem("ddim", 1, Gaussian())
    noise = solved.noise(batch=1, shape=(1,))
    result = solved.solve(samplers.get("paradigms"), noise)
    assert torch.equal(result.sample, solved.solve(SEQUENTIAL, noise).sample)
    assert result.rounds.tolist() == [1]


def test_the_same_solve_gives_the_same_floats() -> None:
    solved = problem("ddpm", N)
    first, again = (solved.solve(samplers.get("paradigms"), solved.noise()) for _ in range(2))
    assert torch.equal(first.rounds, again.rounds)
    assert torch.equal(first.trajectory, again.trajectory)


def test_the_correction_counts_what_the_next_row_was_computed_without() -> None:
    """The first row of a window is exact, but a row that becomes final with it saw it as it was before."""
    solved = problem("flow_match_euler", 60, Mixture(6))
    seen: list[tuple[Tensor, Tensor]] = []
    result = solved.solve(
        samplers.get("x0", tolerance=1e-2),
        solved.noise(48, (16, 2)),
        callback=lambda info: seen.append((info.trajectory.clone(), info.accepted)),
    )
    counted = 0
    for (before, first), (after, then) in itertools.pairwise(seen):
        moved = (after - before).flatten(2).abs().amax(dim=2)
        for sample in (then > first + 1).nonzero()[:, 0]:
            change = moved[sample, first[sample] + 1]
            assert change <= result.correction[sample] + 1e-12
            counted += 1
    assert counted > 100
