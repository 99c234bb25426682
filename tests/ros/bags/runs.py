"""Runs of a real policy node, recorded over DDS."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from std_srvs.srv import Trigger

from para_policy.ros.bags.recorder import Recorder
from para_policy.ros.bags.topics import RecordedNodes
from para_policy.ros.bags.writer import BagWriter, Storage
from para_policy.ros.messages.conversions import stamp_to_ns
from tests.ros.graph import Graph
from tests.ros.policy_rig import Rig

NODE = "/policy_node"
RATE_HZ = 20.0
DT_NS = round(1e9 / RATE_HZ)


class RecordedRun:
    """A policy node whose life is written into a bag, and hands to move it."""

    def __init__(
        self, graph: Graph, bag: Path, checkpoint: Path, storage: Storage = "mcap", **values: Any
    ) -> None:
        self.graph, self.path = graph, bag
        self.writer = BagWriter(bag, storage)
        self.recorder: Recorder = graph.add(lambda **o: Recorder(self.writer, RecordedNodes(), **o))
        parameters = {
            "sampler": "x0",
            "lockstep": False,
            "control_rate_hz": RATE_HZ,
            "max_observation_age_s": 60.0,
            # With more steps, a machine that falls behind plans some chunks early, that is more.
            "replan_steps": 1,
            **values,
        }
        self.rig = Rig(graph, checkpoint=str(checkpoint), **parameters).start()
        topics = [f"{NODE}/{name}" for name in ("settings", "chunk_info", "action_chunk")]
        self.wait_for(topics)
        graph.wait(lambda: self.writer.counts[f"{NODE}/settings"] == 1)
        self.wait_for([f"/{self.rig.joint_states.lstrip('/')}", "/keypoints"])
        self._steps = 0
        self._began_ns = self.rig.now_ns()

    def wait_for(self, topics: list[str]) -> None:
        """Until the recorder is connected to the publishers of `topics`."""
        self.graph.wait(lambda: set(topics) <= set(self.writer.counts))
        self.graph.wait(
            lambda: all(self._connected(topic) for topic in topics if "policy_node" not in topic)
        )

    def step(self, chunks: int) -> None:
        """So many chunks, each for an observation of its own, dt apart by their stamps.

        An observation waits for the chunk of the last one, however slow the machine is.
        """
        for _ in range(chunks):
            self._steps += 1
            stamp_ns = self._began_ns + self._steps * DT_NS
            self.rig.observe(stamp_ns, [100.0 + 3.0 * self._steps, 200.0 - 2.0 * self._steps])
            self.graph.spin_for(DT_NS / 1e9)
            self.graph.wait(partial(self._has_chunk_of, stamp_ns))

    def _has_chunk_of(self, stamp_ns: int) -> bool:
        chunks = self.rig.chunks
        return bool(chunks) and stamp_to_ns(chunks[-1].header.stamp) == stamp_ns

    def reset(self) -> None:
        assert self.graph.call(Trigger, "policy_node/reset", Trigger.Request()).success

    def finish(self) -> Path:
        """Close the bag once everything that was said is in it."""
        infos = lambda: self.writer.counts[f"{NODE}/chunk_info"]  # noqa: E731
        self.graph.wait(lambda: infos() >= len(self.rig.chunks))
        chunks = lambda: self.writer.counts[f"{NODE}/action_chunk"]  # noqa: E731
        self.graph.wait(lambda: chunks() >= len(self.rig.chunks))
        self.recorder.executor.remove_node(self.recorder)
        self.writer.close()
        return self.path

    def _connected(self, topic: str) -> bool:
        infos = self.graph.probe.get_subscriptions_info_by_topic(topic)
        return any(info.node_name == self.recorder.get_name() for info in infos)
