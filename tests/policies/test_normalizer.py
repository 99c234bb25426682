"""Every recorded value lands in [-1, 1] and comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from para_policy.errors import DataError
from para_policy.policies.normalizer import LinearNormalizer

VALUES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 30), st.integers(1, 4)),
    elements=st.floats(-1000, 1000, width=32),
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_values_land_in_the_unit_box_and_come_back(values: np.ndarray) -> None:
    normalizer = LinearNormalizer.fit(values)
    x = torch.from_numpy(values)
    spread = torch.from_numpy(np.ptp(values.astype(np.float64), axis=0)).float()
    # x * scale + offset cancels: its float32 rounding is that of |x| / range
    rounding = 1e-6 * (1 + 2 * x.abs().amax(dim=0) / spread.clamp(min=1e-4))
    scaled = normalizer.normalize(x)
    assert (scaled.abs() <= 1 + rounding).all()
    back = normalizer.unnormalize(scaled)
    assert ((back - x).abs() <= 1e-3 + 1e-6 * x.abs().amax(dim=0)).all()


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_the_extremes_of_a_moving_coordinate_are_the_ends(values: np.ndarray) -> None:
    moving = np.ptp(values, axis=0) > 0.1
    scaled = LinearNormalizer.fit(values).normalize(torch.from_numpy(values)).numpy()[:, moving]
    assert scaled.min(axis=0) == pytest.approx(-1, abs=2e-2)
    assert scaled.max(axis=0) == pytest.approx(1, abs=2e-2)


def test_pusht_actions_use_the_whole_range() -> None:
    normalizer = LinearNormalizer.fit(np.array([[12.0, 25.0], [511.0, 511.0]], np.float32))
    corners = torch.tensor([[12.0, 511.0], [261.5, 268.0]])
    expected = torch.tensor([[-1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(normalizer.normalize(corners), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(normalizer.unnormalize(expected), corners)


@pytest.mark.parametrize("constant", [0.0, -3.5, 1e6])
def test_a_constant_coordinate_is_only_shifted(constant: float) -> None:
    values = np.full((5, 2), constant, np.float32)
    values[:, 1] = np.arange(5)
    normalizer = LinearNormalizer.fit(values)
    assert normalizer.scale[0] == 1
    assert (normalizer.normalize(torch.from_numpy(values))[:, 0] == 0).all()
    assert normalizer.unnormalize(torch.zeros(2))[0] == constant


def test_a_coordinate_that_trembles_is_not_amplified() -> None:
    values = np.array([[5.0], [5.00005]], np.float32)
    assert LinearNormalizer.fit(values).scale.item() == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = np.zeros((4, 2), np.float32)
    values[2, 1] = bad
    with pytest.raises(DataError, match="NaN"):
        LinearNormalizer.fit(values)
