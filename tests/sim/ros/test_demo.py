"""`make demo`, with a policy that knows nothing: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from para_policy.checkpoints.native import read_config
from para_policy.checkpoints.observations import read_observations, save_observations
from para_policy.networks.config import VisionConfig
from sim import demo, record_observations
from tests.checkpoint import save_tiny_checkpoint
from tests.ros.image_policy import save_policy
from tests.sim.aloha.policy import save_aloha_checkpoint

SMALL = VisionConfig(cameras=("image",), base_channels=16, num_keypoints=8, feature_dim=16)


@pytest.fixture
def with_observations(checkpoint: Path) -> Path:
    random = np.random.default_rng(0)
    widths = {"environment_state": 16, "agent_pos": 2}
    save_observations(
        checkpoint, {name: random.uniform(0, 512, (4, 2, size)) for name, size in widths.items()}
    )
    return checkpoint


def test_demo_plays_over_ros_what_it_plays_in_process(
    with_observations: Path, domain_id: int, tmp_path: Path
) -> None:
    arguments = ["--checkpoint", str(with_observations), "--output", str(tmp_path / "out")]
    arguments += ["--episodes", "1", "--observations", "2", "--domain-id", str(domain_id)]
    assert demo.main(arguments) == 0
    document = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert document["largest_path_difference_ros_to_in_process"] == 0
    assert set(document["comparison"]["samplers"]) == {"sequential", "chord"}
    assert len(document["max_reward"]) == 3
    latency = document["median_latency_over_ros_ms"]
    assert 0 < latency["encoder"] < latency["chunk"]
    frames = iio.imread(tmp_path / "out" / "demo.mp4")
    assert frames.shape[0] >= 300
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_policy_that_sees_is_shown_images_over_ros(domain_id: int, tmp_path: Path) -> None:
    """The same path as in process, so that the same pixels came over sensor_msgs/Image."""
    checkpoint = save_policy(tmp_path / "policy", "image", "agent_pos", vision=SMALL)
    random = np.random.default_rng(0)
    seen = {
        "image": random.integers(0, 256, (2, 2, 3, 96, 96), dtype=np.uint8),
        "agent_pos": random.uniform(0, 512, (2, 2, 2)),
    }
    save_observations(checkpoint, seen)
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out")]
    arguments += ["--episodes", "1", "--observations", "2", "--domain-id", str(domain_id)]
    arguments += ["--sampler", "paradigms"]
    assert demo.main(arguments) == 0
    document = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert document["largest_path_difference_ros_to_in_process"] == 0
    latency = document["median_latency_over_ros_ms"]
    assert 0.1 < latency["encoder"] < latency["chunk"]


@pytest.mark.parametrize(
    ("there", "given", "expected"),
    [
        (True, [], [None, "image_policy"]),
        (False, [], [None]),
        (True, ["other"], ["other"]),
    ],
)
def test_the_second_half_sees_if_there_is_a_policy_for_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    given: list[str],
    expected: list[str | None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "IMAGE_CHECKPOINT", "image_policy")
    if there:
        Path("image_policy").mkdir()
    shown: list[demo.Arguments] = []
    monkeypatch.setattr(demo, "demo", lambda arguments, console: shown.append(arguments))
    assert demo.main([*given, "--output", "out"]) == 0
    assert [arguments.given() for arguments in shown] == expected
    assert len({arguments.output for arguments in shown}) == len(shown)


def test_demo_without_a_checkpoint_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    assert demo.main(arguments) == 2
    assert "no checkpoint at" in capsys.readouterr().err


def test_the_demo_of_another_task_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gym_aloha")
    arguments = [str(save_aloha_checkpoint(tmp_path / "arms")), "--output", str(tmp_path / "out")]
    assert demo.main([*arguments, "--sampler", "x0"]) == 2
    assert "PushT has no input" in capsys.readouterr().err


def test_recorded_observations_are_what_the_policy_expects(tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path, train_timesteps=10)
    arguments = [str(checkpoint), "--episodes", "1", "--count", "7"]
    assert record_observations.main(arguments) == 0
    observations = read_observations(checkpoint, read_config(checkpoint))
    assert {name: values.shape for name, values in observations.items()} == {
        "environment_state": (7, 2, 16),
        "agent_pos": (7, 2, 2),
    }
