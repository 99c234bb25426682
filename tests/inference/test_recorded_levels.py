"""A recorded round of collocation costs the rows of the level that its samples are at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, samplers
from para_policy.samplers import Nodes, Trajectory
from para_policy.samplers.collocation import Collocation
from para_policy.samplers.deadline import Deadline, LatencyTable
from para_policy.samplers.result import Status
from tests.inference.rounds import (
    STEPS,
    Counted,
    Network,
    assert_same,
    matrices,
    problem,
    process_of,
    recorded_by,
)

SIZES = (5, 9, 17, STEPS)
DDPM = process_of("ddpm")


def nodes() -> Nodes:
    """Nested sets of 5, 9 and 17 nodes for a tolerance of 1e-2."""
    coarse, fine = [0, 7, 14, 22, 29], [3, 11, 18, 26]
    rest = sorted(set(range(STEPS)) - {*coarse, *fine})
    order = torch.tensor([*coarse, *fine, *rest[::2], *rest[1::2]])
    error = torch.full((STEPS,), 1.0)
    for size, left in zip(SIZES, (5e-3, 1e-3, 2e-4, 0.0), strict=True):
        error[size - 1 :] = left
    return Nodes(order, error, torch.full((STEPS,), 0.1))


def sampler(**options: Any) -> Collocation:
    made = samplers.get("collocation", matrices=matrices(), nodes=nodes(), **options)
    assert isinstance(made, Collocation)
    assert [len(steps) for steps in made.levels.steps] == list(SIZES)
    return made


class Rows(Network):
    """Takes down with how many rows it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def bind(self, condition: Tensor) -> Any:
        bound = super().bind(condition)

        def counted(x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            self.seen.append(len(x))
            return bound(x, t, sample)

        return counted


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_rounds_have_the_rows_of_their_level(kind: str, batch: int) -> None:
    usual, process, network = sampler(), process_of(kind), Rows()
    replayed = recorded_by(usual, Counted())
    for seed in range(3):
        condition, noise = problem(seed, batch)
        levels: list[int] = []
        solve = usual.begin(Denoiser(network, condition), process, noise, None)
        for launch in solve.launches(Denoiser(network, condition)):
            # In flight, as a round begins: what the finest of them needs.
            in_flight = solve.level[solve.alive()].clamp(max=len(SIZES) - 1)
            levels.append(SIZES[int(in_flight.max())] * batch)
            launch.run()
        assert len(set(levels)) > 2  # it climbs
        expected = usual(Denoiser(network, condition), process, noise)
        replayed(Denoiser(network, condition), process, noise)
        network.seen.clear()
        denoiser = Denoiser(network, condition)
        assert_same(replayed(denoiser, process, noise), expected)
        assert network.seen == levels
        assert denoiser.evals == sum(levels) < STEPS * batch * len(levels)


def test_every_level_is_recorded_once() -> None:
    recorder, network = Counted(), Network()
    replayed = recorded_by(sampler(), recorder)
    for seed in range(3):
        condition, noise = problem(seed)
        replayed(Denoiser(network, condition), DDPM, noise)
    assert recorder.recorded == len(SIZES)


def test_where_states_are_given_all_rows_are_evaluated() -> None:
    usual, network = sampler(), Rows()
    condition, noise = problem(0)
    states = samplers.get("sequential")(Denoiser(network, condition), DDPM, noise).trajectory
    guess = Trajectory(states, solve_last=20)
    expected = usual(Denoiser(network, condition), DDPM, noise, guess=guess)
    replayed = recorded_by(usual, Counted())
    replayed(Denoiser(network, condition), DDPM, noise)
    network.seen.clear()
    assert_same(replayed(Denoiser(network, condition), DDPM, noise, guess=guess), expected)
    assert set(network.seen) == {2 * STEPS}


def test_a_deadline_reckons_with_the_rows_of_the_level() -> None:
    """A call over all steps would never fit; one of the first level always does."""
    table = LatencyTable((1, 2 * SIZES[0], 2 * SIZES[0] + 1), (1e-9, 1e-9, 1e9))
    condition, noise = problem(0)
    replayed, network = recorded_by(sampler(), Counted()), Rows()
    replayed(Denoiser(network, condition), DDPM, noise)
    network.seen.clear()
    deadline = Deadline.after(3600, table)
    result = replayed(Denoiser(network, condition), DDPM, noise, deadline=deadline)
    assert result.status[0] is Status.DEADLINE
    assert set(network.seen) == {2 * SIZES[0]}
