"""Guesses move the start of an iteration, never its solution."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Noise, samplers
from para_policy.errors import InputError
from para_policy.samplers import (
    Copy,
    FixedPoint,
    FromCleanSample,
    Guess,
    Prior,
    ResidualBelow,
    Sampler,
    Scalar,
    Status,
    Trajectory,
)
from tests.problems import Mixture, Problem, Rational, problem

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["ddpm", "ddim", "dpmsolver++"]
SEQUENTIAL = samplers.get("sequential")
N = 20
BATCH = 3
SHAPE = (4, 2)


def exact_problem(kind: str) -> Problem:
    return Problem(Rational(), problem(kind, N).process)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def guesses() -> dict[str, Guess]:
    overflowed = drawn(BATCH, N + 1, *SHAPE)
    overflowed[:, N // 2] = torch.inf
    return {
        "copy": Copy(),
        "prior": Prior(),
        "sample": FromCleanSample(drawn(BATCH, *SHAPE)),
        "far sample": FromCleanSample(1e3 * drawn(BATCH, *SHAPE)),
        "trajectory": Trajectory(drawn(BATCH, N + 1, *SHAPE)),
        "far trajectory": Trajectory(1e3 * drawn(BATCH, N + 1, *SHAPE)),
        "broken trajectory": Trajectory(torch.full((BATCH, N + 1, *SHAPE), torch.nan)),
        "overflowed trajectory": Trajectory(overflowed),
    }


def plain(window: int | None = None, tolerance: float = 0.0) -> FixedPoint:
    return FixedPoint(Scalar("clean"), ResidualBelow(tolerance), Copy(), window=window)


def first_iterate(solved: Problem, sampler: Sampler, noise: Noise, guess: Guess) -> Tensor:
    states: list[Tensor] = []
    solved.solve(
        sampler,
        noise,
        guess=guess,
        callback=lambda info: states.append(info.trajectory.clone()),
    )
    return states[0]


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("name", guesses())
@pytest.mark.parametrize("kind", KINDS)
def test_every_guess_leads_to_the_sequential_solution(
    kind: str, name: str, window: int | None
) -> None:
    solved = exact_problem(kind)
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    guess = guesses()[name]
    result = solved.solve(plain(window), noise, guess=guess)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert set(result.status) == {Status.CONVERGED}
    assert result.rounds.max() <= N
    own = FixedPoint(Scalar("clean"), ResidualBelow(0.0), guess, window=window)
    assert torch.equal(solved.solve(own, noise).rounds, result.rounds)


def test_a_guess_that_overflows_where_it_is_interpolated_spoils_nothing() -> None:
    """Residuals of float32 are finite, their share of a clean sample is not."""
    solved = exact_problem("ddpm")
    noise = solved.noise(batch=BATCH, shape=SHAPE, dtype=torch.float32)
    guess = Trajectory(5e37 * drawn(BATCH, N + 1, *SHAPE))
    sampler = dataclasses.replace(plain(window=4), lookahead=3)
    result = solved.solve(sampler, noise, guess=guess)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)


def test_the_guess_of_a_call_replaces_the_samplers_own() -> None:
    solved = problem("ddpm", N)
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    states = solved.solve(SEQUENTIAL, noise).trajectory
    sampler = samplers.get("x0", tolerance=1e-6)
    assert solved.solve(sampler, noise, guess=Trajectory(states)).rounds.tolist() == [1] * BATCH
    assert solved.solve(sampler, noise).rounds.min() > 1
    given = samplers.get("parataa", trajectory=states)
    assert solved.solve(given, noise).rounds.tolist() == [1] * BATCH
    assert solved.solve(given, noise, guess=Copy()).rounds.min() > 1
    assert torch.equal(solved.solve(SEQUENTIAL, noise, guess=Copy()).trajectory, states)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, 0.3])
def test_a_clean_sample_runs_the_recurrence_by_hand(
    kind: str, value: float | None, clip: bool
) -> None:
    """x0hat and x0raw are the sample in every step, also in the multistep history."""
    options = {} if kind == "dpmsolver++" else {"clip_sample": clip}
    process = problem(kind, N, **options).process
    noise = Noise.from_seeds([0, 1, 2], SHAPE, N, dtype=torch.float64)
    sample = None if value is None else value * drawn(BATCH, *SHAPE).clamp(-1, 1)
    clean = torch.zeros(BATCH, *SHAPE, dtype=torch.float64) if sample is None else sample
    x, by_hand = noise.initial, [noise.initial]
    for s in range(N):
        step = torch.full((BATCH,), s)
        x = process.mean(x, clean, clean, step) + process.noise(noise.steps[:, s], step)
        by_hand.append(x)
    guess = Prior() if sample is None else FromCleanSample(sample)
    states, first = guess.start(process, noise)
    assert first == 0
    torch.testing.assert_close(states, torch.stack(by_hand, dim=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_agrees_with_the_guess_is_recognised(kind: str) -> None:
    """Its prediction is the guessed sample whatever the state: the start is the solution."""
    base = problem(kind, N, prediction_type="sample")
    solved = Problem(lambda x, t: 0 * x + 0.25, base.process)
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    sampler = plain(tolerance=1e-9)
    right = FromCleanSample(torch.full((BATCH, *SHAPE), 0.25, dtype=torch.float64))
    assert solved.solve(sampler, noise, guess=right).rounds.tolist() == [1] * BATCH
    assert solved.solve(sampler, noise, guess=Prior()).rounds.min() > 1


def test_a_good_guess_saves_rounds() -> None:
    solved = problem("ddpm", 50)
    noise = solved.noise(batch=8)
    sample = solved.solve(SEQUENTIAL, noise).sample
    sampler = samplers.get("x0", tolerance=1e-3)
    rounds = [
        float(solved.solve(sampler, noise, guess=guess).rounds.double().mean())
        for guess in (FromCleanSample(sample), Prior(), Copy())
    ]
    assert rounds[0] < rounds[1] < rounds[2]


def test_a_copy_repeats_the_cleanest_state_in_flight() -> None:
    solved = problem("ddpm", N)
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    states, first = Copy().start(solved.process, noise)
    assert first == 0
    assert (states == noise.initial[:, None]).all()
    moved = first_iterate(solved, plain(window=5), noise, Copy())
    assert (moved[:, 6:] == moved[:, 5:6]).all()
    assert not torch.equal(moved[:, 5], moved[:, 4])


@pytest.mark.parametrize("name", ["prior", "sample", "trajectory"])
def test_states_beyond_the_window_keep_the_guess(name: str) -> None:
    solved = problem("ddpm", N)
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    guess = guesses()[name]
    states, _ = guess.start(solved.process, noise)
    moved = first_iterate(solved, plain(window=5), noise, guess)
    assert torch.equal(moved[:, 6:], states[:, 6:])
    assert not torch.equal(moved[:, 1:6], states[:, 1:6])


@pytest.mark.parametrize("name", guesses())
def test_a_guess_starts_from_the_noise_and_leaves_its_arguments_alone(name: str) -> None:
    solved = problem("ddpm", N)
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    initial, steps = noise.initial.clone(), noise.steps.clone()
    states, first = guesses()[name].start(solved.process, noise)
    assert first == 0
    assert states.shape == (BATCH, N + 1, *SHAPE)
    assert torch.equal(states[:, 0], noise.initial)
    states.zero_()
    assert torch.equal(noise.initial, initial)
    assert torch.equal(noise.steps, steps)


def test_a_trajectory_can_be_used_again() -> None:
    solved = problem("ddpm", N)
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    states = drawn(BATCH, N + 1, *SHAPE)
    before, guess = states.clone(), Trajectory(states)
    first, again = (solved.solve(plain(4, 1e-3), noise, guess=guess) for _ in range(2))
    assert torch.equal(first.trajectory, again.trajectory)
    assert torch.equal(states, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("given", [torch.float32, torch.float64], ids=str)
def test_a_guess_of_another_dtype_is_converted(given: torch.dtype, dtype: torch.dtype) -> None:
    """A controller shifts chunks in the dtype of its own."""
    solved = problem("ddpm", N)
    noise = solved.noise(batch=BATCH, shape=SHAPE, dtype=dtype)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    for guess in (
        FromCleanSample(drawn(BATCH, *SHAPE, dtype=given)),
        Trajectory(drawn(BATCH, N + 1, *SHAPE, dtype=given)),
    ):
        result = solved.solve(plain(None, 1e-5), noise, guess=guess)
        assert result.trajectory.dtype == dtype
        torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", guesses())
def test_the_start_of_a_sample_does_not_depend_on_its_batch(name: str, dtype: torch.dtype) -> None:
    """To the bit: otherwise neither does its solution within a tolerance."""
    solved = problem("ddpm", N)
    noise = solved.noise(batch=BATCH, shape=SHAPE, dtype=dtype)
    process = solved.process.to("cpu", dtype)
    guess = guesses()[name]
    together, _ = guess.start(process, noise)
    for i in range(BATCH):
        alone, _ = one_of(guess, i).start(process, noise.select([i]))
        assert alone.dtype == dtype
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=0, equal_nan=True)


def one_of(guess: Guess, i: int) -> Guess:
    if isinstance(guess, Trajectory):
        return Trajectory(guess.states[i : i + 1])
    if isinstance(guess, FromCleanSample) and guess.sample is not None:
        return FromCleanSample(guess.sample[i : i + 1])
    return guess


@pytest.mark.parametrize(
    ("guess", "message"),
    [
        (FromCleanSample(torch.zeros(BATCH, 4, 3)), r"\(3, 4, 3\).*\(3, 4, 2\)"),
        (FromCleanSample(torch.zeros(1, *SHAPE)), r"\(1, 4, 2\).*\(3, 4, 2\)"),
        (FromCleanSample(torch.zeros(*SHAPE)), r"\(4, 2\).*\(3, 4, 2\)"),
        (Trajectory(torch.zeros(BATCH, N, *SHAPE)), r"\(3, 20, 4, 2\).*\(3, 21, 4, 2\)"),
        (Trajectory(torch.zeros(BATCH, N + 1, 8)), r"\(3, 21, 8\).*\(3, 21, 4, 2\)"),
        (Trajectory(torch.zeros(2, N + 1, *SHAPE)), r"\(2, 21, 4, 2\).*\(3, 21, 4, 2\)"),
    ],
    ids=str,
)
def test_guesses_that_do_not_fit_are_refused_with_their_shape(guess: Any, message: str) -> None:
    solved = problem("ddpm", N)
    with pytest.raises(InputError, match=message):
        solved.solve(plain(), solved.noise(batch=BATCH, shape=SHAPE), guess=guess)


@pytest.mark.parametrize("window", [None, 5])
def test_a_solution_of_other_data_is_no_worse_than_none(window: int | None) -> None:
    """A chunk that the new observation contradicts costs rounds, not correctness."""
    solved = exact_problem("ddpm")
    noise = solved.noise(batch=BATCH, shape=SHAPE)
    other = problem("ddpm", N, Mixture(seed=9))
    stale = other.solve(SEQUENTIAL, noise)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    for guess in (Trajectory(stale.trajectory), FromCleanSample(stale.sample)):
        result = solved.solve(plain(window, 1e-8), noise, guess=guess)
        assert set(result.status) == {Status.CONVERGED}
        assert result.rounds.max() <= N
        torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-6)
