"""Networks that are hard on purpose: discontinuous, expansive, overflowing, broken."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Process, samplers
from para_policy.errors import NonFiniteError
from para_policy.samplers import SampleResult, Status, as_sampler
from tests.problems import SOLVERS, Network, Problem, problem, row_by_row, scheduler, solver

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["ddpm", "ddim", "dpmsolver++"]
SEQUENTIAL = samplers.get("sequential")
N = 20


def with_network(kind: str, net: Network, num_steps: int = N, **options: object) -> Problem:
    return Problem(net, Process.from_scheduler(scheduler(kind, **options), num_steps))


def step_function(x: Tensor, t: Tensor) -> Tensor:
    return torch.where(x > 0.1, 1.0, -1.0).to(x.dtype)


def expansive(x: Tensor, t: Tensor) -> Tensor:
    return torch.remainder(37.0 * x, 2.0) - 1.0


def hashed(x: Tensor, t: Tensor) -> Tensor:
    """A pseudo-random number of the last bits of x and t: no smoothness at all."""
    mixed = x.double().contiguous().view(torch.int64) * 6364136223846793005
    mixed = mixed + t.reshape(-1, *(1,) * (x.ndim - 1)) * 1442695040888963407
    return ((mixed >> 33) % 2001 / 1000.0 - 1.0).to(x.dtype)


@pytest.mark.parametrize("net", [step_function, expansive, hashed])
@pytest.mark.parametrize("window", [5, None])
@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_networks_end_exactly_within_n_rounds(
    kind: str, window: int | None, net: Network
) -> None:
    solved = with_network(kind, net)
    noise = solved.noise(batch=4)
    result = solved.solve(samplers.get("paradigms", window=window, tolerance=0.0), noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert result.rounds.max() <= N
    assert set(result.status) == {Status.CONVERGED}


def test_iterates_that_overflow_do_not_end_a_solve_that_is_finite() -> None:
    """Guesses far down a window can explode while the true trajectory stays small.

    The first rows of a window are right whatever the rows after them do, so N rounds suffice.
    """

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x.abs() > 30, x**9, -3 * x)

    solved = with_network("ddpm", net, 40, clip_sample=False, prediction_type="sample")
    noise = solved.noise(dtype=torch.float32)
    expected = solved.solve(SEQUENTIAL, noise)
    assert set(expected.status) == {Status.CONVERGED}
    result = solved.solve(samplers.get("paradigms", tolerance=0.0), noise)
    assert set(result.status) == {Status.CONVERGED}
    assert torch.equal(result.sample, expected.sample)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_network_that_breaks_for_one_sample_leaves_the_others_alone(
    name: str, bad: float
) -> None:
    base = problem("ddpm", N)
    broken = torch.tensor([0.0, bad, 0.0])

    def net(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        late = (t < 50).to(x.dtype)[:, None, None]
        poison = torch.where(late > 0, condition[:, None, None], torch.zeros_like(late))
        return row_by_row(base.network)(x, t) + poison

    noise = base.noise()
    sampler = solver(name, base.process)
    with pytest.raises(NonFiniteError, match=r"1 of 3 samples .*number 1.*must not be executed"):
        sampler(Denoiser(net, broken), base.process, noise)
    result = sampler(Denoiser(net, broken), base.process, noise, partial=True)
    assert result.sample[1].isnan().all()
    bad_states = ~result.trajectory[1].isfinite().flatten(1).all(dim=1)
    assert bad_states.tolist() == sorted(bad_states.tolist())
    assert result.status == (Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED)
    assert result.converged.tolist() == [True, False, True]
    alone = solver(name, base.process)(
        Denoiser(row_by_row(base.network)), base.process, noise.select([0, 2])
    )
    assert torch.equal(result.sample[[0, 2]], alone.sample)
    assert result.rounds[[0, 2]].tolist() == alone.rounds.tolist()


@pytest.mark.parametrize("tolerance", [0.0, 10.0])
def test_a_network_that_breaks_in_the_very_last_step_is_noticed(tolerance: float) -> None:
    """A loose tolerance accepts everything before it in one go."""
    base = problem("ddim", N)
    last = base.process.timesteps[-1]

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t == last)[:, None, None], torch.nan, base.network(x, t))

    solved = Problem(net, base.process)
    sampler = samplers.get("paradigms", tolerance=tolerance)
    with pytest.raises(NonFiniteError, match="3 of 3 samples"):
        solved.solve(sampler, solved.noise())
    result = solved.solve(sampler, solved.noise(), partial=True)
    assert set(result.status) == {Status.NON_FINITE}


def test_a_callable_that_says_it_converged_to_nan_is_not_believed() -> None:
    def foreign(*problem: Any, **options: Any) -> SampleResult:
        result = SEQUENTIAL(*problem)
        sample = result.sample.clone()
        sample[1, 0, 0] = torch.nan
        return dataclasses.replace(result, sample=sample)

    solved = problem("ddim", N)
    with pytest.raises(NonFiniteError, match=r"1 of 3 samples .*number 1"):
        solved.solve(as_sampler(foreign), solved.noise())
    result = solved.solve(as_sampler(foreign), solved.noise(), partial=True)
    assert result.converged.tolist() == [True, False, True]
    assert result.sample[1].isnan().all()  # its trajectory says nothing of it


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "sequential"])
def test_a_solve_that_stops_after_a_broken_round_returns_the_iterate_before_it(
    name: str, bad: float
) -> None:
    base, calls = problem("ddim", N), 0

    def net(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.where((t < 50).reshape(-1, 1, 1) & (calls > 1), bad, base.network(x, t))

    solved, noise, final = Problem(net, base.process), base.noise(), [0]
    limited = solver(name, solved.process, tolerance=0.0, max_rounds=3)
    result = solved.solve(
        limited, noise, callback=lambda info: final.append(int(info.accepted.min()))
    )
    assert calls > 1
    assert set(result.status) == {Status.ROUND_BUDGET}
    assert result.trajectory.isfinite().all()
    # What is final is that of the last round all the same.
    known, expected = final[-1] + 1, base.solve(SEQUENTIAL, noise).trajectory
    assert known > 2
    torch.testing.assert_close(
        result.trajectory[:, :known], expected[:, :known], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["paradigms", "parataa", "x0", "chord"])
def test_a_sample_that_is_lost_leaves_the_batch(name: str) -> None:
    base = problem("ddim", N)
    solved = Problem(lambda x, t: x * torch.nan, base.process)
    result = solved.solve(solver(name, solved.process), solved.noise(), partial=True)
    assert result.rounds.tolist() == [1] * 3


@pytest.mark.parametrize("name", SOLVERS)
def test_a_sample_that_is_infinite_and_not_nan_is_noticed(name: str) -> None:
    """The direction of a DDIM step is that of the unclipped prediction."""
    base = problem("ddim", N, prediction_type="sample", set_alpha_to_one=False)
    last = base.process.timesteps[-1]

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t == last)[:, None, None], torch.inf, base.network(x, t))

    solved = Problem(net, base.process)
    with pytest.raises(NonFiniteError, match="3 of 3 samples"):
        solved.solve(solver(name, solved.process, tolerance=1e3), solved.noise())
