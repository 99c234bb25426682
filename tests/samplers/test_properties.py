"""Properties of every solve, whatever its sizes: searched by hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from para_policy import Process, samplers
from para_policy.samplers import FixedPoint, SampleResult, Status
from tests.problems import Gaussian, Problem, network, row_by_row, scheduler

SEQUENTIAL = samplers.get("sequential")
DTYPES = st.sampled_from([torch.float32, torch.float64])

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@st.composite
def solves(draw: st.DrawFn) -> tuple[Problem, dict[str, Any]]:
    """A problem and how its noise is drawn."""
    num_steps = draw(st.integers(1, 30))
    kind = draw(st.sampled_from(["ddpm", "ddim", "dpmsolver++"]))
    options: dict[str, Any] = {}
    if kind != "dpmsolver++":
        options["clip_sample"] = draw(st.booleans())
    made = scheduler(kind, prediction_type=draw(st.sampled_from(["sample", "epsilon"])), **options)
    eta = draw(st.sampled_from([0.0, 0.5, 1.0])) if kind == "ddim" else 0.0
    process = Process.from_scheduler(made, num_steps, eta=eta)
    data = Gaussian(draw(st.floats(-0.5, 0.5)), draw(st.floats(0.01, 1.0)))
    noise = {
        "batch": draw(st.integers(1, 4)),
        "shape": (draw(st.integers(1, 9)), draw(st.integers(1, 3))),
        "dtype": draw(DTYPES),
        "first_seed": draw(st.integers(0, 10**6)),
    }
    return Problem(row_by_row(network(data, made)), process), noise


WINDOWS = st.one_of(st.none(), st.integers(1, 40))
TOLERANCES = st.one_of(st.just(0.0), st.floats(1e-8, 1.0))


@settings(max_examples=40, deadline=None)
@given(solves(), WINDOWS)
def test_tolerance_zero_is_exact_within_n_rounds(
    case: tuple[Problem, dict[str, Any]], window: int | None
) -> None:
    problem, options = case
    noise = problem.noise(**options)
    result = problem.solve(samplers.get("paradigms", window=window, tolerance=0.0), noise)
    assert torch.equal(result.trajectory, problem.solve(SEQUENTIAL, noise).trajectory)
    assert result.rounds.max() <= problem.process.num_steps


@settings(max_examples=60, deadline=None)
@given(solves(), WINDOWS, TOLERANCES)
def test_bookkeeping_holds_for_every_solve(
    case: tuple[Problem, dict[str, Any]], window: int | None, tolerance: float
) -> None:
    problem, options = case
    N, batch = problem.process.num_steps, options["batch"]
    noise = problem.noise(**options)
    sampler = samplers.get("paradigms", window=window, tolerance=tolerance)
    result = problem.solve(sampler, noise)
    assert set(result.status) == {Status.CONVERGED}
    assert result.sample.shape == noise.initial.shape
    assert result.trajectory.shape == (batch, N + 1, *options["shape"])
    assert torch.equal(result.sample, result.trajectory[:, -1])
    assert torch.equal(result.trajectory[:, 0], noise.initial)
    width = min(window or N, N)
    assert (result.rounds >= -(-N // width)).all()
    assert (result.rounds <= N).all()
    assert (result.evals >= N).all()
    assert (result.evals <= result.rounds * width).all()
    assert result.residuals.shape == (int(result.rounds.max()), batch)
    check_residuals(result)


def check_residuals(result: SampleResult) -> None:
    for i, rounds in enumerate(result.rounds.tolist()):
        assert (result.residuals[:rounds, i] >= 0).all()
        assert result.residuals[rounds:, i].isnan().all()
    assert (result.residual <= result.residuals.nan_to_num(0).amax(dim=0)).all()


@settings(max_examples=30, deadline=None)
@given(solves(), st.integers(1, 40), st.integers(1, 40))
def test_a_budget_stops_in_time_and_never_claims_more(
    case: tuple[Problem, dict[str, Any]], window: int, max_rounds: int
) -> None:
    problem, options = case
    noise = problem.noise(**options)
    sampler = samplers.get("paradigms", window=window, tolerance=1e-3, max_rounds=max_rounds)
    free = samplers.get("paradigms", window=window, tolerance=1e-3)
    result, unlimited = problem.solve(sampler, noise), problem.solve(free, noise)
    assert (result.rounds <= max_rounds).all()
    expected = [
        Status.CONVERGED if rounds <= max_rounds else Status.ROUND_BUDGET
        for rounds in unlimited.rounds.tolist()
    ]
    assert list(result.status) == expected
    done = result.converged
    assert torch.equal(result.sample[done], unlimited.sample[done])


@settings(max_examples=30, deadline=None)
@given(solves(), WINDOWS, TOLERANCES, st.data())
def test_samples_are_independent_of_each_other(
    case: tuple[Problem, dict[str, Any]],
    window: int | None,
    tolerance: float,
    data: st.DataObject,
) -> None:
    problem, options = case
    noise = problem.noise(**options)
    sampler: FixedPoint = samplers.get("paradigms", window=window, tolerance=tolerance)
    order = data.draw(st.permutations(range(options["batch"])))
    together, mixed = problem.solve(sampler, noise), problem.solve(sampler, noise.select(order))
    assert torch.equal(mixed.trajectory, together.trajectory[order])
    assert torch.equal(mixed.rounds, together.rounds[order])
    assert torch.equal(mixed.evals, together.evals[order])
