"""An informed network of a draft sees the round, and by how much the round before moved the states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from para_policy.samplers import SPLITTINGS, Prior
from para_policy.samplers.draft import progress, root_mean_square
from tests.samplers.drafts import BLENDS, constant, exact_problem, iterates, noise_of, pcm


class Informed:
    """A consistency whose network notes what follows the condition."""

    informed = True

    def __init__(self, value: float = 0.3) -> None:
        self.value = value
        self.seen: list[Tensor] = []

    def __call__(self, share: float) -> Informed:
        return self

    def bind(self, condition: Tensor) -> object:
        self.seen.append(condition)
        return lambda x, t, sample: torch.full_like(x, self.value)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_each_round_tells_how_far_the_solve_is(splitting: str, blend: str) -> None:
    solved, told = exact_problem("ddpm"), Informed()
    noise = noise_of(solved, batch=3)
    _, states = iterates(solved, pcm(told, splitting, horizon=3, blend=blend), noise)
    assert len(told.seen) == 3
    moved, X = torch.zeros(3).to(noise.initial), Prior().start(solved.process, noise)[0]
    for k, (seen, after) in enumerate(zip(told.seen, states, strict=False)):
        torch.testing.assert_close(seen, progress(k, moved))
        moved, X = root_mean_square((after - X)[:, 1:]), after
    assert (told.seen[1][:, 1] > 1).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
def test_what_it_sees_is_a_number_whatever_came_of_the_round_before(value: float) -> None:
    solved, told = exact_problem("ddim"), Informed(value)
    iterates(solved, pcm(told, "identity", horizon=3), noise_of(solved))
    assert len(told.seen) == 3
    assert all(seen.isfinite().all() for seen in told.seen)


def test_a_new_solve_begins_anew() -> None:
    solved, told = exact_problem("ddpm"), Informed()
    sampler = pcm(told, "x0", horizon=2)
    for _ in range(2):
        solved.solve(sampler, noise_of(solved))
    first, second = told.seen[:2], told.seen[2:]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_other_networks_see_the_condition_alone() -> None:
    solved = exact_problem("ddpm")
    network = constant(0.3)
    plain = solved.solve(pcm(lambda share: network, "x0", horizon=2), noise_of(solved))
    informed = solved.solve(pcm(Informed(), "x0", horizon=2), noise_of(solved))
    assert torch.equal(plain.trajectory, informed.trajectory)
