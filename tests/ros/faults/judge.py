"""Whether every command that a robot was sent may have been sent."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.messages.conversions import message_to_chunk, stamp_to_ns
from tests.ros.graph import Graph


class Judge:
    """Hears all chunks and all commands.

    Commands are poses: their header tells when the executor sent them, so that no delay between
    executor and judge counts. `check` demands of each command that it is finite and the action of
    a chunk that was due at that very time (so commands end with the last action), and of a
    chunk not older than the one before.

    Args:
        repeats: the executor repeats its last command while it holds.
    """

    def __init__(self, graph: Graph, *, repeats: bool = False) -> None:
        self.chunks: list[JointTrajectory] = graph.listen(
            JointTrajectory, "policy_node/action_chunk"
        )
        self.commands: list[PoseStamped] = graph.listen(PoseStamped, "chunk_executor/command")
        self._graph = graph
        self._repeats = repeats
        self._checked = 0
        self._newest_ns = 0
        self._sent_ns = 0
        self._may_go_back = False
        self._last: list[float] = []

    def times_ns(self) -> list[int]:
        """When the commands were sent, by the executor's clock."""
        return [stamp_to_ns(command.header.stamp) for command in self.commands]

    def time_may_go_back(self) -> None:
        """From a command that is sent earlier than the one before, chunks may be older, too."""
        self._may_go_back = True

    def forget_last(self) -> None:
        """Check what has come so far; what follows may not be a repetition of it."""
        self.check()
        self._last = []

    def wait_until_it_hears(self) -> None:
        """Leave out the commands from a new policy's first chunks: who hears it when is chance."""
        known = len(self.chunks)
        self._graph.wait(lambda: len(self.chunks) > known + 1)
        self._checked = len(self.commands)

    def check(self) -> None:
        chunks = [message_to_chunk(message, 0) for message in self.chunks]
        new = self.commands[self._checked :]
        self._checked += len(new)
        for command in new:
            position = command.pose.position
            values = [position.x, position.y, position.z]
            assert np.isfinite(values).all(), f"command {values}"
            self._check_due(chunks, values, stamp_to_ns(command.header.stamp))
            self._last = values

    def _check_due(self, chunks: list[ActionChunk], values: list[float], sent_ns: int) -> None:
        if self._may_go_back and sent_ns < self._sent_ns:
            self._newest_ns = 0
        self._sent_ns = sent_ns
        stamps = [chunk.stamp_ns for chunk in chunks if is_due(chunk, values, sent_ns)]
        if self._repeats and not stamps and values == self._last:
            return
        assert stamps, f"command {values} at {sent_ns} is no action that is due"
        assert max(stamps) >= self._newest_ns, f"command {values} is of an older chunk"
        self._newest_ns = max(stamps)


def is_due(chunk: ActionChunk, values: Any, time_ns: int) -> bool:
    """Whether `values` are the action of `chunk` at that time."""
    index = (time_ns - chunk.stamp_ns) // chunk.dt_ns
    return 0 <= index < len(chunk.actions) and bool(np.array_equal(chunk.actions[index], values))
