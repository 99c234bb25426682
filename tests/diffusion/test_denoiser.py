"""The network as samplers see it: condition by row, shape checked, calls counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from para_policy import Denoiser
from para_policy.errors import InputError

X = torch.arange(24.0).reshape(4, 3, 2)
T = torch.tensor([9, 9, 5, 0])
SAMPLE = torch.tensor([0, 2, 2, 1])


def test_each_row_gets_the_condition_of_its_sample() -> None:
    condition = torch.tensor([[10.0], [20.0], [30.0]])
    seen = {}

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        seen.update(x=x, t=t, cond=cond)
        return x + cond[:, :, None]

    output = Denoiser(network, condition)(X, T, SAMPLE)
    assert seen["cond"].flatten().tolist() == [10, 30, 30, 20]
    assert torch.equal(seen["t"], T)
    assert torch.equal(output, X + seen["cond"][:, :, None])


def test_a_network_without_condition_takes_states_and_timesteps_only() -> None:
    assert torch.equal(Denoiser(lambda x, t: 2 * x)(X, T, SAMPLE), 2 * X)


def test_rounds_count_calls_and_evals_count_rows() -> None:
    denoiser = Denoiser(lambda x, t: x)
    for rows in (4, 1, 2):
        denoiser(X[:rows], T[:rows], SAMPLE[:rows])
    assert (denoiser.rounds, denoiser.evals) == (3, 7)


def test_no_gradient_is_recorded() -> None:
    layer = nn.Linear(2, 2)
    assert not Denoiser(lambda x, t: layer(x))(X, T, SAMPLE).requires_grad


@pytest.mark.parametrize("cut", [(slice(2),), (slice(None), slice(2)), (..., slice(1))])
def test_a_network_that_changes_the_shape_is_refused(cut: tuple[slice, ...]) -> None:
    with pytest.raises(InputError, match=r"\(4, 3, 2\).*shape must not change"):
        Denoiser(lambda x, t: x[cut])(X, T, SAMPLE)


@pytest.mark.parametrize(("pad_to", "rows"), [(1, 3), (3, 3), (2, 4), (4, 4), (16, 16)])
def test_calls_are_filled_up_to_a_multiple(pad_to: int, rows: int) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        calls.append((x, t, cond))
        return x + cond[:, :, None]

    condition = torch.tensor([[10.0], [20.0], [30.0]])
    denoiser = Denoiser(network, condition, pad_to=pad_to)
    output = denoiser(X[:3], T[:3], SAMPLE[:3])
    assert torch.equal(output, Denoiser(network, condition)(X[:3], T[:3], SAMPLE[:3]))
    assert [len(value) for value in calls[0]] == [rows] * 3
    assert (denoiser.rounds, denoiser.evals) == (1, 3)  # what fills a call up is no work


@pytest.mark.parametrize("pad_to", [0, -1, 1.0, True, "8", None])
def test_padding_that_is_no_number_of_rows_is_refused(pad_to: object) -> None:
    with pytest.raises(InputError, match="pad_to is"):
        Denoiser(lambda x, t: x, pad_to=pad_to)  # type: ignore[arg-type]
