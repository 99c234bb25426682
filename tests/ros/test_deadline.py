"""Chunks on time: what a policy node does when its network is too slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import Trigger

from para_policy import DiffusionPolicy
from para_policy.ros.messages.diagnostics import status_values
from tests.ros.graph import Graph
from tests.ros.policy_rig import Rig


class SlowNetwork:
    """Makes every call of a policy's network take `seconds` longer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy: DiffusionPolicy) -> None:
        self.seconds = 0.0
        network = policy.runtime.network

        def slow(*arguments: Any) -> Any:
            time.sleep(self.seconds)
            return network(*arguments)

        monkeypatch.setattr(policy.runtime, "network", slow)


@pytest.fixture
def make(
    graph: Graph, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Rig, SlowNetwork]]:
    def make(**parameters: Any) -> tuple[Rig, SlowNetwork]:
        # observations come one by one here, when a test asks for a chunk: not a step apart
        apart = {"lockstep": False, "spacing_tolerance": 100.0}
        rig = Rig(graph, checkpoint=str(checkpoint), **apart, **parameters).start()
        return rig, SlowNetwork(monkeypatch, rig.node._parts.loaded.policy)

    return make


def test_a_solve_stops_at_the_last_round_that_fits(
    make: Callable[..., tuple[Rig, SlowNetwork]],
) -> None:
    rig, network = make(
        sampler="paradigms", sampler_options="{window: 3}", tolerance=1e-6, deadline_ms=1000.0
    )
    rig.plan_now()
    whole = rig.info()
    assert (whole["converged"], whole["status"]) == ("true", "converged")
    network.seconds = 0.25
    rig.node._begin_episodes()
    rig.plan_now()
    cut = rig.info()
    assert int(cut["rounds"]) < int(whole["rounds"])
    assert cut["converged"] == "false"
    assert "deadline" in cut["status"]
    assert rig.infos[-1].level == DiagnosticStatus.WARN
    assert float(cut["latency_ms"]) < 1000
    assert 0 < float(cut["margin_ms"]) < 1000
    assert (cut["deadline_misses"], cut["overruns_in_a_row"]) == ("0", "0")


def last_values(rig: Rig) -> dict[str, str]:
    return status_values(rig.diagnostics[-1].status[0]) if rig.diagnostics else {}


@pytest.mark.parametrize("way", ["probe", "reset", "deadline"])
def test_late_chunks_in_a_row_end_in_a_reported_hold(
    make: Callable[..., tuple[Rig, SlowNetwork]], way: str
) -> None:
    limits = {"deadline_ms": 500.0, "max_observation_age_s": 10.0}
    rig, network = make(**limits, max_overruns=2, control_rate_hz=50.0)
    network.seconds = 0.06  # ten calls one after the other cannot be cut short
    rig.plan_now()
    assert rig.info()["overruns_in_a_row"] == "1"
    assert float(rig.info()["margin_ms"]) < 0
    time.sleep(0.2)
    rig.observe(rig.now_ns())
    rig.wait_for_status(DiagnosticStatus.ERROR, "holding: 2 chunks in a row took longer")
    rig.observe(rig.now_ns())
    rig.graph.wait(lambda: last_values(rig).get("overruns_in_a_row") == "3")
    assert len(rig.chunks) == 1
    del rig.diagnostics[:]
    if way == "probe":
        network.seconds = 0.0
    elif way == "reset":
        rig.graph.call(Trigger, "policy_node/reset", Trigger.Request())
    else:
        assert rig.set(deadline_ms=5000.0) == ""
    rig.plan_now()
    rig.wait_for_status(DiagnosticStatus.OK, "active")
    assert rig.info()["overruns_in_a_row"] == ("1" if way == "reset" else "0")


def test_diagnostics_carry_numbers_of_the_last_chunks(
    make: Callable[..., tuple[Rig, SlowNetwork]],
) -> None:
    rig, _ = make(shift_noise=True, sampler="x0", control_rate_hz=50.0, max_observation_age_s=10.0)
    first = rig.now_ns()
    rig.plan(first)
    assert rig.info()["executed"] == "none"
    later = first + 8 * 20_000_000
    rig.graph.wait(lambda: rig.now_ns() >= later)  # nothing is planned before the chunk runs out
    rig.plan(later)
    assert rig.info()["executed"] == "8"
    rig.graph.wait(lambda: last_values(rig).get("chunks_counted") == "2")
    values = last_values(rig)
    latencies = [float(values[f"latency_p{p}_ms"]) for p in (50, 95, 99)]
    assert 0 < latencies[0] <= latencies[1] <= latencies[2]
    assert {"planning_rate_hz", "rounds_mean", "residual_max", "deadline_misses"} <= set(values)
    for name in ("agent_pos", "environment_state"):
        assert -500 < float(values[f"observation_age_ms/{name}"]) < 10_000
