"""A base install does what a robot needs; a command that needs more says which extra brings it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint import save_tiny_checkpoint

ROOT = Path(__file__).parents[2]
POLICY = "checkpoints/pusht_state"
CKPT = "tests/checkpoints/goldens/original_unet.ckpt"
MOVES = "tests/training/lerobot/goldens/v3.0"
OPTIONAL = (
    *("accelerate", "av", "dill", "gym_aloha", "gym_pusht"),
    *("gymnasium", "imageio", "imageio_ffmpeg"),
    *("matplotlib", "mcap", "omegaconf", "onnx", "onnxruntime", "onnxscript", "openvino"),
    *("pyarrow", "pymunk", "rosbags", "tensorboard", "zarr"),
)
TRAIN = "train --config config/training/pusht_state.yaml --data {tmp} --output {tmp}/run"
EVALUATE = f"--checkpoint {POLICY} --json {{tmp}}/out.json --episodes 1"

# What a base install must do.
BASE = (
    ("para_policy", f"info {POLICY}"),
    ("para_policy", "bench --checkpoint {tmp}/tiny --json {tmp}/bench.json --observations 1"),
    ("para_policy", f"init-ros {POLICY} --output {{tmp}}/ros"),
    ("para_policy", f"convert {CKPT} {{tmp}}/converted"),
)

# Command, a package that is missing, and the extra that brings it.
NEEDS = (
    ("para_policy", TRAIN, "accelerate", "train"),
    ("para_policy", TRAIN, "matplotlib", "train"),
    ("para_policy", TRAIN, "zarr", "train"),
    (
        "para_policy",
        f"trajectories --checkpoint {POLICY} --data {{tmp}} --output {{tmp}}/t",
        "zarr",
        "train",
    ),
    ("para_policy", f"distill --checkpoint {POLICY} --data {{tmp}}", "accelerate", "train"),
    ("para_policy", "calibrate --checkpoint {tmp}/tiny --data {tmp}", "zarr", "train"),
    ("para_policy", f"convert {CKPT} {{tmp}}/trusted --trust-pickle", "dill", "convert"),
    ("para_policy", "info nobody/nothing-at-all", "huggingface_hub", "hub"),
    ("para_policy", f"calibrate {{tmp}}/tiny --data {MOVES}", "av", "lerobot"),
    ("para_policy", f"calibrate {{tmp}}/tiny --data {MOVES}", "pyarrow", "lerobot"),
    ("para_policy", "calibrate {tmp}/tiny --data a/b", "huggingface_hub", "hub"),
    ("para_policy", "calibrate {tmp}/bare --rollout CartPole-v1", "gymnasium", "sim"),
    (
        "para_policy",
        "train --config config/training/pusht_state.yaml --data {tmp}/pushes --tensorboard",
        "tensorboard",
        "tensorboard",
    ),
    ("sim.evaluate", EVALUATE, "gym_pusht", "sim"),
    ("sim.evaluate", f"{EVALUATE} --env aloha", "gym_aloha", "aloha"),
    ("sim.evaluate", f"{EVALUATE} --report {{tmp}}/out.html", "matplotlib", "plots"),
    ("sim.evaluate", f"{EVALUATE} --video {{tmp}}", "imageio_ffmpeg", "video"),
    ("sim.video", f"--checkpoint {POLICY} --output {{tmp}}/a.mp4", "imageio_ffmpeg", "video"),
    ("sim.record_observations", "{tmp}/bare", "gym_pusht", "sim"),
    ("sim.record_successes", f"{POLICY} --output {{tmp}}/successes", "zarr", "train"),
    ("sim.render_demonstrations", "--data {tmp} --output {tmp}/images", "zarr", "train"),
)
NEEDS_WITH_ROS = (
    ("para_policy", "record --output {tmp}/bag", "rosbags", "bags"),
    ("para_policy", "replay {tmp}", "mcap", "bags"),
    ("para_policy", "replay {tmp} --plots {tmp}", "matplotlib", "plots"),
    ("sim.demo", "--output {tmp}/demo", "matplotlib", "plots"),
    ("sim.demo", "--output {tmp}/demo", "imageio_ffmpeg", "video"),
)
NEEDS_WITH_ALOHA = (
    ("sim.aloha.demonstrations", "--output {tmp}/arms", "zarr", "train"),
    ("sim.aloha.demonstrations", "--output {tmp}/arms", "pyarrow", "lerobot"),
)
CASES = NEEDS + (NEEDS_WITH_ROS if importlib.util.find_spec("rclpy") else ())
CASES += NEEDS_WITH_ALOHA if importlib.util.find_spec("gym_aloha") else ()

Result = tuple[int, str]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Exit code and stderr of all commands, from one process: torch is imported once."""
    tmp = tmp_path_factory.mktemp("extras")
    for name in ("tiny", "bare"):
        save_tiny_checkpoint(tmp / name, train_timesteps=10)
    (tmp / "tiny" / "observations.safetensors").write_bytes(
        (ROOT / POLICY / "observations.safetensors").read_bytes()
    )
    commands = [(OPTIONAL, *command) for command in BASE]
    commands += [((package,), *command) for *command, package, _ in CASES]
    given = [(hidden, module, text.format(tmp=tmp).split()) for hidden, module, text in commands]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.cli.without_packages"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    found: list[Result] = json.loads(done.stdout)
    assert len(found) == len(commands)
    return found


@pytest.mark.parametrize("index", range(len(BASE)), ids=[text.split()[0] for _, text in BASE])
def test_a_base_install_runs_what_a_robot_needs(results: list[Result], index: int) -> None:
    code, error = results[index]
    assert code == 0, error


@pytest.mark.parametrize(
    "index",
    range(len(CASES)),
    ids=[f"{module} {text.split()[0]} {p}" for module, text, p, _ in CASES],
)
def test_a_missing_package_is_named_with_its_extra(results: list[Result], index: int) -> None:
    code, error = results[len(BASE) + index]
    *_, package, extra = CASES[index]
    *_, last = error.strip().splitlines()
    assert code == 2, error
    assert last.startswith("error: ")
    assert f" needs {package}; pip install '.[{extra}]' in the checkout" in last
