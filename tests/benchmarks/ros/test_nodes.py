"""The benchmarks of the ROS nodes, short."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from benchmarks import common
from benchmarks.ros import fleet, overhead
from benchmarks.ros.overhead import PARTS, _split, table
from benchmarks.ros.rig import Robot
from para_policy.checkpoints.observations import save_observations
from tests.checkpoint import save_tiny_checkpoint


@pytest.mark.slow
def test_overhead_of_a_few_chunks(
    domain_id: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--chunks", "5", "--domain-id", str(domain_id), "--json", str(tmp_path / "o.json")]
    # No machine brings a message there and back in a microsecond.
    assert overhead.main([*arguments, "--limit-ms", "0.001"]) == 1
    assert "limit broken: p99 of the overhead is" in capsys.readouterr().err
    document = json.loads((tmp_path / "o.json").read_text())
    assert document["chunks"] == 5
    assert 0 < document["sampler_ms"]["p50"] < document["total_ms"]["p50"]


def test_a_robot_with_a_timer_that_is_always_due_hears_the_nodes(domain_id: int) -> None:
    with Robot(domain_id, lambda: None) as robot:
        publisher = robot.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        robot.wait(publisher.get_subscription_count)
        robot.node.create_timer(0.001, lambda: time.sleep(0.002))
        robot.listen(0.1)
        publisher.publish(DiagnosticArray(status=[DiagnosticStatus(name="node")]))
        robot.listen(1.0)
        assert len(robot.heartbeats["node"]) == 1


def test_parts_add_up_to_the_overhead() -> None:
    random = np.random.default_rng(0)
    times = np.cumsum(random.integers(1, 10**7, (20, 7)), axis=1)
    sampler, parts = _split(times)
    assert set(parts) == set(PARTS)
    np.testing.assert_allclose(sampler, (times[:, 4] - times[:, 3]) / 1e6)
    np.testing.assert_allclose(sampler + sum(parts.values()), (times[:, 6] - times[:, 0]) / 1e6)
    some: dict[str, Any] = {f"p{q}": 1.0 for q in (50, 95, 99, 100)}
    document = {"total_ms": some, "sampler_ms": some, "overhead_ms": some}
    assert len(table({**document, "parts_ms": dict.fromkeys(PARTS, some)}).splitlines()) == 10


def test_batches_and_single_robots_take_the_same_rounds(tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny", train_timesteps=10)
    random = np.random.default_rng(0)
    widths = {"environment_state": 16, "agent_pos": 2}
    save_observations(
        checkpoint, {name: random.uniform(0, 512, (6, 2, size)) for name, size in widths.items()}
    )
    options = fleet.Options(
        json=tmp_path / "out.json", checkpoint=checkpoint, robots=(1, 3), turns=2, sampler="x0"
    )
    document = json.loads(json.dumps(fleet.measure(options)))
    common.plots.save(fleet.figure, document, tmp_path / "out.png")
    for robots in (1, 3):
        batched, single = (result for result in document["results"] if result["robots"] == robots)
        assert batched["rounds_mean"] == pytest.approx(single["rounds_mean"], abs=0.5)
        assert batched["latency_ms_p50"] <= batched["latency_ms_max"]
    assert len(fleet.rows(document)) == 4
