"""The rule of our family: which rows a sweep may make final."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from para_policy.samplers import ResidualBelow

N, SHAPE = 10, (3, 2)


def states(sizes: list[float]) -> Tensor:
    """(1, W, *SHAPE) with these largest coordinates; all others are half as large, with the other sign."""
    value = torch.tensor(sizes, dtype=torch.float64)[:, None].expand(-1, 6) * -0.5
    value[:, 3] *= -2
    return value.reshape(1, -1, *SHAPE)


@pytest.mark.parametrize(
    ("first", "corrections", "residuals", "expected"),
    [
        # Others go on: half of the tolerance, and no more.
        (0, [0.5, 0.51, 0.5], [1.0, 1.0, 1.0], [True, False, True]),
        (N - 3, [0.5, 0.51, 1.01], [1.0, 1.0, 1.0], [True, False, False]),
        # All the rest passes together: the whole tolerance.
        (N - 3, [0.5, 0.51, 1.0], [1.0, 1.0, 1.0], [True, True, True]),
        # But not all of a window that ends earlier.
        (N - 4, [0.5, 0.51, 1.0], [1.0, 1.0, 1.0], [True, False, False]),
        # A state that the step formula does not write, however little the sweep would move it.
        (0, [0.1, 0.1, 0.1], [1.0, 1.01, 1.0], [True, False, True]),
        (N - 3, [0.5, 0.51, 0.5], [1.0, 1.0, 1.01], [True, False, False]),
        (N - 2, [0.1, 0.1], [math.nan, math.inf], [False, False]),
        (N - 2, [math.nan, math.inf], [0.1, 0.1], [False, False]),
    ],
)
def test_rows_that_pass(
    first: int, corrections: list[float], residuals: list[float], expected: list[bool]
) -> None:
    rows = torch.arange(len(corrections))[None] + first
    tolerance = 0.02
    passed = ResidualBelow(tolerance).passed(
        tolerance * states(corrections), tolerance * states(residuals), torch.ones(N + 1), rows
    )
    assert passed.tolist() == [expected]
