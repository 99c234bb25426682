"""The whole examination, and its parts that need no graph."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from para_policy.cli.doctor import Doctor
from para_policy.errors import InputError
from para_policy.extras import require_ros
from para_policy.ros.doctor import device, environment, examine, parameters_file, policy
from para_policy.ros.doctor.case import Case, Request
from para_policy.ros.doctor.report import Finding, Level, Report, fail, ok
from para_policy.ros.parameters.policy import PARAMETERS
from para_policy.terminal import run
from tests.ros.graph import CONFIG

INPUTS = CONFIG / "pusht_inputs.yaml"


@pytest.fixture(autouse=True)
def _alone_and_quick(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))
    monkeypatch.setattr(policy, "_SOLVES", 1)


def case_of(**values: Any) -> Case:
    """Eager: to compile a network takes seconds, and few findings depend on its engine."""
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    quick = {"inputs_file": str(INPUTS), "engine": "eager"}
    return Case(Request(), {**defaults, **quick, **values})


def judged(seconds: float, checkpoint: Path, **values: Any) -> list[Level]:
    """Of a policy whose chunks last 0.8 s."""
    loaded = policy.load({**case_of(**values).values, "checkpoint": str(checkpoint)})
    settings = policy.make_settings(loaded, {**case_of(**values).values, "control_rate_hz": 10.0})
    on_arrival = values.get("stamp_mode") == "zero"
    found = policy.judge([seconds], settings, loaded.policy, on_arrival)
    return [finding.level for finding in found]


def test_an_error_in_one_check_is_a_finding_and_hides_no_other() -> None:
    def break_down() -> Iterator[Finding]:
        yield ok("first", "fine")
        raise KeyError("oops")

    def refuse() -> Iterator[Finding]:
        raise InputError("rate is -1; expected more")
        yield

    report = Report()
    report.run("one", break_down)
    report.run("two", refuse)
    report.run("three", lambda: [fail("x", "bad", "mend it")])
    assert [finding.level.value for finding in report.findings] == ["OK", "FAIL", "FAIL", "FAIL"]
    assert "KeyError: 'oops'" in report.findings[1].found
    assert report.findings[2].found == "rate is -1; expected more"
    assert report.failed
    assert report.document()["counts"] == {"OK": 1, "WARN": 0, "FAIL": 3, "SKIPPED": 0}


def test_latency_against_the_time_that_a_chunk_lasts(checkpoint: Path) -> None:
    assert judged(0.1, checkpoint) == [Level.OK]
    assert judged(0.5, checkpoint) == [Level.WARN]
    assert judged(0.9, checkpoint) == [Level.FAIL]
    assert judged(0.1, checkpoint, n_action_steps=1) == [Level.WARN]


@pytest.mark.parametrize(
    ("seconds", "values", "levels"),
    [
        # The robot goes on with all actions of a chunk, however early the next one is wanted.
        (0.3, {"replan_steps": 2}, [Level.OK, Level.WARN]),
        (0.3, {"replan_steps": 4}, [Level.OK]),
        (0.3, {"real_time_chunking": "hard", "replan_steps": 4}, [Level.OK]),
        (0.5, {"warm_start": False}, [Level.FAIL]),
        (0.5, {"stamp_mode": "zero"}, [Level.OK]),
        (0.9, {"stamp_mode": "zero"}, [Level.FAIL]),
        (0.3, {"added_latency_ms": 200.0}, [Level.WARN]),
        (0.3, {"latency_offset_s": -0.3}, [Level.WARN]),  # its last action begins 0.3 s earlier
        (0.5, {"deadline_ms": 300.0}, [Level.OK, Level.WARN]),  # cut short, and in time
        (0.5, {"deadline_ms": 300.0, "sampler": "sequential"}, [Level.WARN, Level.FAIL]),
        (0.9, {"lockstep": True, "deadline_ms": 300.0}, [Level.OK]),
    ],
)
def test_latency_as_the_loop_meets_it(
    seconds: float, values: dict[str, Any], levels: list[Level], checkpoint: Path
) -> None:
    assert judged(seconds, checkpoint, **values) == levels


def test_latency_is_that_of_all_robots_at_once(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(checkpoint=str(checkpoint), robots=["left", "right"])
    loaded = policy.load(case.values)
    seeds, sample = [], loaded.policy.sample

    def counted(observation: Any, *, seed: Any, **options: Any) -> Any:
        seeds.append(seed)
        return sample(observation, seed=seed, **options)

    monkeypatch.setattr(loaded.policy, "sample", counted)
    policy.measure(loaded.policy, policy.make_settings(loaded, case.values), case)
    assert seeds == [[0, 1], [2, 3]]


def test_latency_against_the_deadline(checkpoint: Path) -> None:
    assert judged(0.1, checkpoint, deadline_ms=200.0) == [Level.OK, Level.OK]
    assert judged(0.1, checkpoint, deadline_ms=50.0) == [Level.OK, Level.WARN]
    late = judged(0.1, checkpoint, deadline_ms=50.0, sampler="sequential")
    assert late == [Level.OK, Level.FAIL]


def test_policy_that_works(checkpoint: Path) -> None:
    values = {"control_rate_hz": 0.5, "sampler": "chord", "engine": "auto"}
    case = case_of(checkpoint=str(checkpoint), **values)
    findings = [*policy.check_inputs(case), *policy.check(case)]
    assert {finding.level for finding in findings} == {Level.OK}
    assert "calibrated for ddpm with 10 steps" in " ".join(finding.found for finding in findings)


def test_soft_chunking_of_coordinates_that_nobody_told(checkpoint: Path) -> None:
    values = {"control_rate_hz": 0.5, "real_time_chunking": "soft", "coordinates": ["number 0"]}
    case = case_of(checkpoint=str(checkpoint), **values)
    findings = [*policy.check_inputs(case), *policy.check(case)]
    (finding,) = [finding for finding in findings if finding.subject == "coordinates"]
    assert finding.level == Level.WARN
    assert finding.found.startswith("coordinates 1 of the action are chunked as with")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"checkpoint": "/nowhere"}, "no checkpoint at '/nowhere'"),
        ({"sampler": "chord", "steps": 7}, "needs a calibration for ddpm with 7 steps"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"n_action_steps": 99}, "n_action_steps is 99"),
        ({"replan_steps": 9}, "replan_steps is 9; a chunk has 8 actions"),
        ({"replan_steps": 5, "n_action_steps": 4}, "replan_steps is 5; a chunk has 4 actions"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"joint_names": ["x"]}, "joint_names are ['x']"),
        ({"coordinates": ["angle 7"]}, "'angle 7' name coordinate 7"),
        ({"joint_names": ["x", "x"]}, "joint_names have x more than once"),
        ({"stamp_mode": "now"}, "stamp_mode is 'now'"),
    ],
)
def test_policy_that_cannot_run(checkpoint: Path, values: dict[str, Any], words: str) -> None:
    case = case_of(**{"checkpoint": str(checkpoint), "control_rate_hz": 0.5, **values})
    report = Report()
    report.run("inputs", lambda: policy.check_inputs(case))
    report.run("policy", lambda: policy.check(case))
    failures = [finding.found for finding in report.findings if finding.level == Level.FAIL]
    assert len(failures) == 1
    assert words in failures[0]


def test_engine_is_named(checkpoint: Path) -> None:
    found = {finding.subject: finding for finding in device.check(case_of(engine="eager"))}
    assert (found["engine"].level, found["engine"].found) == (Level.OK, "eager")
    found = {f.subject: f for f in device.check(case_of(engine="cuda-graph"))}
    assert found["engine"].level == Level.FAIL
    assert "cannot be used on cpu" in found["engine"].found
    (network,) = [
        finding
        for finding in policy.check(
            case_of(checkpoint=str(checkpoint), control_rate_hz=0.5, engine="eager")
        )
        if finding.subject == "network"
    ]
    assert network.found == "engine eager"


def test_engine_that_passes_over_a_faster_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    (engine,) = [f for f in device.check(case_of(engine="auto")) if f.subject == "engine"]
    assert engine.level == Level.WARN
    assert "auto: eager" in engine.found
    assert "openvino" in engine.advice


def test_inputs_file_that_does_not_fit_leaves_the_policy_examined(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text("inputs: {agent_pos: {topic: x, type: std_msgs/msg/Float64MultiArray}}")
    values = {"checkpoint": str(checkpoint), "control_rate_hz": 0.5, "inputs_file": str(path)}
    case = case_of(**values)
    (finding,) = policy.check_inputs(case)
    assert finding.level == Level.FAIL
    assert "the policy needs ['agent_pos', 'environment_state']" in finding.found
    assert {finding.level for finding in policy.check(case)} == {Level.OK}


def test_inputs_that_can_never_fit_fail_with_both_numbers(checkpoint: Path, tmp_path: Path) -> None:
    inputs = yaml.safe_load(INPUTS.read_text())
    inputs["inputs"]["agent_pos"]["joints"] = ["agent_x", "agent_y", "agent_z"]
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump(inputs))
    case = case_of(checkpoint=str(checkpoint), inputs_file=str(path))
    (finding,) = policy.check_inputs(case)
    assert finding.level == Level.FAIL
    assert "of shape (2,) with 3 values (position of 3 joints); expected 2" in finding.found


@pytest.mark.parametrize("topic", ["joint states", "~/", "a//b", "1a", "{unit}/a"])
def test_a_topic_that_can_be_none_is_named_with_its_input(
    checkpoint: Path, tmp_path: Path, topic: str
) -> None:
    inputs = yaml.safe_load(INPUTS.read_text())
    inputs["inputs"]["agent_pos"]["topic"] = topic
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump(inputs))
    (finding,) = policy.check_inputs(case_of(checkpoint=str(checkpoint), inputs_file=str(path)))
    assert finding.level == Level.FAIL
    assert "inputs.agent_pos.topic: Value error, no topic: " in finding.found
    assert finding.found.endswith(f", got '{topic}'")


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    kept = tuple(section for section in examine.SECTIONS if section.name not in names)
    monkeypatch.setattr(examine, "SECTIONS", kept)


def test_command(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without(monkeypatch, "DDS", "running graph")
    output = tmp_path / "report.json"
    good = Doctor(checkpoint=str(checkpoint), inputs_file=INPUTS, control_rate_hz=0.5, json=output)
    assert run(good) == 0
    assert "0 FAIL" in capsys.readouterr().out
    assert not json.loads(output.read_text())["failed"]
    with pytest.raises(SystemExit) as ended:
        replace(good, checkpoint="/nowhere")()
    assert ended.value.code == 1
    assert "no checkpoint at" in capsys.readouterr().out
    assert json.loads(output.read_text())["failed"]
    assert run(Doctor(seconds=0.5)) == 2
    assert "--seconds is 0.5" in capsys.readouterr().err


def test_without_ros_the_rest_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "import_problem", lambda: "No module named 'rclpy'")
    report = examine.examine(Request())
    levels = {name: [f.level for f in found] for name, found in report.sections.items()}
    assert levels["environment"][0] == Level.FAIL
    assert Level.OK in levels["device"]
    assert levels["running graph"] == [Level.SKIPPED]


def test_require_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    require_ros()
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(InputError, match=r"ROS 2 is not available .* source its setup\.bash"):
        require_ros()


def test_examined_environment_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(os.environ)
    path = tmp_path / "p.yaml"
    path.write_text("/**:\n  ros__parameters: {seed: 1}\n")
    case = Case(Request(params_file=path))
    list(parameters_file.check(case))
    assert dict(os.environ) == before
