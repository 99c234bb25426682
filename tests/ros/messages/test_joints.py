"""Joints that several broadcasters tell: who is late, and who has only just begun again."""

from __future__ import annotations

import pytest
from sensor_msgs.msg import JointState

from para_policy.errors import InputError
from para_policy.ros.messages.joints import NewestJoints

MS = 1_000_000
LIMIT_MS = 200


@pytest.fixture
def joints() -> NewestJoints:
    return NewestJoints(["left", "right"], LIMIT_MS * MS)


def tell(joints: NewestJoints, at_ms: int, *names: str) -> list[float] | None:
    """What is known after a message at a time, whose values are that time."""
    message = JointState(name=list(names), position=[float(at_ms)] * len(names))
    found = joints.take(message, at_ms * MS)
    return None if found is None else found[1].tolist()


def play(joints: NewestJoints, begin_ms: int, count: int = 20) -> int:
    """Both speak every 20 ms, the right one 5 ms after the left; the time of the last message."""
    for k in range(count):
        tell(joints, begin_ms + 20 * k, "left")
        tell(joints, begin_ms + 20 * k + 5, "right")
    return begin_ms + 20 * (count - 1) + 5


def test_after_a_pause_of_all_the_others_are_waited_for(joints: NewestJoints) -> None:
    resumed = play(joints, 0) + 2000
    assert tell(joints, resumed, "left") is None
    assert joints.waiting
    assert "joint right are 2.000 s older" in joints.passed_over
    assert tell(joints, resumed + 5, "right") == [resumed, resumed + 5]
    assert joints.passed_over == ""


def test_one_that_does_not_come_back_is_told_once_it_is_overdue(joints: NewestJoints) -> None:
    resumed = play(joints, 0) + 2000
    for late in range(0, LIMIT_MS + 1, 20):
        assert tell(joints, resumed + late, "left") is None
    with pytest.raises(InputError, match=r"joint right are 2\.220 s older"):
        tell(joints, resumed + 220, "left")
    assert not joints.waiting
    assert tell(joints, resumed + 230, "right") == [resumed + 220, resumed + 230]


def test_one_that_falls_silent_alone_is_told_at_once(joints: NewestJoints) -> None:
    last = play(joints, 0)
    for k in range(1, 11):
        assert tell(joints, last + 20 * k - 5, "left") == [last + 20 * k - 5, last]
    with pytest.raises(InputError, match=r"joint right are 0\.215 s older"):
        tell(joints, last + 215, "left")


def test_slow_topics_out_of_step_are_not_waited_for_again_and_again(joints: NewestJoints) -> None:
    tell(joints, 0, "left")
    with pytest.raises(InputError, match=r"joint left are 0\.250 s older"):
        tell(joints, 250, "right")
    for k in range(2, 6):
        with pytest.raises(InputError, match=r"0\.250 s older"):
            tell(joints, 250 * k, ("left", "right")[k % 2])


def test_at_the_start_the_others_are_waited_for(joints: NewestJoints) -> None:
    assert not joints.waiting
    assert tell(joints, 0, "left") is None
    assert (joints.waiting, joints.passed_over) == (True, "no message has named right yet")
    tell(joints, 300, "left")
    assert not joints.waiting
    joints.clear()
    assert not joints.waiting


def test_a_clock_that_steps_back_begins_anew(joints: NewestJoints) -> None:
    last = play(joints, 10_000)
    assert tell(joints, last - 5000, "left") is None
    assert (joints.waiting, joints.passed_over) == (True, "no message has named right yet")
