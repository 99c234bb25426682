"""`make demo`, with a policy that knows nothing: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from para_policy.checkpoints.native import read_config
from para_policy.checkpoints.observations import read_observations, save_observations
from sim import demo, record_observations


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
    frames = iio.imread(tmp_path / "out" / "demo.mp4")
    assert frames.shape[0] >= 300
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_without_a_checkpoint_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    assert demo.main(arguments) == 2
    assert "no checkpoint at" in capsys.readouterr().err


def test_recorded_observations_are_what_the_policy_expects(checkpoint: Path) -> None:
    arguments = [str(checkpoint), "--episodes", "1", "--count", "7"]
    assert record_observations.main(arguments) == 0
    observations = read_observations(checkpoint, read_config(checkpoint))
    assert {name: values.shape for name, values in observations.items()} == {
        "environment_state": (7, 2, 16),
        "agent_pos": (7, 2, 2),
    }
