"""`para-policy info`, `convert` and `init-ros`, as a user calls them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from para_policy import load_policy
from para_policy.checkpoints.original.read import read_original
from para_policy.cli.main import main
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoint import calibrate_tiny_checkpoint, save_tiny_checkpoint
from tests.checkpoints.golden import save as save_lerobot

CKPT = Path(__file__).parents[1] / "checkpoints" / "goldens" / "original_unet.ckpt"


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def actions(policy: DiffusionPolicy) -> np.ndarray:
    shapes = {name: (policy.config.n_obs_steps, *s) for name, s in policy.config.inputs.items()}
    return policy.sample({name: np.full(s, 0.25) for name, s in shapes.items()}, seed=3).actions


def test_a_converted_ckpt_acts_as_the_ckpt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(CKPT, tmp_path / "new", "--control-hz", 5, "--action-names", "x", "y") == 0
    assert "100 weights matched, 0 missing, 0 unexpected" in capsys.readouterr().out
    policy, found = load_policy(tmp_path / "new"), read_original(CKPT)
    assert (policy.config.control_hz, policy.config.action_names) == (5.0, ("x", "y"))
    direct = DiffusionPolicy(found.config, found.state, found.normalizers)
    np.testing.assert_array_equal(actions(policy), actions(direct))


def test_averaged_weights_are_others_than_those_as_trained(tmp_path: Path) -> None:
    for weights in ("auto", "ema", "live"):
        assert convert(CKPT, tmp_path / weights, "--weights", weights) == 0
    auto, ema, live = (actions(load_policy(tmp_path / name)) for name in ("auto", "ema", "live"))
    np.testing.assert_array_equal(auto, ema)
    assert np.abs(auto - live).max() > 1e-3


def test_a_lerobot_checkpoint_is_converted_and_loaded_as_it_is(tmp_path: Path) -> None:
    source = save_lerobot("states", tmp_path / "lerobot")
    assert convert(source, tmp_path / "native") == 0
    np.testing.assert_array_equal(
        actions(load_policy(source)), actions(load_policy(tmp_path / "native"))
    )


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("ckpt", "policy.n_action_steps"),
        ("lerobot", "n_action_steps"),
        ("native", "n_action_steps"),
    ],
)
def test_values_of_a_file_that_cannot_be_edited_are_set(
    kind: str, key: str, tmp_path: Path
) -> None:
    source = CKPT
    if kind != "ckpt":
        source = save_lerobot("states", tmp_path / "source")
    if kind == "native":
        assert convert(source, tmp_path / "native") == 0
        source = tmp_path / "native"
    rate = ("--set", "control_hz=7") if kind == "native" else ()
    assert convert(source, tmp_path / "new", "--set", f"{key}=1", *rate) == 0
    policy = load_policy(tmp_path / "new")
    assert policy.config.n_action_steps == 1
    assert actions(policy).shape[0] == 1
    if rate:
        assert policy.config.control_hz == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "policy.horizon"), "expected KEY=VALUE"),
        (("--set", "policy.horizon=15"), "horizon is 15; .*divisible"),
        (("--set", "policy.horizon.x=15"), "which has no keys"),
        (("--set", "policy.horizont=16"), "horizont is 16: .*not permitted"),
        (("--unset", "policy.horizon"), "horizon"),
        (("--unset", "policy.horizont"), "no such key"),
        (("--action-names", "x"), "gives 1 names; the policy has 2 action coordinates"),
        (("--control-hz", "0"), "control_hz.*greater than or equal to 0.001, got 0"),
        (("--control-hz", "nan"), "control_hz"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(CKPT, tmp_path / "new", *arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error.replace("\n", " "))
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = save_tiny_checkpoint(tmp_path / "there")
    before = (there / "model.safetensors").read_bytes()
    assert convert(CKPT, there) == 2
    assert "holds a checkpoint already" in capsys.readouterr().err
    assert (there / "model.safetensors").read_bytes() == before


def test_info_says_what_a_checkpoint_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny", 8)
    assert main(["info", str(checkpoint)]) == 0
    bare = capsys.readouterr().out
    for part in ("U-Net", "environment_state [16]", "at 10 Hz", "nothing (para-policy calibrate)"):
        assert part in bare
    calibrate_tiny_checkpoint(checkpoint, "ddim", 4)
    assert main(["info", str(checkpoint)]) == 0
    assert "ddim 4 steps" in capsys.readouterr().out
    assert main(["info", str(save_lerobot("camera", tmp_path / "camera"))]) == 0
    camera = capsys.readouterr().out
    for part in ("M in the camera encoders", "image, resnet18", "left out"):
        assert part in camera


def test_a_name_that_is_neither_here_nor_on_the_hub(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["info", "nobody/nothing-at-all"]) == 2
    assert "no local directory, and the Hugging Face Hub" in capsys.readouterr().err


def test_init_ros_writes_files_and_replaces_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, folder = save_tiny_checkpoint(tmp_path / "tiny"), tmp_path / "ros"
    command = ["init-ros", str(checkpoint), "--output", str(folder)]
    assert main(command) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["inputs.yaml", "policy.yaml"]
    (folder / "inputs.yaml").write_text("mine")
    assert main(command) == 2
    assert "exists; give --force" in capsys.readouterr().err.replace("\n", " ")
    assert (folder / "inputs.yaml").read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert (folder / "inputs.yaml").read_text() != "mine"
