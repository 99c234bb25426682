from __future__ import annotations

import numpy as np
import pytest

from para_policy.planning.trained import TrainedScale

JOINTS = TrainedScale(np.array([1.25, 2.0, 0.02]), np.array([0.0, -1.0, -0.5]))
"""Which the policy knows from -0.8 to 0.8 rad, from 0 to 1 rad, and from -25 to 75 mm."""


@pytest.mark.parametrize("values", [[-1.0, 0.0, -25.0], [1.0, 1.0, 75.0], [3.9, 2.9, -200.0]])
def test_values_around_the_demonstrations_are_nothing_to_tell(values: list[float]) -> None:
    assert JOINTS.far(np.array(values)) == ""


def test_degrees_are_told_with_the_place_and_what_the_policy_knows() -> None:
    told = JOINTS.far(np.array([0.0, 45.0, 0.0]))
    assert told.startswith("value 1 is 45, where the policy knows about 0 to 1; are units, joints")


def test_the_farthest_of_several_is_named() -> None:
    told = JOINTS.far(np.degrees([[0.2, 0.5, 0.0]]))
    assert "value 1 is 28.65" in told
    assert "and 1 more" in told


def test_of_values_that_are_not_normalised_nothing_is_told() -> None:
    plain = TrainedScale(np.array([1.0, 2.0]), np.array([0.0, 0.0]))
    assert plain.far(np.array([1000.0, 0.0])) == ""
    assert plain.far(np.array([1000.0, 45.0])).startswith("value 1 is 45")


def test_a_part_has_places_of_its_own() -> None:
    assert JOINTS.part(1, 2).far(np.array([0.5, 1000.0])).startswith("value 1 is 1000")
    assert not JOINTS.part(0, 1).far(np.array([0.5]))
