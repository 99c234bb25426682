"""Sparse look-ahead: fewer rows, the same solution."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from para_policy import Denoiser, samplers
from para_policy.errors import InputError
from para_policy.samplers import (
    FixedPoint,
    Prior,
    ResidualBelow,
    RoundInfo,
    Scalar,
    Status,
    TriangularAnderson,
)
from tests.problems import Hashed, Problem, Rational, Recorder, problem

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["ddpm", "ddim", "dpmsolver++"]
SEQUENTIAL = samplers.get("sequential")
N = 24


def looking(
    window: int | None, lookahead: int | None, tolerance: float = 0.0, history: int = 1
) -> FixedPoint:
    return FixedPoint(
        Scalar("clean"),
        ResidualBelow(tolerance),
        Prior(),
        TriangularAnderson(history) if history > 1 else None,
        window=window,
        lookahead=lookahead,
    )


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("lookahead", [1, 3, 3 * N])
@pytest.mark.parametrize("window", [1, 5, N])
@pytest.mark.parametrize("kind", KINDS)
def test_the_solution_is_the_sequential_one(
    kind: str, window: int, lookahead: int, history: int
) -> None:
    solved = Problem(Hashed(seed=2), problem(kind, N).process)
    noise = solved.noise(batch=2)
    result = solved.solve(looking(window, lookahead, history=history), noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert set(result.status) == {Status.CONVERGED}
    assert result.rounds.max() <= N


@pytest.mark.parametrize("lookahead", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tolerance_is_kept(kind: str, lookahead: int) -> None:
    solved = problem(kind, 50)
    noise = solved.noise(batch=6)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    result = solved.solve(looking(8, lookahead, 1e-7, history=3), noise)
    torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-5)
    assert result.residual.max() <= 1e-7


def rows_of(first: int, window: int, lookahead: int) -> list[int]:
    """The window, then every `lookahead`-th row, then the last."""
    end = min(first + window, N)
    return sorted({*range(first, end), *range(end, N, lookahead), N - 1})


@pytest.mark.parametrize("lookahead", [2, 3, 7, N])
@pytest.mark.parametrize("window", [1, 5, 20])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_the_rows_of_every_round_are_the_documented_ones(
    kind: str, window: int, lookahead: int
) -> None:
    base = problem(kind, N)
    steps = {int(t): s for s, t in enumerate(base.process.timesteps)}
    calls: list[Tensor] = []
    frozen = [0]
    denoiser = Denoiser(Recorder(base.network, calls))
    result = looking(window, lookahead, 1e-3)(
        denoiser,
        base.process,
        base.noise(batch=1),
        callback=lambda info: frozen.append(int(info.accepted[0])),
    )
    assert frozen[-1] == N
    expected = [rows_of(first, window, lookahead) for first in frozen[:-1]]
    assert [sorted(steps[int(t)] for t in call) for call in calls] == expected
    assert result.evals.tolist() == [sum(map(len, expected))] == [denoiser.evals]
    assert result.rounds.tolist() == [len(expected)] == [denoiser.rounds]


def test_a_multistep_scheduler_evaluates_every_row() -> None:
    """A row needs the prediction of the state before it, so no row can be left out."""
    base = problem("dpmsolver++", N)
    calls: list[Tensor] = []
    looking(4, 3, 1e-3)(Denoiser(Recorder(base.network, calls)), base.process, base.noise(batch=1))
    assert torch.equal(calls[0].sort(descending=True).values, base.process.timesteps)
    noise = base.noise()
    sparse, full = (base.solve(looking(*w, 1e-3), noise) for w in ((4, 3), (None, None)))
    assert torch.equal(sparse.trajectory, full.trajectory)
    assert torch.equal(sparse.evals, full.evals)


def test_evals_of_a_batch_are_counted_for_each_sample() -> None:
    solved = problem("ddpm", 50)
    noise = solved.noise(batch=6)
    denoiser = Denoiser(solved.network)
    sampler = looking(8, 4, 1e-2, history=3)
    result = sampler(denoiser, solved.process, noise)
    assert denoiser.evals == result.evals.sum()
    assert denoiser.rounds == result.rounds.max()
    assert len(set(result.rounds.tolist())) > 1, "samples are to leave at different times"
    for i in range(6):
        alone = solved.solve(sampler, noise.select([i]))
        assert alone.evals[0] == result.evals[i]
        assert alone.rounds[0] == result.rounds[i]


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_every_row_beyond_the_window_is_the_full_window(kind: str) -> None:
    solved = problem(kind, N)
    noise = solved.noise()
    dense, full = (solved.solve(looking(*w, 1e-3, 3), noise) for w in ((5, 1), (None, None)))
    torch.testing.assert_close(dense.trajectory, full.trajectory, rtol=0, atol=1e-9)
    assert torch.equal(dense.rounds, full.rounds)
    assert torch.equal(dense.evals, full.evals)


@pytest.mark.parametrize("lookahead", [2, 3, 7, N])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_an_error_that_is_linear_in_the_step_is_interpolated_exactly(
    kind: str, lookahead: int
) -> None:
    """The prediction ignores the state: one sweep must find the solution, from a few rows."""
    base = problem(kind, N, prediction_type="sample")
    timesteps = base.process.timesteps

    def net(x: Tensor, t: Tensor) -> Tensor:
        row = len(timesteps) - 1 - torch.searchsorted(timesteps.flip(0), t)
        return 0 * x + 0.03 * row.to(x.dtype).reshape(-1, 1, 1) - 0.3

    solved = Problem(net, base.process)
    noise = solved.noise()
    states: list[Tensor] = []
    solved.solve(
        looking(4, lookahead, 1e-9),
        noise,
        callback=lambda info: states.append(info.trajectory.clone()),
    )
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    torch.testing.assert_close(states[0], expected, rtol=0, atol=1e-6)


def test_looking_ahead_saves_rounds_against_the_window_and_rows_against_all() -> None:
    solved = problem("ddpm", 50)
    noise = solved.noise(batch=8)
    window, sparse, full = (
        solved.solve(looking(*parts, 1e-2, 3), noise)
        for parts in ((12, None), (12, 4), (None, None))
    )
    mean = {
        name: (float(result.rounds.double().mean()), float(result.evals.double().mean()))
        for name, result in (("window", window), ("sparse", sparse), ("full", full))
    }
    assert mean["sparse"][0] < mean["window"][0]
    assert mean["sparse"][1] < mean["full"][1]


@pytest.mark.parametrize("lookahead", [2, 5])
def test_a_last_step_that_ignores_the_prediction_is_looked_past(lookahead: int) -> None:
    """Without `set_alpha_to_one` the last DDIM step returns its own state: it has no weight."""
    solved = problem("ddim", N, set_alpha_to_one=False)
    noise = solved.noise()
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    result = solved.solve(looking(6, lookahead, 1e-6), noise)
    assert set(result.status) == {Status.CONVERGED}
    torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-4)
    assert result.rounds.max() < N


def test_rows_that_are_only_interpolated_never_pass() -> None:
    """A loose tolerance lets everything pass that was evaluated, up to the first gap."""
    solved = problem("ddpm", N)
    progress: list[RoundInfo] = []
    result = solved.solve(looking(4, 6, 1e6), solved.noise(), callback=progress.append)
    assert progress[0].accepted.tolist() == [5] * 3  # 4 in the window, the next one, then a gap
    assert set(result.status) == {Status.CONVERGED}


@pytest.mark.parametrize(("window", "lookahead"), [(1, 2), (3, 2), (3, 4), (6, None)])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_row_that_leaves_others_behind_keeps_half_the_tolerance(
    kind: str, window: int, lookahead: int | None
) -> None:
    """Its error reaches all of them; what was only interpolated has not passed with it."""
    tolerance = 0.1
    solved = Problem(Rational(), problem(kind, 12).process)
    noise = solved.noise(batch=8)
    for limit in range(1, 12):
        sampler = dataclasses.replace(looking(window, lookahead, tolerance), max_rounds=limit)
        result = solved.solve(sampler, noise)
        assert (result.correction[~result.converged] <= tolerance / 2).all()


@settings(max_examples=60, deadline=None)
@given(
    num_steps=st.integers(1, 12),
    window=st.integers(1, 14),
    lookahead=st.integers(1, 14),
    history=st.integers(1, 3),
    tolerance=st.sampled_from([0.0, 1e-3, 0.1, 1e6]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
)
def test_bookkeeping_holds_for_every_stride(
    num_steps: int,
    window: int,
    lookahead: int,
    history: int,
    tolerance: float,
    kind: str,
    seed: int,
) -> None:
    solved = Problem(Rational(), problem(kind, num_steps).process)
    noise = solved.noise(batch=2, shape=(2,), first_seed=seed)
    denoiser = Denoiser(solved.network)
    sampler = looking(window, lookahead, tolerance, history)
    result = sampler(denoiser, solved.process, noise)
    assert set(result.status) == {Status.CONVERGED}
    assert result.rounds.max() <= num_steps
    assert (result.evals >= num_steps).all(), "every final row was evaluated"
    assert denoiser.evals == result.evals.sum()
    assert (result.residual <= tolerance).all()
    assert (result.correction <= tolerance).all()
    if tolerance == 0:
        assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)


@pytest.mark.parametrize("lookahead", [0, -3, 2.0, "4", True])
def test_a_wrong_stride_is_refused(lookahead: int) -> None:
    with pytest.raises(InputError, match="lookahead is"):
        looking(4, lookahead)
