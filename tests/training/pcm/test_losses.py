"""Parts of the loss are 0 where a sweep lands on the solution, and what they say they are elsewhere."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from para_policy import Noise, Process
from para_policy.samplers import Chord, Scalar, Sequential, Splitting
from para_policy.training.pcm.losses import NEARLY_SOLVED, Losses, Weights
from para_policy.training.pcm.sweep import Swept, ideal_residual
from tests.problems import problem

N, SHAPE = 6, (2, 2)
ALL = Weights(trajectory=1, rows=1, neighbours=1)
SPLITTINGS: dict[str, Splitting] = {
    "identity": Scalar("identity"),
    "x0": Scalar("clean"),
    "chord": Chord(0.4 * torch.randn(N, 4, 4, generator=torch.Generator().manual_seed(7)).double()),
}


@pytest.fixture(params=SPLITTINGS)
def splitting(request: pytest.FixtureRequest) -> Splitting:
    return SPLITTINGS[request.param]


def unsolved() -> tuple[Process, Tensor, Tensor]:
    """Process, an iterate that solves nothing, and the solution."""
    made = problem("ddpm", N)
    noise = Noise.from_seeds([0, 1], SHAPE, N, dtype=torch.float64)
    solution = made.solve(Sequential(), noise).trajectory
    off = 0.5 * torch.randn(solution.shape, generator=torch.Generator().manual_seed(1)).double()
    off[:, 0] = 0
    return made.process.to("cpu", torch.float64), solution + off, solution


def test_the_ideal_residuals_take_a_sweep_to_the_solution(splitting: Splitting) -> None:
    process, X, solution = unsolved()
    ideal = ideal_residual(splitting, process, X, solution)
    rows = torch.arange(N).expand(2, N)
    after = X[:, 1:] + ideal + splitting.bind(process, SHAPE)(ideal, rows)
    torch.testing.assert_close(after, solution[:, 1:], rtol=0, atol=1e-12)
    assert not ideal_residual(splitting, process, solution, solution).any()


def test_each_part_is_the_mean_square_that_it_says(splitting: Splitting) -> None:
    process, X, solution = unsolved()
    losses = Losses(ALL, process, splitting)
    ideal = ideal_residual(splitting, process, X, solution)
    seen = torch.tensor([0, 2, 4, 5])

    def left(states: Tensor, residual: Tensor) -> list[float]:
        found = losses.after(X, Swept(states, seen, residual), solution)
        assert found.shape == (3, 2)
        return found[:, 0].tolist()

    assert left(solution, ideal[:, seen]) == [0, 0, 0]
    assert left(solution + 0.1, ideal[:, seen] + 0.2) == pytest.approx([0.01, 0.04, 0])
    rising = 0.1 * torch.arange(4).double()[:, None, None]
    assert left(solution, ideal[:, seen] + rising) == pytest.approx([0, 0.14 / 4, 0.01])
    lacking = ideal.square().flatten(1).mean(dim=1)
    before = losses.before(X, solution)
    torch.testing.assert_close(before[0], (X - solution).square().flatten(1).mean(dim=1))
    torch.testing.assert_close(before[1:], torch.stack([lacking, lacking]))


def test_one_row_has_no_neighbours(splitting: Splitting) -> None:
    process, X, solution = unsolved()
    found = Losses(ALL, process, splitting).after(
        X, Swept(X, torch.tensor([0]), torch.ones(2, 1, *SHAPE)), solution
    )
    assert found[2].tolist() == [0, 0]


def test_parts_are_weighted_shares_of_their_scale() -> None:
    process, _, _ = unsolved()
    losses = Losses(Weights(trajectory=2, rows=0, neighbours=0.5), process, Scalar("clean"))
    left = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert losses.weighted(left, torch.tensor([[4.0], [1.0], [10.0]])).tolist() == pytest.approx(
        [2 / 4 + 0.5 * 5 / 10, 2 * 2 / 4 + 0.5 * 6 / 10]
    )
    assert losses.least[:, 0].tolist() == pytest.approx(
        [NEARLY_SOLVED**2, NEARLY_SOLVED**2 / N, NEARLY_SOLVED**2 / N]
    )


def test_parts_without_weight_are_not_computed() -> None:
    process, X, solution = unsolved()
    absurd = Chord(torch.ones(1, 4, 4).double())  # of one step: the second would fail
    plain = Losses(Weights(), process, absurd)
    swept = Swept(X, torch.arange(N), torch.ones(2, N, *SHAPE))
    assert not plain.before(X, solution)[1:].any()
    assert not plain.after(X, swept, solution)[1:].any()
    with pytest.raises(IndexError):
        Losses(ALL, process, absurd).before(X, solution)


@pytest.mark.parametrize(
    "wrong",
    [{"trajectory": 0}, {"rows": -1}, {"neighbours": float("nan")}, {"rows": 1e7}, {"row": 1}],
    ids=str,
)
def test_wrong_weights_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Weights.model_validate(wrong)
