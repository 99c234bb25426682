"""A policy node on a device that records: all is recorded when it is configured, and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from para_policy.ros.messages.diagnostics import status_values
from tests.inference.rounds import Device
from tests.ros.graph import Graph
from tests.ros.policy_rig import DT_NS, Rig


@pytest.mark.parametrize("sampler", ["sequential", "collocation"])
def test_nothing_is_recorded_once_the_node_is_configured(
    graph: Graph, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    device = Device.everywhere(monkeypatch)
    rig = Rig(
        graph,
        checkpoint=str(checkpoint),
        sampler=sampler,
        lockstep=False,
        warm_start=True,
        real_time_chunking="hard",
        replan_steps=2,
    )
    rig.start()
    recorded, replayed = device.recorded, device.replayed
    assert recorded > 0
    start = rig.now_ns()
    rig.plan(start)
    graph.wait(lambda: rig.now_ns() >= start + 2 * DT_NS)
    rig.plan(start + 2 * DT_NS)
    assert rig.info()["frozen"] != "none"
    assert device.recorded == recorded
    assert device.replayed > replayed

    def told() -> dict[str, str]:
        return status_values(rig.diagnostics[-1].status[0])

    graph.wait(lambda: rig.diagnostics and "recordings" in told())
    assert told()["recordings"] == "2"
    assert told()["chunks_not_recorded"] == "0"
