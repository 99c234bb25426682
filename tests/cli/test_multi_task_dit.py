"""Commands on a policy that LeRobot's `multi_task_dit` wrote: as it is, and converted for a robot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from para_policy import load_policy
from para_policy.adapters.preferences import preferences
from para_policy.checkpoints.observations import OBSERVATIONS_FILE, save_observations
from tests.checkpoints.golden import read_golden
from tests.checkpoints.goldens.make_lerobot_dit import TASK
from tests.checkpoints.test_lerobot_dit import save
from tests.commands import Run, runner

STEPS = {"dit_state": 20, "dit_flow": 7}
"""Of DDPM, and Euler steps."""


@pytest.fixture(params=STEPS)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def theirs(case: str, tmp_path: Path) -> Path:
    """LeRobot's directory, with observations beside the weights."""
    pytest.importorskip("tokenizers")
    directory = save(read_golden(case), tmp_path)
    states = np.random.default_rng(0).normal(size=(8, 2, 3))
    save_observations(directory, {"observation.state": states})
    return directory


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def test_it_is_measured_as_lerobot_wrote_it(
    case: str, theirs: Path, tmp_path: Path, run: Run
) -> None:
    report = tmp_path / "bench.json"
    calibrate = ("calibrate", theirs, "--cases", 3, "--threads", 1)
    bench = ("bench", theirs, "--samplers", "chord", "--observations", 1, "--json", report)
    for command in (calibrate, bench):
        code, _, err = run(*command)
        assert (code, "--task 'what the robot is to do'" in err) == (2, True)
        code, _, err = run(*command, "--task", TASK)
        assert code == 0, err
    assert preferences(theirs).sampler == "auto"
    found = json.loads(report.read_text())
    assert found["steps"] == STEPS[case]
    assert found["samplers"]["chord"]["max_abs_error"]["max"] < 5e-2
    code, _, err = run(*bench, "--task", f"{TASK} again")
    assert (code, f"was measured for the task '{TASK}'; the policy is told" in err) == (2, True)


def test_pcm_is_trained_for_it_as_lerobot_wrote_it(theirs: Path, tmp_path: Path, run: Run) -> None:
    store, output = tmp_path / "store", tmp_path / "pcm"
    made = ("trajectories", theirs, "--splitting", "identity", "--count", 8, "--output", store)
    for command in (made, ("distill", theirs, "--data", store, "--output", output, "--steps", 1)):
        small = ("--batch-size", 2, "--rank", 1) if command[0] == "distill" else ()
        code, _, err = run(*command, *small, "--threads", 1)
        assert (code, "--task 'what the robot is to do'" in err) == (2, True)
        code, _, err = run(*command, *small, "--threads", 1, "--task", TASK)
        assert code == 0, err
    assert list((output / "checkpoint").glob("*_identity.safetensors"))


def test_it_is_converted_for_everything_else(
    case: str, theirs: Path, tmp_path: Path, run: Run
) -> None:
    ours = tmp_path / "ours"
    code, _, err = run("convert", theirs, ours, "--task", TASK, "--control-hz", 10)
    assert code == 0, err
    shutil.copy(theirs / OBSERVATIONS_FILE, ours)
    for command in (
        ("info",),
        ("bench", "--samplers", "x0", "--observations", 1),
        ("export", "--output", tmp_path / "network.onnx"),
        ("init-ros", "--output", tmp_path / "ros"),
    ):
        code, out, err = run(command[0], ours, *command[1:])
        assert code == 0, err
        assert out
    seen = {"observation.state": np.random.default_rng(1).normal(size=(2, 3))}
    answers = [
        load_policy(directory, task=task).sample(seen, sampler="sequential", seed=3).actions
        for directory, task in ((theirs, TASK), (ours, None))
    ]
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-6)
