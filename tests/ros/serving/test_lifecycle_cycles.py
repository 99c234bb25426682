"""A node that is configured and cleaned up again and again stays as small as it was."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

from rclpy.lifecycle import TransitionCallbackReturn

from para_policy.ros.policy_node import PolicyNode
from tests.inference.test_growth import resident_bytes
from tests.ros.graph import Graph
from tests.ros.policy_rig import DT_NS, T0, Rig

CYCLES = 100
SETTLED = 20
"""Cycles after which caches and the allocator have what they want."""
GROWTH_BYTES = 8 * 2**20


def entities(rig: Rig) -> dict[str, int]:
    node = rig.node
    return {
        "publishers": len(list(node.publishers)),
        "subscriptions": len(list(node.subscriptions)),
        "services": len(list(node.services)),
        "timers": len(list(node.timers)),
        "managed": len(node._managed_entities),
        "python threads": threading.active_count(),
    }


def count_threads() -> int:
    """Those of DDS and torch, too."""
    return len(os.listdir("/proc/self/task"))


def go(rig: Rig, *transitions: str) -> None:
    for transition in transitions:
        outcome = getattr(rig.node, f"trigger_{transition}")()
        assert outcome == TransitionCallbackReturn.SUCCESS, transition


def test_hundred_cycles_leave_nothing_behind(graph: Graph, checkpoint: Path) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint), torch_threads=1)
    unconfigured = entities(rig)
    rig.start()
    configured = entities(rig)
    settled, threads = 0, 0
    for cycle in range(CYCLES):
        if cycle % 10 == 0:  # discovery takes too long to plan in all of them
            rig.graph.wait(lambda: rig.joints.get_subscription_count() == 1)
            rig.graph.wait(lambda: rig.keypoints.get_subscription_count() == 1)
            rig.graph.wait(lambda: graph.probe.count_publishers("policy_node/action_chunk") == 1)
            rig.plan(T0 + cycle * DT_NS)
            known = len(rig.chunks)
            go(rig, "deactivate")
            rig.observe(T0 + (cycle + 1) * DT_NS)
            graph.spin_for(0.1)
            assert len(rig.chunks) == known
        else:
            go(rig, "deactivate")
        go(rig, "cleanup")
        assert entities(rig) == unconfigured
        go(rig, "configure", "activate")
        assert entities(rig) == configured
        if cycle == SETTLED:
            settled, threads = resident_bytes(), count_threads()
    assert count_threads() <= threads
    assert resident_bytes() - settled < GROWTH_BYTES


def test_a_destroyed_node_leaves_the_graph_without_the_garbage_collector(
    graph: Graph, domain_id: int
) -> None:
    """What stays is a participant with its threads; Fast DDS connects only the first 32 on LOCALHOST."""
    names = graph.probe.get_node_names
    gc.disable()
    try:
        other = Graph(domain_id)
        other.add(PolicyNode)
        graph.wait(lambda: "policy_node" in names())
        other.close()
        graph.wait(lambda: "policy_node" not in names(), limit_s=10.0)
    finally:
        gc.enable()
