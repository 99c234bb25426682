from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.spaces import PoseSpace

SPACE = PoseSpace()


def make_pose(x: float, degrees: float) -> np.ndarray:
    return np.concatenate([[x, 0, 0], Rotation.from_euler("z", degrees, degrees=True).as_quat()])


def degrees_of(pose: np.ndarray) -> float:
    return float(Rotation.from_quat(pose[3:]).as_euler("xyz", degrees=True)[2])


@pytest.mark.parametrize("sign", [1, -1])
def test_rotations_go_the_shorter_way_whatever_the_sign(sign: int) -> None:
    end = make_pose(2, 90)
    end[3:] *= sign
    middle = SPACE.mix(make_pose(0, 10), end, 0.25)
    assert degrees_of(middle) == pytest.approx(30)
    assert middle[0] == pytest.approx(0.5)
    assert np.linalg.norm(middle[3:]) == pytest.approx(1)


def test_a_chunk_is_normalised_and_its_signs_continue() -> None:
    actions = np.stack([make_pose(0, 0), make_pose(1, 10), make_pose(2, 20)])
    spoiled = actions.copy()
    spoiled[1, 3:] *= -1.2
    spoiled[2, 3:] *= 0.9
    prepared = SPACE.prepare(ActionChunk(0, 1, spoiled))
    np.testing.assert_allclose(prepared.actions, actions, atol=1e-15)


def test_quaternion_without_direction_is_refused() -> None:
    actions = np.stack([make_pose(0, 0), np.zeros(7)])
    with pytest.raises(InputError, match=r"action 1 has the quaternion .* of length 0"):
        SPACE.prepare(ActionChunk(0, 1, actions))
