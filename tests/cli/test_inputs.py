"""Commands take a checkpoint by position or option, and observations from wherever they are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from para_policy import load_policy
from para_policy.adapters.preferences import preferences
from para_policy.checkpoints.native import save_checkpoint
from para_policy.checkpoints.observations import read_observations, save_observations
from para_policy.cli.inputs import OfCheckpoint, OnObservations
from para_policy.errors import CheckpointError
from para_policy.lock import sole_writer
from para_policy.policies.build import build_network
from para_policy.policies.normalizer import LinearNormalizer
from sim import demo, record_observations, video
from tests.checkpoint import (
    put_in_hub_cache,
    random_observations,
    save_tiny_checkpoint,
    tiny_config,
)
from tests.checkpoints.golden import save as save_lerobot
from tests.commands import Run, runner
from tests.training.demonstrations import circles, write_group
from tests.training.lerobot.datasets import Layout, write_dataset

QUICK = ("--threads", 1)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny", 8)
    save_observations(directory, random_observations(4))
    return directory


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot checkpoint without observations."""
    return save_lerobot("camera", tmp_path_factory.mktemp("camera") / "camera")


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def moves(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A LeRobotDataset of its features."""
    return write_dataset(tmp_path_factory.mktemp("moves"), Layout(request.param, (16, 14, 20)))


def commands(tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """Every command about one checkpoint, without the checkpoint."""
    return {
        "info": ("info",),
        "bench": ("bench", "--json", tmp_path / "b.json", "--samplers", "x0", "--observations", 1),
        "calibrate": ("calibrate", "--cases", 2),
        "trajectories": (
            *("trajectories", "--output", tmp_path / "t", "--splitting", "x0"),
            *("--count", 2, "--scheduler", "ddim", "--steps", 3),
        ),
        "distill": ("distill", "--data", tmp_path / "t", "--output", tmp_path / "d"),
        "export": ("export", "--output", tmp_path / "a.onnx"),
        "init-ros": ("init-ros", "--output", tmp_path / "ros"),
    }


@pytest.mark.parametrize("name", ["info", "bench", "calibrate", "trajectories", "init-ros"])
def test_a_checkpoint_is_given_by_position_or_by_name(
    tiny: Path, tmp_path: Path, run: Run, name: str
) -> None:
    for how, given in {"position": (tiny,), "option": ("--checkpoint", tiny)}.items():
        command, *more = commands(tmp_path / how)[name]
        code, out, err = run(command, *given, *more)
        assert code == 0, err
        assert out
    report = tmp_path / "position" / "b.json"
    assert name != "bench" or json.loads(report.read_text())["checkpoint"] == str(tiny)


@pytest.mark.parametrize("name", commands(Path()))
def test_one_checkpoint_is_needed_and_no_more(
    tiny: Path, tmp_path: Path, run: Run, name: str
) -> None:
    command, *more = commands(tmp_path)[name]
    for given, message in (
        ((), "no checkpoint given; expected a directory, or a name of the Hugging Face Hub"),
        ((tiny, "--checkpoint", "b"), "two checkpoints given"),
        ((tmp_path / "nothing",), f"no checkpoint at '{tmp_path / 'nothing'}'"),
    ):
        code, _, err = run(command, *given, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


@pytest.mark.parametrize("name", commands(Path()))
def test_every_command_looks_on_the_hub(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    command, *more = commands(tmp_path)[name]
    code, _, err = run(command, "nobody/nothing-at-all", *more)
    assert (code, err.count("\n")) == (2, 1)
    assert "no local directory, and the Hugging Face Hub does not give it" in err


@pytest.mark.parametrize(
    ("reason", "told"), [("", "Exception;"), ("refused\nRetry later", "Exception: refused;")]
)
def test_a_directory_that_is_looked_for_in_a_wrong_folder_is_told_so_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, told: str
) -> None:
    """Whatever the network library raises: httpx's errors are no OSError."""

    def proxied(*_: object, **__: object) -> None:
        raise Exception(reason)

    monkeypatch.setattr("huggingface_hub.snapshot_download", proxied)
    monkeypatch.chdir(tmp_path)
    code, _, err = run("info", "checkpoints/pusht_state")
    assert (code, err.count("\n")) == (2, 1)
    assert "'checkpoints/pusht_state' is no local directory, and the Hug" in err
    assert f"does not give it: {told}" in err
    assert f"give its path from '{tmp_path}'" in err


def test_tools_of_the_simulator_take_checkpoints_as_commands_do(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    output = tmp_path / "x.gif"
    for option in ("checkpoint", "checkpoint_option"):
        for call in (
            lambda **given: video.film(video.Arguments(output=output, **given)),
            lambda **given: record_observations.Arguments(**given)(),
            lambda **given: demo.Arguments(**given).directory(),
        ):
            with pytest.raises(CheckpointError, match="the Hugging Face Hub does not give it"):
                call(**{option: "nobody/nothing-at-all"})
        assert demo.Arguments(**{option: str(tiny)}).directory() == tiny
    assert demo.Arguments().directory() == Path("checkpoints/pusht_state")


@pytest.mark.parametrize("inside", [True, False])
def test_data_that_need_a_configuration_ask_for_it(
    tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    """Also within the source, whose configurations are of other robots."""
    if not inside:
        monkeypatch.chdir(tmp_path)
    arrays, ends = circles()
    write_group(
        tmp_path / "moves.zarr", {"joints": arrays["state"], "action": arrays["action"]}, ends
    )
    told = r"moves.zarr' has no .*agent_pos.*; it holds \['action', 'joints'\]\. Give --config with"
    for data, message in (("absent", "no data set at '.*absent'"), ("moves.zarr", told)):
        code, _, err = run("bench", tiny, "--data", tmp_path / data)
        assert (code, err.count("\n")) == (2, 1)
        assert re.search(message, err)


@pytest.mark.parametrize("inside", [True, False])
def test_a_replay_buffer_that_names_the_inputs_needs_no_configuration(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    """As the simulators write it; of PushT's the source says where the inputs are."""
    policy = load_policy(tiny)
    random, ends = np.random.default_rng(0), np.array([12, 30])
    widths = {name: int(np.prod(shape)) for name, shape in policy.config.inputs.items()}
    arrays = {
        name: random.uniform(50, 400, (30, width)).astype(np.float32)
        for name, width in {**widths, "action": 2, "reward": 1}.items()
    }
    own = write_group(tmp_path / "own.zarr", arrays, ends)
    if not inside:
        monkeypatch.chdir(tmp_path)
    options = OnObservations(checkpoint=str(tiny), data=str(own))
    found = options.observed(policy, 30, shipped="all", demonstrated="all")
    for name in widths:
        np.testing.assert_array_equal(
            found[name][:, -1].reshape(30, -1), arrays[name], err_msg=name
        )


def test_a_file_that_says_no_more_than_where_the_inputs_are(tiny: Path, tmp_path: Path) -> None:
    arrays, ends = circles()
    group = write_group(
        tmp_path / "moves.zarr", {"joints": arrays["state"], "moved": arrays["action"]}, ends
    )
    policy = load_policy(tiny)
    config = tmp_path / "data.yaml"
    (width,) = policy.config.inputs["environment_state"]
    points = {"array": "joints", "pose_columns": [2, 3, 4], "rigid_points": [[0, 0]] * (width // 2)}
    observations = {
        "agent_pos": {"array": "joints", "columns": [0, 1]},
        "environment_state": points,
    }
    data = {"path": "moves.zarr", "action": {"array": "moved"}, "observations": observations}
    config.write_text(yaml.safe_dump({"data": data}))
    options = OnObservations(checkpoint=str(tiny), data=str(group), config=config)
    found = options.observed(policy, 95, shipped="all", demonstrated="all")
    np.testing.assert_array_equal(found["agent_pos"][:, -1], arrays["state"][:, :2])


def test_a_replay_buffer_of_pusht_needs_no_configuration_in_the_source(
    tiny: Path, tmp_path: Path
) -> None:
    arrays, ends = circles()
    group = write_group(tmp_path / "pusht.zarr", arrays, ends)
    found = OnObservations(checkpoint=str(tiny), data=str(group)).observed(
        load_policy(tiny), 95, shipped="all", demonstrated="all"
    )
    np.testing.assert_array_equal(found["agent_pos"][:, -1], arrays["state"][:, :2])


def test_a_checkpoint_is_calibrated_by_one_at_a_time(tiny: Path, run: Run) -> None:
    with sole_writer(tiny / "calibration"):
        code, _, err = run("calibrate", tiny)
    assert (code, err.count("\n")) == (2, 1)
    assert f"another run is writing to '{tiny / 'calibration'}'" in err


def test_a_checkpoint_of_the_hub_is_used_from_the_local_cache(
    tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = put_in_hub_cache(tiny, tmp_path / "hub", monkeypatch)
    for name in ("bench", "calibrate", "info"):
        command, *more = commands(tmp_path)[name]
        code, _, err = run(command, "someone/tiny", *more)
        assert code == 0, err
    assert json.loads((tmp_path / "b.json").read_text())["checkpoint"] == "someone/tiny"
    assert load_policy("someone/tiny").calibrations
    assert (snapshot / "calibration").is_dir()


def test_a_lerobot_policy_is_measured_on_a_lerobot_data_set(
    camera: Path, moves: Path, tmp_path: Path, run: Run
) -> None:
    """Without a word of configuration: inputs and features have the same names."""
    checkpoint = Path(shutil.copytree(camera, tmp_path / "policy"))
    few = ("--scheduler", "ddim", "--steps", 4, *QUICK)
    code, _, err = run("bench", checkpoint, "--json", tmp_path / "b.json")
    assert code == 2
    for words in ("observations.safetensors' is missing", "--data", "--rollout"):
        assert words in err
    calibrate = ("calibrate", checkpoint, "--data", moves, "--cases", 3, *few)
    code, _, err = run(*calibrate)
    assert code == 0, err
    chosen = preferences(checkpoint)
    assert (chosen.sampler, chosen.tolerance) == ("auto", 1e-2)
    bench = ("bench", checkpoint, "--data", moves, "--observations", 3, "--samplers", "x0,chord")
    code, _, err = run(*bench, "--json", tmp_path / "b.json", *few)
    assert code == 0, err
    report: dict[str, Any] = json.loads((tmp_path / "b.json").read_text())
    assert (report["data"], report["observations"]) == (str(moves), 3)
    assert report["samplers"]["chord"]["max_abs_error"]["max"] < 0.1
    code, _, err = run(
        *("trajectories", checkpoint, "--data", moves, "--splitting", "x0", "--count", 3),
        *("--output", tmp_path / "t", *few),
    )
    assert code == 0, err


def test_bench_and_calibrate_share_no_observation(camera: Path, moves: Path, tiny: Path) -> None:
    policy = load_policy(camera)
    options = OnObservations(checkpoint=str(camera), data=str(moves))
    first = options.observed(policy, 100, shipped="all", demonstrated="first half")
    second = options.observed(policy, 100, shipped="all", demonstrated="second half")
    steps = [part["observation.state"][:, -1, 0].tolist() for part in (first, second)]
    assert steps == [list(range(25)), list(range(25, 50))]
    beside = OfCheckpoint(checkpoint_option=str(tiny)).directory()
    every = read_observations(beside, load_policy(tiny).config)["agent_pos"]
    half = OnObservations(checkpoint=str(tiny)).observed(
        load_policy(tiny), 100, shipped="second half", demonstrated="all"
    )["agent_pos"]
    np.testing.assert_array_equal(half, every[2:])


def test_a_policy_is_trained_on_a_lerobot_data_set(moves: Path, tmp_path: Path, run: Run) -> None:
    policy = {
        "inputs": {"observation.image": [3, 40, 48], "observation.state": [3]},
        "vision": {"cameras": ["observation.image"], "num_keypoints": 4, "feature_dim": 8},
        "action_names": ["x", "y"],
        "network": {"down_dims": [8, 16], "step_embed_dim": 8, "kernel_size": 3, "n_groups": 4},
        "noise_scheduler": {"_class_name": "DDPMScheduler", "num_train_timesteps": 8},
    }
    config = tmp_path / "config.yaml"

    def write(**changes: Any) -> None:
        content = {
            "policy": {**policy, **changes},
            "data": {"path": str(moves)},
            "training": {"steps": 2, "batch_size": 4, "evaluation_windows": 4},
        }
        config.write_text(yaml.safe_dump(content))

    train = ("train", "--config", config, "--output", tmp_path / "run", "--device", "cpu")
    write(control_hz=30)
    code, _, err = run(*train)
    assert (code, "recorded at 10 Hz, policy.control_hz is 30" in err) == (2, True)
    write()
    code, _, err = run(*train)
    assert code == 0, err
    trained = load_policy(tmp_path / "run" / "checkpoint")
    action = trained.normalizers["action"]  # of all 50 steps: x from 0 to 98, y from 0.5 to 49.5
    ends = torch.tensor([[0.0, 0.5], [98.0, 49.5]])
    torch.testing.assert_close(action.normalize(ends), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--data", "nowhere"), "no data set at 'nowhere'"),
        (("--data", "."), "'.' "),
        (("--rollout", "NoSuchGame-v0"), "NoSuchGame-v0"),
        (("--rollout", "CartPole-v1", "--data", "x"), "--data and --rollout were given"),
    ],
)
def test_observations_that_are_not_there_end_with_one_line(
    camera: Path, tmp_path: Path, run: Run, more: tuple[str, ...], message: str
) -> None:
    code, _, err = run("bench", camera, "--json", tmp_path / "b.json", *more)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_what_a_rollout_meets_is_kept_beside_the_checkpoint(tmp_path: Path, run: Run) -> None:
    config = tiny_config(4).model_copy(update={"inputs": {"agent_pos": (2,)}})
    one = LinearNormalizer.fit(np.array([[0.0, 0.0], [9.0, 9.0]], np.float32))
    checkpoint, weights = tmp_path / "policy", build_network(config).state_dict()
    save_checkpoint(checkpoint, config, weights, {"agent_pos": one, "action": one})
    bench = ("bench", checkpoint, "--observations", 2, "--samplers", "x0", *QUICK)
    bench = (*bench, "--json", tmp_path / "b.json")
    rollout = ("--rollout", "tests.rollout.environments:Counter-v0")
    code, _, err = run(*bench, *rollout)
    assert code == 0, err
    kept = read_observations(checkpoint, config)["agent_pos"]
    assert len(kept) == 256
    code, _, err = run(*bench, *rollout)
    assert (code, "is there already; leave --rollout out" in err) == (2, True)
    assert run(*bench)[0] == 0
    options = OnObservations(checkpoint=str(checkpoint))
    half = options.observed(load_policy(checkpoint), 3, shipped="second half", demonstrated="all")
    np.testing.assert_array_equal(half["agent_pos"], kept[128:])


def test_a_configuration_without_its_data_is_refused(tiny: Path, run: Run, tmp_path: Path) -> None:
    code, _, error = run("bench", tiny, "--config", tmp_path / "mine.yaml", *QUICK)
    assert code == 2
    assert f"--config {tmp_path / 'mine.yaml'} says what --data holds, which is not given" in error
