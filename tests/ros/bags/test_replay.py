"""A recorded run of a real policy node comes out of its bag to the bit; a difference is named."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tyro
from geometry_msgs.msg import Pose, PoseArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from para_policy import load_policy
from para_policy.checkpoints.calibration import save_latency
from para_policy.cli.replay import Replay
from para_policy.errors import CheckpointError, DataError
from para_policy.policies.sampler_spec import SamplerSpec
from para_policy.ros.bags.reader import Bag
from para_policy.ros.bags.recorder import Recorder
from para_policy.ros.bags.records import read_run
from para_policy.ros.bags.replay_bag import replay_bag
from para_policy.ros.bags.topics import RecordedNodes
from para_policy.ros.bags.writer import BagWriter, Storage
from para_policy.ros.messages.conversions import stamp_to_ns
from para_policy.ros.messages.diagnostics import status_values
from para_policy.ros.policy_node import PolicyNode
from para_policy.samplers.deadline import LatencyTable
from para_policy.terminal import run as run_command
from tests.checkpoint import calibrate_tiny_checkpoint, save_tiny_checkpoint
from tests.ros.bags.rewriting import rewritten, unclosed, without
from tests.ros.bags.runs import NODE, RecordedRun
from tests.ros.graph import CONFIG, Graph


def the_run(report: dict[str, Any]) -> dict[str, Any]:
    (found,) = report["runs"]
    return dict(found)


def test_warm_starts_and_a_reset_are_replayed_to_the_bit(recorded: Path) -> None:
    report = replay_bag(recorded)
    found = the_run(report)
    assert report["equal"], found
    assert (found["chunks"], found["equal"], found["episodes"]) == (7, 7, 2)
    assert [chunk["chunk"] for chunk in found["per_chunk"]] == [0, 1, 2, 3, 4, 0, 1]
    assert all(chunk["difference"] == 0.0 for chunk in found["per_chunk"])


def test_inputs_that_were_remapped_are_recorded_and_replayed(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    elsewhere = {"joint_states": "/arm/driver/joints"}
    run = RecordedRun(graph, tmp_path / "bag", checkpoint, remapped=elsewhere)
    run.step(3)
    assert not run.recorder.absent()
    found = the_run(replay_bag(run.finish()))
    assert (found["chunks"], found["equal"]) == (3, 3), found["reasons"]


def test_a_bag_that_somebody_else_wrote_is_replayed_to_the_bit(
    recorded: Path, tmp_path: Path
) -> None:
    copy = rewritten(recorded, tmp_path / "copy", lambda topic, number, message: message)
    assert list(copy.glob("*.db3"))
    assert the_run(replay_bag(copy))["equal"] == 7


def test_solves_cut_short_by_a_deadline_are_replayed_to_the_bit(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    run = RecordedRun(
        graph,
        tmp_path / "bag",
        checkpoint,
        "sqlite3",
        tolerance=1e-6,
        deadline_ms=6.0,
        max_overruns=0,
    )
    run.step(5)
    found = the_run(replay_bag(run.finish()))
    infos = [status_values(info) for info in run.rig.infos]
    assert "false" in {info["converged"] for info in infos}
    assert {info["executed"] for info in infos} == {"none", *(i["executed"] for i in infos[1:])}
    assert found["equal"] == 5, found["reasons"]


def test_auto_with_a_tolerance_is_replayed_as_what_it_stood_for(
    graph: Graph, tmp_path: Path
) -> None:
    """`sequential` is the fastest here, and has no tolerance: the node could not be configured."""
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny", 20)
    calibrate_tiny_checkpoint(checkpoint, "ddim", 8)
    here = load_policy(checkpoint).runtime.table_key
    save_latency(checkpoint, here, LatencyTable((1, 128), (1e-3, 128e-3)))
    chosen: dict[str, Any] = {"sampler": "auto", "tolerance": 1e-3, "scheduler": "ddim", "steps": 8}
    run = RecordedRun(graph, tmp_path / "bag", checkpoint, **chosen)
    run.step(3)
    assert {status_values(info)["rounds"] for info in run.rig.infos} == {"8"}
    found = the_run(replay_bag(run.finish()))
    assert found["equal"] == 3, found["reasons"]
    assert found["reasons"] == {}


def test_the_engine_of_the_recording_is_used_again(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    run = RecordedRun(graph, tmp_path / "bag", checkpoint, engine="openvino")
    run.step(3)
    bag = run.finish()
    found = the_run(replay_bag(bag))
    assert (found["chunks"], found["equal"]) == (3, 3), found["reasons"]

    def elsewhere(topic: str, _: int, message: Any) -> Any:
        if topic.endswith("/settings"):
            content = json.loads(message.data)
            content["engine"] = {**content["engine"], "backend": "cuda-graph"}
            message.data = json.dumps(content)
        return message

    other = the_run(replay_bag(rewritten(bag, tmp_path / "copy", elsewhere)))
    assert other["replayed"] == 3


def test_frozen_actions_are_replayed_to_the_bit(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    run = RecordedRun(
        graph, tmp_path / "bag", checkpoint, real_time_chunking="soft", shift_noise=True,
        added_latency_ms=20.0,
    )  # fmt: skip
    run.step(4)
    found = the_run(replay_bag(run.finish()))
    frozen = [status_values(info)["frozen"] for info in run.rig.infos]
    assert frozen[0] == "none"
    assert any(int(count) > 0 for count in frozen[1:])
    assert found["equal"] == 4, found["reasons"]


def test_a_live_change_of_the_sampler_is_replayed_to_the_bit(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    run = RecordedRun(graph, tmp_path / "bag", checkpoint)
    run.step(2)
    assert run.rig.set(sampler="chord", n_action_steps=6) == ""
    run.step(3)
    assert run.writer.counts[f"{NODE}/settings"] == 2
    assert the_run(replay_bag(run.finish()))["equal"] == 5


def test_chunks_solved_in_a_batch_are_close(graph: Graph, checkpoint: Path, tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", "mcap")
    graph.add(lambda **options: Recorder(writer, RecordedNodes(), **options))
    node = graph.add(
        PolicyNode,
        checkpoint=str(checkpoint),
        inputs_file=str(CONFIG / "pusht_inputs.yaml"),
        robots=["left", "right"],
        sampler="sequential",
        control_rate_hz=10.0,
        engine="eager",
    )
    node.trigger_configure()
    node.trigger_activate()
    speakers = [
        (
            graph.talk(JointState, f"{robot}/joint_states"),
            graph.talk(PoseArray, f"{robot}/keypoints"),
        )
        for robot in ("left", "right")
    ]
    seen = [
        f"/{robot}/{topic}"
        for robot in ("left", "right")
        for topic in ("joint_states", "keypoints")
    ]
    graph.wait(lambda: set(seen) <= set(writer.counts))
    infos = [f"/{robot}/policy_node/chunk_info" for robot in ("left", "right")]

    def speak() -> bool:
        stamp = graph.probe.get_clock().now().to_msg()
        for joints, keypoints in speakers:
            joints.publish(
                JointState(
                    header=Header(stamp=stamp), name=["agent_x", "agent_y"], position=[9.0, 9.0]
                )
            )
            keypoints.publish(
                PoseArray(header=Header(stamp=stamp), poses=[Pose() for _ in range(8)])
            )
        graph.spin_for(0.05)
        return all(writer.counts.get(info, 0) >= 2 for info in infos)

    graph.wait(speak)
    writer.close()
    report = replay_bag(tmp_path / "bag", plots=tmp_path / "plots")
    assert [run["node"] for run in report["runs"]] == ["/left/policy_node", "/right/policy_node"]
    assert report["equal"], report["runs"]
    assert (tmp_path / "plots" / "left_policy_node_seams.png").exists()


def test_a_tampered_observation_is_found_and_named(recorded: Path, tmp_path: Path) -> None:
    seen_ns = read_run(Bag(recorded), NODE).chunks[2].stamp_ns

    def tamper(topic: str, number: int, message: Any) -> Any:
        if topic == "/joint_states" and stamp_to_ns(message.header.stamp) == seen_ns:
            message.position = message.position + 50.0
        return message

    report = replay_bag(rewritten(recorded, tmp_path / "copy", tamper))
    found = the_run(report)
    assert not report["equal"]
    verdicts = [chunk["verdict"] for chunk in found["per_chunk"]]
    assert verdicts == ["equal"] * 2 + ["different"] * 3 + ["equal"] * 2
    reasons = [chunk["reason"] for chunk in found["per_chunk"]]
    assert reasons[2].startswith("observation differs: the bag's messages")
    assert reasons[3] == reasons[2]  # the policy sees two observations
    assert reasons[4] == "started from a chunk that came out differently"


def test_a_tampered_chunk_is_found_though_its_observation_is_equal(
    recorded: Path, tmp_path: Path
) -> None:
    def tamper(topic: str, number: int, message: Any) -> Any:
        if topic == f"{NODE}/action_chunk" and number == 2:
            message.points[1].positions = message.points[1].positions + 1e-5
        return message

    report = replay_bag(rewritten(recorded, tmp_path / "copy", tamper))
    found = the_run(report)
    assert (found["equal"], found["different"]) == (6, 1)
    assert found["largest_difference"] == pytest.approx(1e-5, rel=1e-3)
    assert found["reasons"] == {"no cause is known": 1}


def test_a_recording_that_began_late_says_so(recorded: Path, tmp_path: Path) -> None:
    def late(topic: str, number: int, message: Any) -> Any:
        said = topic in (f"{NODE}/action_chunk", f"{NODE}/chunk_info")
        return None if said and number < 2 else message

    report = replay_bag(rewritten(recorded, tmp_path / "copy", late))
    found = the_run(report)
    assert report["equal"]
    # Those that did not start afresh, unless one comes out equal nevertheless.
    rest = read_run(Bag(recorded), NODE).chunks[2:5]
    warm = len(list(itertools.takewhile(lambda chunk: chunk.executed is not None, rest)))
    assert found["not_comparable"] <= warm
    assert found["equal"] + found["not_comparable"] == 5
    reasons = found["reasons"].get("started from a chunk that is not in the bag", 0)
    assert reasons == found["not_comparable"]


def test_the_bag_of_another_checkpoint_is_named(recorded: Path, tmp_path: Path) -> None:
    other = save_tiny_checkpoint(tmp_path / "other", train_timesteps=10, seed=1)
    calibrate_tiny_checkpoint(other, "ddpm", 10)
    report = replay_bag(recorded, checkpoint=other)
    found = the_run(report)
    assert not report["equal"]
    assert found["different"] == 7
    assert all(reason.startswith("other weights (") for reason in found["reasons"])


def test_a_checkpoint_that_is_gone_asks_for_another(recorded: Path, tmp_path: Path) -> None:
    def moved(topic: str, _: int, message: Any) -> Any:
        if topic.endswith("/settings"):
            message.data = json.dumps({**json.loads(message.data), "checkpoint": "/gone"})
        return message

    bag = rewritten(recorded, tmp_path / "copy", moved)
    with pytest.raises(CheckpointError, match=r"/gone.*give --checkpoint DIR"):
        replay_bag(bag)


def test_missing_settings_are_named(recorded: Path, tmp_path: Path) -> None:
    bag = rewritten(recorded, tmp_path / "copy", without(f"{NODE}/settings"))
    with pytest.raises(DataError, match="holds no settings message; record the topic ~/settings"):
        replay_bag(bag)


def test_a_missing_input_is_named(recorded: Path, tmp_path: Path) -> None:
    bag = rewritten(recorded, tmp_path / "copy", without("/keypoints"))
    with pytest.raises(
        DataError, match=r"lacks /keypoints \(geometry_msgs/msg/PoseArray\), which the policy saw"
    ):
        replay_bag(bag)


def test_a_bag_without_its_end_is_replayed_as_far_as_it_goes(
    recorded: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(recorded, tmp_path / "copy"))
    (file,) = copy.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-30])
    report = replay_bag(copy)
    assert "its end is missing" in report["warnings"][0]
    assert the_run(report)["equal"] == 7


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_a_killed_recorder_has_flushed_is_replayed(
    recorded: Path, tmp_path: Path, storage: Storage
) -> None:
    bag = unclosed(recorded, tmp_path, storage, flush_after=5)
    assert not (bag / "metadata.yaml").exists()
    found = the_run(replay_bag(bag))
    assert (found["chunks"], found["equal"]) == (5, 5)


def test_another_sampler_is_compared(recorded: Path) -> None:
    report = replay_bag(recorded, other=SamplerSpec.parse("sequential"))
    other = the_run(report)["other"]
    assert report["equal"]
    assert other["chunks"] == 7
    assert 0 < other["p95_difference"] <= other["largest_difference"] < 50.0
    assert other["rounds_mean"] == 10
    assert other["latency_ms"]["p50"] > 0


def test_the_command_ends_with_0_or_1_and_writes_report_and_plots(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, plots = tmp_path / "report.json", tmp_path / "plots"
    arguments = ["--json", str(report), "--plots", str(plots), "--sampler", "chord:tolerance=1e-3"]
    assert run_command(tyro.cli(Replay, args=[str(recorded), *arguments])) == 0
    assert json.loads(report.read_text())["runs"][0]["equal"] == 7
    assert {path.name for path in plots.iterdir()} == {"latency.png", "seams.png", "actions.png"}
    assert "chord:tolerance=1e-3" in capsys.readouterr().out

    other = save_tiny_checkpoint(tmp_path / "other", train_timesteps=10, seed=1)
    with pytest.raises(SystemExit) as stopped:
        Replay(recorded, checkpoint=other)()
    assert stopped.value.code == 1


def test_no_bag_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(Replay(tmp_path / "nothing")) == 2
    assert run_command(Replay(tmp_path)) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "there is no bag" in first
    assert "holds no bag" in second
