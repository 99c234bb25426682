"""Rows, calls and windows of the drafts of PCM, and the switch to the base network."""

from __future__ import annotations

import math

import pytest
import torch

from para_policy.samplers import SPLITTINGS, Copy, RoundInfo, Trajectory
from tests.samplers.drafts import (
    BLENDS,
    KINDS,
    SEQUENTIAL,
    WRONG,
    Log,
    N,
    always,
    draft_calls,
    exact_problem,
    iterates,
    noise_of,
    pcm,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EXPECTED_SHARES = {
    "weights": [1.0, 0.75, 0.5, 0.25],
    "none": [1.0] * 4,
    "features": [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
}


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blend", BLENDS)
def test_calls_rows_and_counts(blend: str, kind: str, splitting: str) -> None:
    """Drafts reach all rows whatever the window; then the fine-tuned network is never called."""
    log = Log(exact_problem(kind))
    sampler = pcm(log.consistency, splitting, blend=blend, horizon=4, window=3)
    numbers: list[int] = []
    noise = noise_of(log.solved, batch=3)
    result, denoiser = log.solve(sampler, noise, callback=lambda info: numbers.append(info.round))
    shares = EXPECTED_SHARES[blend]
    assert [share for share, _ in log.calls[: len(shares)]] == shares
    assert {share for share, _ in log.calls[len(shares) :]} == {0.0}
    assert len(log.calls) > len(shares)
    assert [share for share in log.asked if share] == [share for share in shares if share]
    assert 0.0 not in log.asked
    for _, rows in log.calls[: len(shares)]:
        assert rows == list(range(N)) * 3
    assert log.calls[len(shares)][1] == [0, 1, 2] * 3

    assert denoiser.rounds == len(log.calls) == result.rounds.max()
    assert denoiser.evals == sum(len(rows) for _, rows in log.calls) == result.evals.sum()
    # A round in which two networks are called is one round.
    assert numbers == list(range(1, len(log.calls) - len(shares) + 4 + 1))
    assert len(result.residuals) == len(numbers)


@pytest.mark.parametrize("lookahead", [None, 2])
@pytest.mark.parametrize("stride", [1, 2, 5, N - 1, 3 * N])
@pytest.mark.parametrize("blend", BLENDS)
def test_drafts_evaluate_every_so_many_th_row_and_the_last(
    blend: str, stride: int, lookahead: int | None
) -> None:
    log = Log(exact_problem("ddim"))
    options = {"blend": blend, "stride": stride, "lookahead": lookahead, "window": 4}
    log.solve(pcm(log.consistency, "x0", horizon=2, **options), noise_of(log.solved, batch=1))
    drafts = 3 if blend == "features" else 2
    expected = sorted({*range(0, N, stride), N - 1})
    assert [rows for _, rows in log.calls[:drafts]] == [expected] * drafts
    ahead = [] if lookahead is None else [*range(4, N, lookahead), N - 1]
    assert log.calls[drafts][1] == sorted({*range(4), *ahead})


def test_a_multistep_scheduler_drafts_every_row() -> None:
    log = Log(exact_problem("dpmsolver++"))
    log.solve(pcm(log.consistency, "x0", stride=4), noise_of(log.solved, batch=1))
    assert log.calls[0] == (1.0, list(range(N)))


@pytest.mark.parametrize("guess", [None, "solution"])
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("blend", BLENDS)
def test_nothing_is_frozen_before_the_switch(blend: str, splitting: str, guess: str | None) -> None:
    """Not even the solution, where every residual is 0."""
    solved = exact_problem("ddpm")
    noise = noise_of(solved)
    sampler = pcm(
        always(solved.network), splitting, blend=blend, horizon=3, tolerance=0.1, window=5
    )
    seen: list[RoundInfo] = []
    states = solved.solve(SEQUENTIAL, noise).trajectory
    start = None if guess is None else Trajectory(states)
    result = solved.solve(sampler, noise, guess=start, callback=seen.append)
    assert [info.accepted.tolist() for info in seen[:3]] == [[0, 0]] * 3
    assert (seen[3].accepted >= 1).all()
    assert (seen[-1].accepted == N).all()
    if guess is not None:
        assert result.rounds.max() <= draft_calls(sampler.guess) + math.ceil(N / 5)  # type: ignore[arg-type]


def test_states_beyond_the_window_keep_the_draft() -> None:
    """The sampler's own guess would repeat the last state of the window there."""
    solved = exact_problem("ddpm")
    made = pcm(always(WRONG), "identity", window=3, tolerance=0.0)
    _, seen = iterates(solved, made, noise_of(solved), guess=Copy())
    assert torch.equal(seen[1][:, 5:], seen[0][:, 5:])
    assert not torch.equal(seen[0][:, 5:-1], seen[0][:, 6:])
