"""How ROS is set up, and whether messages travel between processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from para_policy.ros.doctor import dds, environment
from para_policy.ros.doctor.case import Case, Request
from para_policy.ros.doctor.report import Level


@pytest.fixture(autouse=True)
def _domain(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))


@pytest.mark.parametrize(
    ("name", "value", "subject", "level"),
    [
        ("ROS_DOMAIN_ID", "233", "ROS_DOMAIN_ID", Level.FAIL),
        ("ROS_DOMAIN_ID", "robot", "ROS_DOMAIN_ID", Level.FAIL),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF", "discovery", Level.FAIL),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCAL", "discovery", Level.WARN),
        ("ROS_LOCALHOST_ONLY", "1", "discovery", Level.WARN),
        ("AMENT_PREFIX_PATH", "/nowhere", "package para_policy", Level.WARN),
        ("RMW_IMPLEMENTATION", "rmw_nobody_cpp", "rclpy", Level.FAIL),
    ],
)
def test_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, subject: str, level: Level
) -> None:
    monkeypatch.setenv(name, value)
    environment.import_problem.cache_clear()
    try:
        findings = list(environment.check(Case(Request())))
    finally:
        environment.import_problem.cache_clear()
    assert level in [finding.level for finding in findings if finding.subject == subject]


def test_nodes_that_run_with_a_python_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "para_policy").touch()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"['torch']\"\n")
    python.chmod(0o755)
    node = tmp_path / "lib/para_policy/policy_node"
    node.parent.mkdir(parents=True)
    node.write_text(f"#!{python}\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    by_subject = {finding.subject: finding for finding in environment.check(Case(Request()))}
    assert by_subject["package para_policy"].level == Level.OK
    finding = by_subject["Python of the nodes"]
    assert finding.level == Level.FAIL
    assert "has no 'torch'" in finding.found


def test_messages_travel_between_processes() -> None:
    findings = {finding.subject: finding for finding in dds.check(Case(Request()))}
    assert findings["two processes"].level == Level.OK
    assert {"images, reliable", "images, best effort"} <= set(findings)


def test_processes_that_do_not_find_each_other(
    domain_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dds, "_LIMIT_S", 1.0)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    (finding,) = dds.check(Case(Request()))
    assert finding.level == Level.FAIL
