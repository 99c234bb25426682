"""A network in place of the denoiser's own for one call, as the drafts of PCM need it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from para_policy import Denoiser
from para_policy.errors import InputError

X = torch.arange(24.0).reshape(4, 3, 2)
T = torch.tensor([9, 9, 5, 0])
SAMPLE = torch.tensor([0, 2, 2, 1])
CONDITION = torch.tensor([[10.0], [20.0], [30.0]])


def test_another_network_replaces_the_bound_one_for_that_call_only() -> None:
    denoiser = Denoiser(lambda x, t: 2 * x)
    assert torch.equal(denoiser.with_network(lambda x, t: 5 * x)(X, T, SAMPLE), 5 * X)
    assert torch.equal(denoiser(X, T, SAMPLE), 2 * X)
    assert torch.equal(denoiser(X, T, SAMPLE), 2 * X)
    assert (denoiser.rounds, denoiser.evals) == (3, 12)


@pytest.mark.parametrize(
    ("pad_to", "pad_from", "rows"), [(1, 1, 3), (8, 1, 8), (8, 3, 8), (8, 4, 3)]
)
def test_another_network_sees_the_same_call(pad_to: int, pad_from: int, rows: int) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        calls.append((x, t, condition))
        return x + condition[:, :, None]

    denoiser = Denoiser(network, CONDITION, pad_to=pad_to, pad_from=pad_from)
    outputs = [one(X[:3], T[:3], SAMPLE[:3]) for one in (denoiser, denoiser.with_network(network))]
    assert torch.equal(*outputs)
    assert len(calls[0][0]) == rows
    assert all(torch.equal(a, b) for a, b in zip(*calls, strict=True))
    assert calls[1][2][:3].flatten().tolist() == [10, 30, 30]
    assert (denoiser.rounds, denoiser.evals) == (2, 6)


def test_another_network_records_no_gradient_and_keeps_the_shape() -> None:
    layer = nn.Linear(2, 2)
    denoiser = Denoiser(lambda x, t: x)
    assert not denoiser.with_network(lambda x, t: layer(x))(X, T, SAMPLE).requires_grad
    with pytest.raises(InputError, match=r"\(4, 3, 2\).*shape must not change"):
        denoiser.with_network(lambda x, t: x[:2])(X, T, SAMPLE)


class Empty(nn.Sequential):
    """A module of length 0, which Python takes for false."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 5 * x


def test_another_network_is_called_even_if_it_counts_as_false() -> None:
    assert torch.equal(Denoiser(lambda x, t: 2 * x).with_network(Empty())(X, T, SAMPLE), 5 * X)
