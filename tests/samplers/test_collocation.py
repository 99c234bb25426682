"""Collocation gives the sequential sample from fewer rows, and refines where a sample needs it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.calibration import fit_nodes, jacobians
from para_policy.errors import InputError
from para_policy.samplers import FromCleanSample, Nodes, Sampler, SampleResult, Status, Trajectory
from tests.problems import (
    Hashed,
    Linear,
    Mixture,
    Network,
    Problem,
    Rational,
    Threshold,
    problem,
    row_by_row,
    scheduler,
)

SHAPE, D, N = (4, 2), 8, 60
SEQUENTIAL = samplers.get("sequential")


def of(network: Network, kind: str = "ddpm", steps: int = N, train_steps: int = 100) -> Problem:
    """A network that predicts the clean sample."""
    clip = {} if kind == "dpmsolver++" else {"clip_sample": False}
    made = scheduler(kind, train_steps, prediction_type="sample", **clip)
    return Problem(network, Process.from_scheduler(made, steps))


def measured(task: Problem, batch: int = 24) -> dict[str, Any]:
    """Matrices and nodes for a task, from solutions of other noise."""
    noise = task.noise(batch, first_seed=1000)
    exact = task.solve(SEQUENTIAL, noise).trajectory
    denoiser = Denoiser(task.network)
    few = range(min(8, batch))
    matrices, spread = jacobians(denoiser, task.process, noise.select(few), exact[: len(few)])
    clean = exact[:, -1].flatten(1).mean(dim=0).expand(batch, D)
    nodes = fit_nodes(task.process, [noise], [exact], clean, matrices, spread)
    return {"matrices": matrices, "nodes": nodes}


def unchecked(parts: dict[str, Any]) -> dict[str, Any]:
    """As a calibration of an earlier release has them."""
    return {**parts, "nodes": dataclasses.replace(parts["nodes"], defect=None)}


def error(result: SampleResult, exact: SampleResult) -> Tensor:
    return (result.sample - exact.sample).flatten(1).abs().amax(dim=1)


SMOOTH = problem("ddpm", N, Mixture(std=0.5))


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return measured(SMOOTH)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_it_is_as_near_as_it_says(parts: dict[str, Any], tolerance: float) -> None:
    noise = SMOOTH.noise(32)
    exact = SMOOTH.solve(SEQUENTIAL, noise)
    result = SMOOTH.solve(samplers.get("collocation", **parts, tolerance=tolerance), noise)
    assert result.converged.all()
    assert error(result, exact).quantile(0.9) <= tolerance


def test_nodes_live_in_noise_level_and_not_in_step_number() -> None:
    """Ten times the steps take hardly more rows, and far fewer than there are steps."""
    rows = []
    for steps in (40, 400):
        task = of(Rational(gain=0.5), steps=steps, train_steps=400)
        noise = task.noise(8)
        parts = measured(task, batch=128)  # what is usual takes more than a few samples to know
        result = task.solve(samplers.get("collocation", **parts), noise)
        assert result.converged.all()
        assert error(result, task.solve(SEQUENTIAL, noise)).max() <= 1e-2
        rows.append(float(result.evals.double().mean()))
    assert rows[1] < 1.5 * rows[0]
    assert rows[1] < 400 / 5


def test_a_tighter_tolerance_takes_finer_nodes(parts: dict[str, Any]) -> None:
    nodes: Nodes = parts["nodes"]
    coarse, fine = nodes.levels(1e-2), nodes.levels(1e-3)
    assert coarse.nodes[0].sum() < fine.nodes[0].sum()
    for levels in (coarse, fine):
        sizes = levels.nodes.sum(dim=1)
        assert (sizes.diff() > 0).all()
        assert sizes[-1] == N
        for coarser, finer in zip(levels.nodes, levels.nodes[1:], strict=False):
            assert finer[coarser].all()  # nested
        assert levels.nodes[:, [0, N - 1]].all()  # both ends


def test_levels_are_the_fewest_nodes_that_are_accurate_enough() -> None:
    error = torch.tensor([1e9, 9e-3, 5e-3, 4e-3, *[1e-3] * 5, *[2e-4] * 10, 0.0])
    found = Nodes(torch.arange(20), error, torch.ones(20)).levels(1e-2)
    assert found.nodes.sum(dim=1).tolist() == [3, 5, 10, 20]
    # On the last level nothing is interpolated, but a state may rest at two hundredths of the tolerance.
    assert found.floor.tolist() == pytest.approx([5e-3, 1e-3, 2e-4, 2e-4])


def test_where_the_model_is_exact_the_first_sweeps_are() -> None:
    task = of(Linear(size=D))
    parts = measured(task, batch=4)
    noise = task.noise(5)
    result = task.solve(samplers.get("collocation", **parts), noise)
    assert error(result, task.solve(SEQUENTIAL, noise)).max() < 1e-9
    assert result.evals.max() < N / 2


def test_the_estimated_error_holds_what_interpolation_costs() -> None:
    """No correction shows it: here the second sweep finds nothing to correct."""
    task = of(Linear(size=D))
    parts = measured(task, batch=4)
    cost = torch.full((N,), 1e-3)
    cost[0], cost[-1] = 1e9, 0.0
    nodes = dataclasses.replace(parts["nodes"], error=cost)
    noise = task.noise(5)
    loose, strict = (
        task.solve(
            samplers.get(
                "collocation", matrices=parts["matrices"], nodes=nodes, tolerance=tolerance
            ),
            noise,
        )
        for tolerance in (1e-2, 2.2e-3)
    )
    assert loose.evals.max() < N / 2
    assert loose.residuals[-1].max() < 1e-9
    assert (loose.correction >= 1e-3).all()
    assert strict.evals.min() >= N  # more than half of it: asked at all steps
    assert (strict.correction <= 2.2e-3 / 5).all(), (
        "no interpolation, only what a state may rest at"
    )


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("network", [Hashed(), Threshold(), Rational()])
def test_tolerance_0_is_sequential_to_the_bit(kind: str, network: Network) -> None:
    task = of(row_by_row(network), kind, 20)
    matrices = 0.1 * torch.eye(D, dtype=torch.float64).expand(20, D, D)
    nodes = Nodes(torch.arange(20), torch.zeros(20), torch.ones(20))
    noise = task.noise()
    result = task.solve(
        samplers.get("collocation", matrices=matrices, nodes=nodes, tolerance=0.0), noise
    )
    assert torch.equal(result.trajectory, task.solve(SEQUENTIAL, noise).trajectory)
    assert result.converged.all()


@pytest.mark.parametrize("network", [Hashed(), Threshold()])
def test_a_sample_that_no_level_suffices_for_is_solved_over_all_steps(network: Network) -> None:
    """Nodes that promise too much, and a network that no interpolation fits."""
    task = of(row_by_row(network))
    matrices = task.process.B[:, None, None] * torch.eye(D, dtype=torch.float64)
    promise = torch.full((N,), 1e-12)
    nodes = Nodes(torch.arange(N).flip(0), promise, torch.ones(N))
    noise = task.noise()
    result = task.solve(
        samplers.get("collocation", matrices=matrices, nodes=nodes, tolerance=1e-6), noise
    )
    assert result.converged.all()
    assert error(result, task.solve(SEQUENTIAL, noise)).max() < 1e-4
    assert result.evals.min() > N


def test_multistep_schedulers_are_solved_as_by_chord() -> None:
    task = problem("dpmsolver++", 20, Mixture())
    parts = measured(task)
    noise = task.noise(4)
    result = task.solve(samplers.get("collocation", **parts), noise)
    chord = samplers.get("chord", matrices=parts["matrices"], window=None, lookahead=None)
    assert torch.equal(result.trajectory, task.solve(chord, noise).trajectory)


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_sample_does_not_depend_on_its_batch(kind: str) -> None:
    task = problem(kind, N, Mixture())
    parts = measured(task)
    task = dataclasses.replace(task, network=row_by_row(task.network))
    sampler = samplers.get("collocation", **parts)
    noise = task.noise(6)
    together = task.solve(sampler, noise)
    for sample in range(6):
        alone = task.solve(sampler, noise.select([sample]))
        for name in ("trajectory", "rounds", "evals", "residual", "correction"):
            assert torch.equal(getattr(together, name)[[sample]], getattr(alone, name)), name


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_a_guess_moves_the_start_and_not_the_solution(parts: dict[str, Any], shift: float) -> None:
    noise = SMOOTH.noise(16)
    exact = SMOOTH.solve(SEQUENTIAL, noise)
    sampler = samplers.get("collocation", **parts)
    result = SMOOTH.solve(sampler, noise, guess=FromCleanSample(exact.sample + shift))
    assert result.converged.all()
    assert error(result, exact).quantile(0.9) <= 1e-2


def test_where_states_are_given_all_other_steps_are_solved(parts: dict[str, Any]) -> None:
    noise = SMOOTH.noise(3)
    exact = SMOOTH.solve(SEQUENTIAL, noise)
    sampler = samplers.get("collocation", **parts)
    old = Trajectory(exact.trajectory, solve_last=20)
    result = SMOOTH.solve(sampler.starting_at(old), noise, guess=old)
    assert torch.equal(result.trajectory[:, : N - 19], exact.trajectory[:, : N - 19])
    assert error(result, exact).max() <= 1e-2


def test_a_network_that_answers_nan_is_told(parts: dict[str, Any]) -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t.reshape(-1, 1, 1) < 40, torch.nan, x)

    task = Problem(broken, SMOOTH.process)
    result = task.solve(samplers.get("collocation", **parts), task.noise(2), partial=True)
    assert result.status == (Status.NON_FINITE,) * 2


def test_one_broken_call_is_survived() -> None:
    """What was broken is asked again, by rounds over all steps."""
    smooth, calls = of(Linear(size=D)), 0

    def net(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        broken = (t < 40).reshape(-1, 1, 1) & (calls == 1)
        return torch.where(broken, torch.nan, smooth.network(x, t))

    noise, task = smooth.noise(3), Problem(net, smooth.process)
    result = task.solve(samplers.get("collocation", **measured(smooth, batch=4)), noise)
    assert calls > 1
    assert result.converged.all()
    assert error(result, smooth.solve(SEQUENTIAL, noise)).max() <= 1e-2


def test_a_network_that_agrees_with_the_guess_is_recognised() -> None:
    """The linear model around the guessed sample is the solution: nothing is left over."""
    task = of(lambda x, t: 0 * x + 0.25)
    parts, noise = measured(task, batch=4), task.noise(3)
    guess = FromCleanSample(torch.full_like(noise.initial, 0.25))
    result = task.solve(samplers.get("collocation", **parts), noise, guess=guess)
    assert result.residuals[0].max() < 1e-9
    assert error(result, task.solve(SEQUENTIAL, noise)).max() < 1e-9


@pytest.mark.parametrize(("share", "rounds"), [(0.4, 1), (0.6, 2)])
def test_a_first_correction_beyond_half_of_the_tolerance_does_not_end_it(
    share: float, rounds: int
) -> None:
    """How fast a sample contracts is not known then; here it is there at once."""
    task, tolerance = of(lambda x, t: 0 * x + 0.25), 1e-2
    parts, noise = unchecked(measured(task, batch=4)), task.noise(3)
    guess = FromCleanSample(torch.full_like(noise.initial, 0.25 + share * tolerance))
    sampler = samplers.get("collocation", **parts, tolerance=tolerance)
    assert task.solve(sampler, noise, guess=guess).rounds.tolist() == [rounds] * 3


def test_what_no_node_can_see_shows_where_a_level_is_checked() -> None:
    """Samples unlike those of calibration, whose network says something else between two nodes."""
    usual, noise = of(Rational(gain=0.5)), SMOOTH.noise(8)
    parts = measured(usual)
    levels = parts["nodes"].levels(1e-2)
    step = int(levels.checks[1].nonzero()[-1])
    t, per_step = usual.process.timesteps[step], 100 / N

    def surprising(x: Tensor, at: Tensor) -> Tensor:
        far = (at.reshape(-1, 1, 1) - t) / per_step
        return Rational(gain=0.5)(x, at) + 16.0 * torch.exp(-4 * far.square())

    task = of(surprising)
    exact = task.solve(SEQUENTIAL, noise)
    fooled = task.solve(samplers.get("collocation", **unchecked(parts)), noise)
    assert fooled.converged.all()
    assert error(fooled, exact).median() > 1e-2
    result = task.solve(samplers.get("collocation", **parts), noise)
    assert result.converged.all()
    assert error(result, exact).max() <= 1e-2


def test_what_no_check_lets_pass_is_solved_to_a_fifth_of_the_tolerance() -> None:
    parts = measured(SMOOTH, batch=64)
    nodes = dataclasses.replace(parts["nodes"], defect=torch.zeros(N))  # nothing is usual
    noise = SMOOTH.noise(32)
    result = SMOOTH.solve(samplers.get("collocation", **{**parts, "nodes": nodes}), noise)
    assert result.converged.all()
    assert result.evals.min() > N, "on the level of all steps"
    assert error(result, SMOOTH.solve(SEQUENTIAL, noise)).max() <= 1e-2 / 5


def test_a_level_is_checked_where_it_has_no_nodes(parts: dict[str, Any]) -> None:
    nodes: Nodes = parts["nodes"]
    for tolerance in (1e-2, 1e-3, 1e-4):
        levels = nodes.levels(tolerance)
        assert not (levels.nodes & levels.checks).any()
        assert levels.checks[:-1].sum(dim=1).gt(0).all(), "all but that of all steps"
        assert levels.checks.sum(dim=1).max() <= 4
        for at_nodes, checks in zip(levels.nodes, levels.checks, strict=True):
            interval = at_nodes.long().cumsum(dim=0)[checks]
            assert len(interval.unique()) == len(interval), "no two in one interval"
    for one, next_one in itertools.pairwise(nodes.levels(1e-3).steps):
        assert set(one.tolist()) <= set(next_one.tolist()), "a recorded round serves lower levels"


def test_a_check_comes_with_the_last_round_and_seldom_before() -> None:
    task = of(Rational(gain=0.5), steps=100)
    noise, parts = task.noise(64), measured(task, batch=128)
    found = [
        task.solve(samplers.get("collocation", **each), noise) for each in (parts, unchecked(parts))
    ]
    checked, without = (result.rounds.double().mean() for result in found)
    assert checked < without + 0.5, "no rounds of their own"
    checked, without = (result.evals.double().mean() for result in found)
    assert without + 1 < checked < without + 4, "most samples are checked at four steps, once"


def test_a_round_budget_ends_it_early(parts: dict[str, Any]) -> None:
    noise = SMOOTH.noise(4)
    result = SMOOTH.solve(samplers.get("collocation", **parts, max_rounds=2), noise)
    assert (result.rounds == 2).all()
    assert result.status == (Status.ROUND_BUDGET,) * 4
    assert result.trajectory.isfinite().all()


@pytest.mark.parametrize("defect", [None, torch.zeros(N)])
def test_rounds_are_bounded_whatever_the_network(defect: Tensor | None) -> None:
    task = of(Hashed(gain=5.0))
    matrices = task.process.B[:, None, None] * torch.eye(D, dtype=torch.float64)
    nodes = Nodes(torch.arange(N).flip(0), torch.full((N,), 1e-12), torch.zeros(N), defect)
    result = task.solve(samplers.get("collocation", matrices=matrices, nodes=nodes), task.noise(3))
    assert result.converged.all()
    assert result.rounds.max() <= N + (21 if defect is None else 24)
    assert result.evals.min() > N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": torch.tensor([0, 1, 1, 3])}, "each of the steps 0 to 3 once"),
        ({"error": torch.ones(3)}, r"error of the nodes is \(3,\)"),
        ({"sensitivity": -torch.ones(4)}, "sensitivity of the nodes"),
        ({"error": torch.full((4,), torch.nan)}, "error of the nodes"),
        ({"defect": torch.ones(5)}, r"defect of the nodes is \(5,\)"),
    ],
)
def test_nodes_that_do_not_fit_are_refused(change: dict[str, Tensor], message: str) -> None:
    good = {"order": torch.arange(4), "error": torch.zeros(4), "sensitivity": torch.zeros(4)}
    with pytest.raises(InputError, match=message):
        Nodes(**{**good, **change})


def test_nodes_of_another_process_are_refused(parts: dict[str, Any]) -> None:
    other = problem("ddpm", 20, Mixture())
    matrices = torch.zeros(20, D, D, dtype=torch.float64)
    sampler: Sampler = samplers.get("collocation", matrices=matrices, nodes=parts["nodes"])
    with pytest.raises(InputError, match=f"nodes are for {N} steps, and this process has 20"):
        other.solve(sampler, other.noise())


def test_float32_and_a_batch_of_one(parts: dict[str, Any]) -> None:
    noise: Noise = SMOOTH.noise(1, dtype=torch.float32)
    result = SMOOTH.solve(samplers.get("collocation", **parts), noise)
    assert result.sample.dtype == torch.float32
    assert result.converged.all()
    assert error(result, SMOOTH.solve(SEQUENTIAL, noise)).max() <= 1e-2
