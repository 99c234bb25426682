"""Triangular Anderson acceleration does not depend on units and survives broken iterates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.errors import InputError
from para_policy.samplers import (
    Copy,
    FixedPoint,
    ResidualBelow,
    ResidualBelowEither,
    Scalar,
    Status,
    TriangularAnderson,
)
from tests.problems import Linear, Network, Problem, Rational, problem, scheduler

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SEQUENTIAL = samplers.get("sequential")
N = 16


def unclipped(net: Network, kind: str = "ddpm", num_steps: int = N) -> Problem:
    made = scheduler(kind, prediction_type="sample", clip_sample=False)
    return Problem(net, Process.from_scheduler(made, num_steps))


def homogeneous(x: Tensor, t: Tensor) -> Tensor:
    """Not linear, but twice the state gives twice the prediction."""
    return 0.6 * x.abs() - 0.5 * x.flip(1) + 0.3 * x.abs().amax(dim=(1, 2), keepdim=True)


def accelerated(
    history: int, window: int | None = None, regularisation: float = 1e-6, tolerance: float = 0.0
) -> FixedPoint:
    return FixedPoint(
        Scalar("identity"),
        ResidualBelowEither(tolerance, tolerance),
        Copy(),
        TriangularAnderson(history, regularisation),
        window=window,
    )


def iterates(solved: Problem, sampler: FixedPoint, noise: Noise) -> list[Tensor]:
    states: list[Tensor] = []
    solved.solve(sampler, noise, callback=lambda info: states.append(info.trajectory.clone()))
    return states


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("history", [2, 3, 4])
@pytest.mark.parametrize("exponent", [-40, -10, 10])
def test_a_problem_in_other_units_has_the_same_iterates(
    exponent: int, history: int, window: int | None
) -> None:
    """A power of two, so that nothing but an absolute constant can make a difference."""
    scale = 2.0**exponent
    solved = unclipped(homogeneous)
    noise = solved.noise()
    scaled = Noise(scale * noise.initial, scale * noise.steps)
    sampler = accelerated(history, window)
    one, other = iterates(solved, sampler, noise), iterates(solved, sampler, scaled)
    assert len(one) == len(other)
    # Late differences are a few last bits of the states: there even the order of sums shows.
    for states, small in zip(one[: N // 2], other, strict=False):
        torch.testing.assert_close(small / scale, states, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("history", [2, 3])
def test_a_thousandth_of_a_problem_converges_alike(history: int) -> None:
    solved = unclipped(homogeneous)
    noise = solved.noise()
    small = Noise(1e-3 * noise.initial, 1e-3 * noise.steps)
    one = solved.solve(accelerated(history, tolerance=1e-4), noise)
    other = solved.solve(accelerated(history, tolerance=1e-4), small)
    loose = solved.solve(accelerated(history, tolerance=1e-7), small)
    assert (other.rounds <= one.rounds).all()
    # Relative to its sigma the small one is let pass earlier, absolutely it is not.
    assert (loose.rounds >= one.rounds).all()
    torch.testing.assert_close(1e3 * loose.sample, one.sample, rtol=0, atol=1e-2)


@pytest.mark.parametrize("history", [2, 3, 4])
def test_the_first_round_of_a_row_is_plain(history: int) -> None:
    """No difference exists yet: neither in the first round, nor for a row that has just entered."""
    base = problem("ddpm", N)
    noise = base.noise()
    plain = FixedPoint(Scalar("clean"), ResidualBelow(0.0), Copy(), window=6)
    mixed = FixedPoint(
        Scalar("clean"), ResidualBelow(0.0), Copy(), TriangularAnderson(history), window=6
    )
    first_plain, first_mixed = iterates(base, plain, noise)[0], iterates(base, mixed, noise)[0]
    assert torch.equal(first_plain, first_mixed)
    # Continue the second round by hand: only the row that entered has no history.
    rows = torch.arange(1, 7)
    x = first_mixed[:, rows]
    batch, seen = x.shape[0], x.flatten(0, 1)
    s = rows.repeat(batch)
    clean = base.process.predict_clean(seen, base.network(seen, base.process.timesteps[s]), s)
    target = base.process.mean(seen, clean, torch.zeros_like(clean), s).reshape(x.shape)
    target = target + base.process.c[rows, None, None] * noise.steps[:, rows]
    residual = target - first_mixed[:, rows + 1]
    correction = torch.zeros_like(residual[:, 0])
    for w, phi in enumerate(base.process.B[rows]):
        correction = phi * correction + residual[:, w]
    entered = first_mixed[:, 7] + correction
    second = iterates(base, mixed, noise)[1]
    torch.testing.assert_close(second[:, 7], entered, rtol=0, atol=1e-10)
    gone = iterates(base, plain, noise)[1]
    assert (second[:, 3:7] - gone[:, 3:7]).abs().max() > 1e-6, "the others are accelerated"


def test_enough_history_solves_a_linear_problem_of_few_dimensions() -> None:
    """Anderson is GMRES there: it takes fewer rounds with every stored iterate."""
    solved = unclipped(Linear(2, gain=1.2), num_steps=40)
    noise = solved.noise(batch=6, shape=(2,))
    rounds = []
    for history in (None, 2, 4):
        memory = TriangularAnderson(history, 1e-10) if history else None
        sampler = FixedPoint(Scalar("identity"), ResidualBelow(1e-6), Copy(), memory)
        result = solved.solve(sampler, noise)
        assert set(result.status) == {Status.CONVERGED}
        rounds.append(float(result.rounds.double().mean()))
    assert rounds[0] > rounds[1] > rounds[2]


def test_more_history_than_rounds_takes_no_more_memory() -> None:
    solved = unclipped(Linear(2), num_steps=6)
    noise = solved.noise(batch=1, shape=(2,))

    def solve(history: int) -> Tensor:
        memory = TriangularAnderson(history)
        sampler = FixedPoint(Scalar("identity"), ResidualBelow(1e-6), Copy(), memory)
        return solved.solve(sampler, noise).sample

    torch.testing.assert_close(solve(10**9), solve(7), rtol=0, atol=0)


def interrupted(inner: Network, at: int, value: float, after: int) -> Network:
    """`value` instead of the prediction at steps with a timestep below `after`, in one call."""
    calls = 0

    def predict(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        output = inner(x, t)
        if calls == at:
            output = torch.where((t < after).reshape(-1, 1, 1), value, output)
        return output

    return predict


@pytest.mark.parametrize("value", [torch.nan, -torch.inf, 1e300, -1e160, 1e80])
@pytest.mark.parametrize("history", [2, 4])
@pytest.mark.parametrize("at", [1, 3])
def test_one_broken_call_spoils_nothing(at: int, history: int, value: float) -> None:
    """Squares overflow from 1e154 on; a Gram matrix with infinities must not touch a state."""
    base = unclipped(homogeneous, num_steps=40)
    noise = base.noise()
    expected = base.solve(SEQUENTIAL, noise)
    middle = int(base.process.timesteps[20])
    net = interrupted(base.network, at, value, middle)
    states: list[Tensor] = []
    result = accelerated(history)(
        Denoiser(net),
        base.process,
        noise,
        callback=lambda info: states.append(info.trajectory.clone()),
    )
    assert set(result.status) == {Status.CONVERGED}
    assert torch.equal(result.trajectory, expected.trajectory)
    clean = iterates(base, accelerated(history), noise)
    for seen, undisturbed in zip(states, clean, strict=False):
        torch.testing.assert_close(seen[:, :21], undisturbed[:, :21], rtol=0, atol=1e-9)
    if abs(value) < 1e200:  # the plain sweep itself overflows beyond
        assert all(seen.isfinite().all() for seen in states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("history", [2, 4])
def test_a_solution_stays_one(history: int, dtype: torch.dtype) -> None:
    """All differences are 0 there, and so is the Gram matrix."""
    solved = Problem(Rational(), problem("ddpm", N).process)
    noise = solved.noise(dtype=dtype)
    states = solved.solve(SEQUENTIAL, noise).trajectory
    sampler = samplers.get(
        "parataa",
        history=history,
        window=4,
        trajectory=states,
        tolerance=0.0,
        relative_tolerance=0.0,
    )
    result = solved.solve(sampler, noise)
    assert torch.equal(result.trajectory, states)
    assert result.rounds.tolist() == [N // 4] * 3


def test_a_network_that_ignores_the_state_leaves_nothing_to_accelerate() -> None:
    solved = unclipped(lambda x, t: 0 * x + 0.5)
    noise = solved.noise()
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    sampler = FixedPoint(Scalar("clean"), ResidualBelow(1e-9), Copy(), TriangularAnderson(3))
    result = solved.solve(sampler, noise)
    assert result.rounds.tolist() == [2] * 3
    torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("history", [2, 3])
def test_samples_do_not_share_their_history(history: int) -> None:
    solved = problem("ddpm", 30)
    noise = solved.noise(batch=8)
    sampler = accelerated(history, window=8, tolerance=1e-2)
    together = solved.solve(sampler, noise)
    assert len(set(together.rounds.tolist())) > 1, "samples are to leave at different times"
    for i in range(8):
        alone = solved.solve(sampler, noise.select([i]))
        torch.testing.assert_close(alone.trajectory[0], together.trajectory[i], rtol=0, atol=1e-10)
        assert alone.rounds[0] == together.rounds[i]


def test_a_sampler_can_be_used_again() -> None:
    base = problem("ddpm", N)
    sampler = accelerated(3)
    first, second, again = (
        base.solve(sampler, base.noise(first_seed=seed)).trajectory for seed in (0, 9, 0)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("history", "regularisation", "message"),
    [
        (0, 1e-6, "history is 0"),
        (1, 1e-6, "history is 1"),
        (2.0, 1e-6, r"history is 2\.0"),
        (True, 1e-6, "history is True"),
        (2, 0.0, r"regularisation is 0\.0"),
        (2, -1.0, r"regularisation is -1\.0"),
        (2, float("nan"), "regularisation is nan"),
        (2, "small", "regularisation is 'small'"),
    ],
)
def test_wrong_options_are_refused(history: int, regularisation: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TriangularAnderson(history, regularisation)
