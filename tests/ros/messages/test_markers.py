from __future__ import annotations

import numpy as np
import pytest
from visualization_msgs.msg import Marker, MarkerArray

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk
from para_policy.ros.messages.conversions import stamp_to_ns
from para_policy.ros.messages.markers import check_axes, chunk_markers
from tests.ros.graph import Graph

STAMP = 1_700_000_000_123_456_789
ACTIONS = np.arange(20.0).reshape(5, 4)


def chunk(actions: np.ndarray = ACTIONS) -> ActionChunk:
    return ActionChunk(STAMP, 100_000_000, actions)


def positions(marker: Marker) -> list[tuple[float, float, float]]:
    return [(point.x, point.y, point.z) for point in marker.points]


def test_markers_follow_the_actions() -> None:
    line, spheres = chunk_markers(chunk(), [0, 1], 0.5, "map", "/left/policy_node").markers
    assert (line.type, spheres.type) == (Marker.LINE_STRIP, Marker.SPHERE_LIST)
    assert line.action == spheres.action == Marker.ADD
    assert line.id != spheres.id
    for marker in (line, spheres):
        assert positions(marker) == [(x, x + 0.5, 0.0) for x in (0.0, 2.0, 4.0, 6.0, 8.0)]
        assert (marker.header.frame_id, marker.ns) == ("map", "/left/policy_node")
        assert stamp_to_ns(marker.header.stamp) == STAMP
        assert stamp_to_ns(marker.lifetime) == 500_000_000
        assert marker.pose.orientation.w == 1.0
        assert min(marker.scale.x, marker.scale.y, marker.scale.z) > 0


def test_three_axes_in_any_order() -> None:
    line = chunk_markers(chunk(), (3, 0, 2), 1.0, "map", "").markers[0]
    assert positions(line)[1] == (7.0, 4.0, 6.0)


def test_colours_go_from_now_to_later() -> None:
    colors = chunk_markers(chunk(), (0, 1), 1.0, "map", "").markers[1].colors
    assert len(colors) == len(ACTIONS)
    assert all(color.a == 1.0 for color in colors)
    reds, blues = [c.r for c in colors], [c.b for c in colors]
    assert reds == sorted(reds, reverse=True)
    assert blues == sorted(blues)
    assert (reds[0], blues[-1]) == (1.0, 0.9)


def test_one_action_is_a_sphere_and_no_line() -> None:
    line, sphere = chunk_markers(chunk(ACTIONS[:1]), (0, 1), 1.0, "map", "").markers
    assert line.action == Marker.DELETE
    assert positions(sphere) == [(0.0, 1.0, 0.0)]


@pytest.mark.parametrize("axes", [(0, 4), (-1, 0), (0,), (), (0, 1, 2, 3)])
def test_axes_that_do_not_exist_are_refused(axes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected two or three numbers from 0 to 3"):
        chunk_markers(chunk(), axes, 1.0, "map", "")
    with pytest.raises(InputError):
        check_axes(axes, 4)


def test_markers_are_messages_that_dds_carries(graph: Graph) -> None:
    received = graph.listen(MarkerArray, "markers")
    publisher = graph.talk(MarkerArray, "markers")
    sent = chunk_markers(chunk(), (0, 1, 2), 0.1, "base_link", "policy_node")
    publisher.publish(sent)
    graph.wait(lambda: received)
    for before, after in zip(sent.markers, received[0].markers, strict=True):
        after.color, after.colors = before.color, before.colors  # those lose digits on their way
        assert after == before
