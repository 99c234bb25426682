"""Parameter files with one mistake each."""

from __future__ import annotations

from pathlib import Path

import pytest

from para_policy.errors import InputError
from para_policy.ros.doctor import parameters_file
from para_policy.ros.doctor.case import Case, Request
from para_policy.ros.doctor.report import Finding, Level
from tests.ros.graph import CONFIG

POLICY = "/**/policy_node:\n  ros__parameters:\n"
EXECUTOR = "/**/chunk_executor:\n  ros__parameters:\n"
GUARDED = EXECUTOR + (
    "    position_min: [-1.0]\n    position_max: [1.0]\n    velocity_max: [1.0]\n"
    "    acceleration_max: [1.0]\n    max_jump: [1.0]\n    state_joints: [pan, tilt]\n"
)


def examine(tmp_path: Path, text: str, **request: str) -> tuple[list[Finding], Case]:
    """What is found beside OK."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    case = Case(Request(params_file=path, **request))
    return [f for f in parameters_file.check(case) if f.level != Level.OK], case


def test_a_good_file_gives_its_values(tmp_path: Path) -> None:
    text = POLICY + "    device: cuda\n    deadline_ms: 50.0\n" + GUARDED
    findings, case = examine(tmp_path, text, checkpoint="there")
    assert findings == []
    given = {name: case.values[name] for name in ("device", "deadline_ms", "checkpoint", "steps")}
    assert given == {"device": "cuda", "deadline_ms": 50.0, "checkpoint": "there", "steps": 0}


@pytest.mark.parametrize(
    ("policy", "found", "advice"),
    [
        ("smapler: chord", "smapler is no parameter", "did you mean sampler?"),
        ("deadline_ms: 50", "deadline_ms is 50, a whole number", "write deadline_ms: 50.0"),
        ("control_rate_hz: 5000.0", "5000.0, out of range", "expected 0 to 1000"),
        ("steps: -1", "steps is -1, out of range", "expected 0 to 10000"),
        ("sampler: 3", "sampler is 3, a whole number; expected text", 'write sampler: "3"'),
        ("nested: {deadline_ms: 5.0}", "nested.deadline_ms is no parameter", ""),
    ],
)
def test_a_mistake_in_policy_node(tmp_path: Path, policy: str, found: str, advice: str) -> None:
    (finding,), case = examine(tmp_path, f"{POLICY}    {policy}\n    seed: 3\n{GUARDED}")
    assert (finding.level, finding.subject) == (Level.FAIL, "policy_node")
    assert found in finding.found
    assert advice in finding.advice
    assert case.values["seed"] == 3  # what is right still counts
    assert (case.values["deadline_ms"], case.values["sampler"]) == (0.0, "x0")


@pytest.mark.parametrize(
    ("executor", "found"),
    [
        ("output: twist", "output is 'twist'"),
        ("over_budget: last", "max_chunk_age_s is 0"),
        ("command_rate_hz: 0.0", "command_rate_hz is 0.0, out of range"),
        ("blend: linear", "blend is no parameter"),
        ("coordinates: [angle 2]", "'angle 2' name coordinate 2; there are 2"),
        (
            "velocity_max: 1.0",
            "velocity_max is 1.0, a number with a decimal point; expected a list",
        ),
    ],
)
def test_a_mistake_in_chunk_executor(tmp_path: Path, executor: str, found: str) -> None:
    text = f"{POLICY}    seed: 1\n{GUARDED}".replace("    velocity_max: [1.0]\n", "")
    findings, _ = examine(tmp_path, f"{text}    {executor}\n")
    finding = next(finding for finding in findings if finding.level == Level.FAIL)
    assert finding.subject == "chunk_executor"
    assert found in finding.found


def test_limits_that_are_not_set(tmp_path: Path) -> None:
    text = GUARDED.replace("    velocity_max: [1.0]\n", "")
    (finding,), _ = examine(tmp_path, f"{POLICY}    seed: 1\n{text}")
    assert (finding.level, finding.subject) == (Level.WARN, "guards")
    assert finding.found.startswith("not set: velocity_max;")


def test_coordinates_that_nobody_told(tmp_path: Path) -> None:
    text = f"{POLICY}    seed: 1\n{GUARDED}    interpolation: linear\n"
    (finding,), _ = examine(tmp_path, text)
    assert (finding.level, finding.subject) == (Level.WARN, "coordinates")
    assert finding.found.startswith("coordinates 0, 1 of the action are played without")
    assert examine(tmp_path, text + "    coordinates: [number 0-1]\n")[0] == []


def test_an_offset_that_only_one_node_knows(tmp_path: Path) -> None:
    text = f"{POLICY}    seed: 1\n{GUARDED}    latency_offset_s: -0.04\n"
    (finding,), _ = examine(tmp_path, text)
    assert (finding.level, finding.subject) == (Level.WARN, "latency offset")
    assert finding.found.startswith(
        "latency_offset_s is 0 of policy_node and -0.04 of chunk_executor"
    )
    both = text.replace("    seed: 1\n", "    latency_offset_s: -0.04\n")
    assert examine(tmp_path, both)[0] == []


@pytest.mark.parametrize(
    ("subject", "of_policy", "of_executor", "said"),
    [
        ("time", "use_sim_time: true", "", "use_sim_time is True of policy_node and False of"),
        (
            "joint names",
            "joint_names: [a, b]",
            "joint_names: [b, a]",
            "chunks are for ['a', 'b'], and joint_names of chunk_executor are ['b', 'a']",
        ),
    ],
)
def test_what_both_nodes_must_have_alike(
    tmp_path: Path, subject: str, of_policy: str, of_executor: str, said: str
) -> None:
    text = f"{POLICY}    seed: 1\n    {of_policy}\n{GUARDED}"
    (finding,), _ = examine(tmp_path, f"{text}    {of_executor}\n")
    assert (finding.level, finding.subject) == (Level.FAIL, subject)
    assert finding.found.startswith(said)
    assert examine(tmp_path, f"{text}    {of_policy}\n")[0] == []


@pytest.mark.parametrize(
    ("name", "level", "advice"),
    [
        ("/**/polcy_node", Level.FAIL, "did you mean policy_node?"),
        ("/left/policy_node", Level.WARN, "--namespace"),
        ("/**/camera_driver", None, ""),
    ],
)
def test_sections_that_nobody_reads(
    tmp_path: Path, name: str, level: Level | None, advice: str
) -> None:
    text = f"{POLICY}    seed: 1\n{GUARDED}{name}:\n  ros__parameters: {{seed: 3}}\n"
    findings, _ = examine(tmp_path, text)
    assert [(f.level, f.subject) for f in findings] == ([(level, "sections")] if level else [])
    assert all(advice in finding.advice for finding in findings)


def test_file_without_a_section_for_a_node(tmp_path: Path) -> None:
    (finding,), _ = examine(tmp_path, GUARDED)
    assert finding.level == Level.WARN
    assert "nothing in the file is for /policy_node" in finding.found


def test_namespaces_are_read_as_ros_reads_them(tmp_path: Path) -> None:
    text = f"left:\n  policy_node:\n    ros__parameters: {{seed: 5}}\n{GUARDED}"
    findings, case = examine(tmp_path, text, namespace="left")
    assert findings == []
    assert case.values["seed"] == 5


@pytest.mark.parametrize(
    "text",
    [
        "[",
        GUARDED + "    velocity_max: [.inf]\n",  # the last one would count
        "policy_node: {device: cpu, ros__parameters: {seed: 1}}\n",
        EXECUTOR + "    joint_names: [x, y]\n",  # a plain y means true
    ],
)
def test_file_that_ros_cannot_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"not valid YAML|ROS cannot read the parameter file"):
        examine(tmp_path, text)


def test_empty_and_missing_files(tmp_path: Path) -> None:
    (finding,), _ = examine(tmp_path, "")
    assert (finding.level, finding.subject) == (Level.FAIL, "parameter file")
    with pytest.raises(InputError, match="cannot read"):
        list(parameters_file.check(Case(Request(params_file=tmp_path / "none.yaml"))))


def test_package_share_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path / "prefix"
    index = prefix / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "para_policy").touch()
    (prefix / "share/para_policy").mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    findings, case = examine(tmp_path, (CONFIG / "policy.yaml").read_text())
    assert [finding.subject for finding in findings] == ["guards"]
    share = prefix / "share/para_policy"
    assert case.values["inputs_file"] == f"{share}/config/pusht_inputs.yaml"


def test_package_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    text = f"{POLICY}    inputs_file: $(find-pkg-share nowhere)/x\n    device: $(env D)\n{GUARDED}"
    first, second = examine(tmp_path, text)[0]
    assert "'nowhere' not found" in first.found
    assert "$(env D) is left to `ros2 launch`" in second.found
