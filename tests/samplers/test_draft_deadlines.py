"""Guesses, round budgets and deadlines of PCM."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch

from para_policy import Denoiser
from para_policy.samplers import (
    SPLITTINGS,
    Copy,
    FromCleanSample,
    Guess,
    RoundInfo,
    SampleResult,
    Status,
    Trajectory,
)
from para_policy.samplers import deadline as deadlines
from para_policy.samplers.deadline import Deadline, LatencyTable
from tests.problems import Network
from tests.samplers.drafts import (
    ADVERSARIES,
    BLENDS,
    KINDS,
    SEQUENTIAL,
    SHAPE,
    WRONG,
    Log,
    N,
    always,
    assert_exact,
    base_only,
    constant,
    exact_problem,
    iterates,
    linear_part,
    noise_of,
    pcm,
    swept,
)
from tests.samplers.test_deadline import Clock, Timed

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def guesses() -> dict[str, Guess]:
    drawn = torch.randn(2, N + 1, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    return {
        "copy": Copy(),
        "sample": FromCleanSample(drawn[:, 0]),
        "far sample": FromCleanSample(1e3 * drawn[:, 0]),
        "trajectory": Trajectory(drawn),
        "broken trajectory": Trajectory(torch.full_like(drawn, math.nan)),
    }


@pytest.mark.parametrize("tuned", ["random", "nan", "in places"])
@pytest.mark.parametrize("guess", guesses())
@pytest.mark.parametrize("kind", KINDS)
def test_every_guess_leads_to_the_sequential_solution(kind: str, guess: str, tuned: str) -> None:
    solved = exact_problem(kind)
    noise = noise_of(solved)
    for splitting, blend in zip(SPLITTINGS, BLENDS, strict=True):
        sampler = pcm(
            always(ADVERSARIES[tuned]), splitting, blend=blend, horizon=2, tolerance=0.0, window=5
        )
        assert_exact(solved, sampler, noise, guess=guesses()[guess])


@pytest.mark.parametrize("blend", BLENDS)
def test_a_draft_starts_from_the_guess(blend: str) -> None:
    solved = exact_problem("ddim")
    noise = noise_of(solved)
    states = torch.randn(2, N + 1, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    sampler = pcm(always(solved.network), "x0", blend=blend, tolerance=0.0)
    _, seen = iterates(solved, sampler, noise, guess=Trajectory(states))
    start = torch.cat([noise.initial[:, None], states[:, 1:]], dim=1)
    expected = swept(solved, start, noise, linear_part("x0", solved))
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solve_last", [1, 5, N])
@pytest.mark.parametrize("tuned", ["random", "1e300", "nan"])
def test_states_that_are_given_stay_as_they_are(tuned: str, solve_last: int) -> None:
    solved = exact_problem("ddpm")
    noise = noise_of(solved)
    old = solved.solve(SEQUENTIAL, noise_of(solved, first_seed=7)).trajectory
    sampler = pcm(always(ADVERSARIES[tuned]), "chord", horizon=2, tolerance=0.0, stride=2)
    guess = Trajectory(old, solve_last)
    progress: list[RoundInfo] = []
    result = solved.solve(sampler, noise, guess=guess, callback=progress.append)
    plain = solved.solve(base_only(sampler), noise, guess=guess)
    assert progress[1].accepted.tolist() == [N - solve_last] * 2
    assert torch.equal(result.trajectory, plain.trajectory)
    assert result.rounds.max() <= solve_last + 2


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_budget_counts_network_calls_and_claims_nothing(splitting: str, blend: str) -> None:
    log = Log(exact_problem("ddpm"))
    noise = noise_of(log.solved)
    options = {"blend": blend, "horizon": 3, "tolerance": 1e-3}
    ends: list[int] = []
    sampler = pcm(log.consistency, splitting, **options)
    free, _ = log.solve(sampler, noise, callback=lambda info: ends.append(len(log.calls)))
    for limit in range(1, int(free.rounds.max()) + 2):
        limited = dataclasses.replace(sampler, max_rounds=limit)
        result, denoiser = log.solve(limited, noise)
        done = max(end for end in ends if end <= limit)
        assert denoiser.rounds == done == result.rounds.max()
        assert result.sample.isfinite().all()
        for i, rounds in enumerate(free.rounds.tolist()):
            finished = rounds <= limit
            assert result.status[i] is (Status.CONVERGED if finished else Status.ROUND_BUDGET)
            if finished:
                assert torch.equal(result.trajectory[i], free.trajectory[i])


def test_a_draft_alone_has_not_converged() -> None:
    """Even if it starts from the solution and stays there."""
    solved = exact_problem("ddim")
    noise = noise_of(solved)
    states = solved.solve(SEQUENTIAL, noise).trajectory
    sampler = pcm(always(solved.network), "x0", horizon=5, max_rounds=5)
    result = solved.solve(sampler, noise, guess=Trajectory(states))
    assert set(result.status) == {Status.ROUND_BUDGET}
    assert not result.converged.any()
    torch.testing.assert_close(result.trajectory, states, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tuned", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_solve_that_stops_early_never_returns_nan(tuned: Network, limit: int) -> None:
    solved = exact_problem("ddpm")
    for splitting, blend in itertools.product(SPLITTINGS, BLENDS):
        options = {"blend": blend, "horizon": 2, "tolerance": 0.0, "max_rounds": limit}
        result = solved.solve(pcm(always(tuned), splitting, **options), noise_of(solved))
        assert result.trajectory.isfinite().all()
        assert set(result.status) == {Status.ROUND_BUDGET}


@pytest.mark.parametrize("lookahead", [None, 3], ids=["window", "lookahead"])
def test_base_rounds_after_a_draft_of_nan_are_returned_when_time_is_up(
    lookahead: int | None,
) -> None:
    solved = exact_problem("ddpm")
    noise = noise_of(solved)
    sampler = pcm(
        always(constant(math.nan)), "x0", window=4, lookahead=lookahead, tolerance=0.0, max_rounds=4
    )
    result = solved.solve(sampler, noise)
    plain = dataclasses.replace(base_only(sampler), max_rounds=3)
    assert torch.equal(result.trajectory, solved.solve(plain, noise).trajectory)


TABLE = LatencyTable((1, 41), (1.0, 5.0))  # 0.9 s for a call and 0.1 s for each row


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (deadlines,):
        monkeypatch.setattr(module, "time", made)
    return made


def timed_solve(
    clock: Clock, blend: str, seconds: float | None, **options: Any
) -> tuple[SampleResult, list[int]]:
    """The result, and the rows of each network call."""
    solved, rows = exact_problem("ddim"), []

    def timed(inner: Network) -> Network:
        return Timed(inner, clock, TABLE.predict, rows)

    sampler = pcm(always(timed(WRONG)), "x0", blend=blend, horizon=3, tolerance=1e-6, **options)
    deadline = None if seconds is None else Deadline.after(seconds, TABLE)
    denoiser = Denoiser(timed(solved.network))
    return sampler(denoiser, solved.process, noise_of(solved), deadline=deadline), rows


@pytest.mark.parametrize("blend", ["weights", "features", "none"])
def test_drafts_stop_at_the_last_round_that_fits(clock: Clock, blend: str) -> None:
    _, rows = timed_solve(clock, blend, None, window=4, stride=2)
    calls = [1, 2, 2] if blend == "features" else [1, 1, 1]
    calls += [1] * (len(rows) - sum(calls))
    ends = list(itertools.accumulate(calls))
    for before, after in list(itertools.pairwise(ends))[:5]:
        start = sum(map(TABLE.predict, rows[:before]))
        following = sum(map(TABLE.predict, rows[before:after]))
        for share, expected in ((0.01, before), (0.99, before), (1.01, after)):
            result, called = timed_solve(
                clock, blend, start + share * following, window=4, stride=2
            )
            assert called == rows[:expected]
            assert result.rounds.tolist() == [expected] * 2
            assert set(result.status) == {Status.DEADLINE}
            assert result.trajectory.isfinite().all()


@pytest.mark.parametrize("blend", BLENDS)
def test_a_generous_deadline_changes_nothing(clock: Clock, blend: str) -> None:
    free, expected = timed_solve(clock, blend, None)
    result, rows = timed_solve(clock, blend, 1e6)
    assert rows == expected
    assert torch.equal(result.trajectory, free.trajectory)
    assert result.status == free.status == (Status.CONVERGED,) * 2


@pytest.mark.parametrize("blend", BLENDS)
def test_the_first_draft_always_runs(clock: Clock, blend: str) -> None:
    result, rows = timed_solve(clock, blend, 1e-9)
    assert rows == [2 * N]
    assert set(result.status) == {Status.DEADLINE}
    assert result.trajectory.isfinite().all()
