"""A native checkpoint comes back as it was, and a damaged one says which file is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import load_policy
from para_policy.checkpoints import native
from para_policy.checkpoints import observations as recorded
from para_policy.checkpoints.files import weights_sha256
from para_policy.checkpoints.load import read_checkpoint
from para_policy.checkpoints.native import CONFIG_FILE, MODEL_FILE, NORMALIZER_FILE
from para_policy.checkpoints.observations import OBSERVATIONS_FILE
from para_policy.errors import CheckpointError, InputError, ParaPolicyError
from para_policy.policies.build import build_network
from tests.checkpoint import THREE_LEVELS, save_tiny_checkpoint, tiny_config
from tests.checkpoints.damage import Damage, edit_tensors

CONFIG = tiny_config(down_dims=THREE_LEVELS)


def save(directory: Path, seed: int = 0) -> Path:
    return save_tiny_checkpoint(directory, seed=seed, down_dims=THREE_LEVELS)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "policy")


def edit_config(**changes: Any) -> Damage:
    def damage(directory: Path) -> None:
        path = directory / CONFIG_FILE
        content = json.loads(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            target = content
            for parent in parents:
                target = target[parent]
            target[last] = value
        path.write_text(json.dumps(content))

    return damage


def rewrite(file: str, edit: Callable[[bytes], bytes]) -> Damage:
    return lambda directory: (
        (directory / file).write_bytes(edit((directory / file).read_bytes())),
        None,
    )[1]


def remove(file: str) -> Damage:
    return lambda directory: (directory / file).unlink()


def test_a_policy_comes_back_as_it_was_saved(checkpoint: Path) -> None:
    policy = load_policy(checkpoint)
    assert policy.config == CONFIG
    torch.manual_seed(0)
    expected = build_network(CONFIG).state_dict()
    assert {name: value.tolist() for name, value in policy.network.state_dict().items()} == {
        name: value.tolist() for name, value in expected.items()
    }
    assert policy.normalizers["action"].scale.tolist() == pytest.approx([2 / 512] * 2)
    assert policy.normalizers["environment_state"].offset.tolist() == [-1.0] * 16


def save_halves(directory: Path, state: dict[str, torch.Tensor]) -> None:
    normalizers = load_policy(save(directory)).normalizers
    native.save_checkpoint(directory, CONFIG, state, normalizers, half=True)


def test_half_precision_on_disk_is_single_precision_in_memory(tmp_path: Path) -> None:
    """Each weight is the nearest half, whatever reads it, and calibrations are bound to those."""
    whole = build_network(CONFIG).state_dict()
    save_halves(tmp_path / "half", whole)
    rounded = {name: value.half().float() for name, value in whole.items()}
    read = read_checkpoint(tmp_path / "half")
    for state in (read.state, load_policy(tmp_path / "half").weights()):
        assert state.keys() == whole.keys()
        for name, value in state.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, rounded[name])
    assert read.weights_sha256 == weights_sha256(rounded)
    single = sum(4 * value.numel() for value in whole.values())
    header = 200 * len(whole)
    assert (tmp_path / "half" / MODEL_FILE).stat().st_size < single / 2 + header


def test_a_weight_beyond_half_precision_is_not_stored_as_infinity(tmp_path: Path) -> None:
    state = build_network(CONFIG).state_dict()
    state["final_conv.1.bias"][0] = -70000
    with pytest.raises(
        InputError, match=r"'final_conv\.1\.bias' is as large as 70000.*65504.*float32"
    ):
        save_halves(tmp_path / "policy", state)


def test_saving_again_replaces_the_files_and_leaves_nothing_else(checkpoint: Path) -> None:
    before = native.checkpoint_hash(checkpoint)
    assert native.checkpoint_hash(save(checkpoint)) == before
    assert native.checkpoint_hash(save(checkpoint, seed=1)) != before
    files = {path.name for path in checkpoint.iterdir()}
    assert files == {CONFIG_FILE, MODEL_FILE, NORMALIZER_FILE}


def test_a_relative_path_and_a_string_will_do(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    assert load_policy("policy").config == load_policy(checkpoint).config


WEIGHT = "final_conv.1.bias"

DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "no config": (remove(CONFIG_FILE), CONFIG_FILE, "missing"),
    "no model": (remove(MODEL_FILE), MODEL_FILE, "missing"),
    "no statistics": (remove(NORMALIZER_FILE), NORMALIZER_FILE, "missing"),
    "truncated model": (rewrite(MODEL_FILE, lambda b: b[:-100]), MODEL_FILE, "truncated"),
    "half a header": (rewrite(MODEL_FILE, lambda b: b[:20]), MODEL_FILE, "truncated"),
    "empty model": (rewrite(MODEL_FILE, lambda b: b""), MODEL_FILE, "truncated"),
    "truncated statistics": (
        rewrite(NORMALIZER_FILE, lambda b: b[:-3]),
        NORMALIZER_FILE,
        "truncated",
    ),
    "a pickle": (
        rewrite(MODEL_FILE, lambda b: b"\x80\x04\x95" + b[:500]),
        MODEL_FILE,
        "no safetensors file",
    ),
    "half a JSON": (rewrite(CONFIG_FILE, lambda b: b[:50]), CONFIG_FILE, "not valid JSON"),
    "binary JSON": (rewrite(CONFIG_FILE, lambda b: b"\xff\xfe\x00"), CONFIG_FILE, "not valid JSON"),
    "JSON list": (rewrite(CONFIG_FILE, lambda b: b"[1, 2]"), CONFIG_FILE, "not a JSON object"),
    "newer version": (edit_config(format_version=3), CONFIG_FILE, "format_version 3"),
    "unknown key": (edit_config(horizn=16), CONFIG_FILE, "horizn"),
    "unknown network key": (edit_config(network__kernal=3), CONFIG_FILE, "network.*kernal"),
    "wrong type": (edit_config(horizon="long"), CONFIG_FILE, "horizon"),
    "other network": (
        edit_config(network__down_dims=[8, 16, 32]),
        MODEL_FILE,
        "lacks .*residual_conv",
    ),
    "other inputs": (edit_config(inputs={"agent_pos": [2]}), MODEL_FILE, "has shape .* needs"),
    "more inputs": (
        edit_config(inputs={"agent_pos": [2], "gripper": [16]}),
        NORMALIZER_FILE,
        "gripper.scale",
    ),
    "wide statistics": (
        edit_tensors(NORMALIZER_FILE, lambda t: t.update({"action.scale": torch.ones(3)})),
        NORMALIZER_FILE,
        r"'action.scale' has shape \(3,\).*\(2,\)",
    ),
    "missing statistics": (
        edit_tensors(NORMALIZER_FILE, lambda t: t.pop("action.offset")),
        NORMALIZER_FILE,
        "action.offset",
    ),
    "NaN statistics": (
        edit_tensors(NORMALIZER_FILE, lambda t: t["action.offset"].fill_(torch.nan)),
        NORMALIZER_FILE,
        "NaN.*action.offset",
    ),
    "zero scale": (
        edit_tensors(NORMALIZER_FILE, lambda t: t["action.scale"].zero_()),
        NORMALIZER_FILE,
        "action.scale",
    ),
    "NaN weights": (
        edit_tensors(MODEL_FILE, lambda t: t[WEIGHT].fill_(torch.nan)),
        MODEL_FILE,
        f"NaN.*{WEIGHT}",
    ),
    "missing weights": (
        edit_tensors(MODEL_FILE, lambda t: t.pop(WEIGHT)),
        MODEL_FILE,
        "lacks .*final_conv",
    ),
    "extra weights": (
        edit_tensors(MODEL_FILE, lambda t: t.update(encoder=torch.ones(1))),
        MODEL_FILE,
        "unknown .*encoder",
    ),
    "wrong weights": (
        edit_tensors(MODEL_FILE, lambda t: t.update({WEIGHT: torch.ones(5)})),
        MODEL_FILE,
        "final_conv.*has shape .* needs",
    ),
    "group norm": (edit_config(network__n_groups=3), CONFIG_FILE, "n_groups"),
    "schedule": (
        edit_config(noise_scheduler___class_name="EulerDiscreteScheduler"),
        CONFIG_FILE,
        "EulerDiscreteScheduler",
    ),
}


@pytest.mark.parametrize(("damage", "file", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_names_the_file(
    checkpoint: Path, damage: Damage, file: str, message: str
) -> None:
    damage(checkpoint)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_policy(checkpoint)
    assert file in str(caught.value)
    assert str(checkpoint) in str(caught.value)


@pytest.mark.parametrize("name", ["absent", ""])
def test_a_path_that_is_no_checkpoint_is_named(
    checkpoint: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    with pytest.raises(CheckpointError, match=f"no checkpoint at '{name or '.'}'"):
        load_policy(name)


def test_a_file_is_no_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json' is a file.*para-policy convert"):
        load_policy(checkpoint / CONFIG_FILE)


def test_a_wrong_device_is_no_fault_of_the_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="cuda:99"):
        load_policy(checkpoint, device="cuda:99")


def test_all_errors_are_ours_and_value_errors() -> None:
    assert issubclass(CheckpointError, ParaPolicyError)
    assert issubclass(ParaPolicyError, ValueError)


def shipped_observations(n: int = 3) -> dict[str, np.ndarray]:
    return {
        "environment_state": np.arange(n * 32, dtype=np.float32).reshape(n, 2, 16),
        "agent_pos": np.ones((n, 2, 2), np.float32),
    }


def test_observations_are_shipped_beside_the_weights(checkpoint: Path) -> None:
    assert recorded.count_observations(checkpoint, CONFIG) == 0
    recorded.save_observations(checkpoint, shipped_observations())
    assert recorded.count_observations(checkpoint, CONFIG) == 3
    read = recorded.read_observations(checkpoint, CONFIG)
    assert read.keys() == shipped_observations().keys()
    for name, values in shipped_observations().items():
        np.testing.assert_array_equal(read[name], values)
    result = load_policy(checkpoint).sample(read, seed=[0, 1, 2], scheduler="ddim", steps=2)
    assert result.actions.shape == (3, 8, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent_pos": np.ones((3, 2, 2))},
        {**shipped_observations(), "agent_pos": np.ones((3, 1, 2))},
        {**shipped_observations(), "agent_pos": np.ones((2, 2, 2))},
        {**shipped_observations(), "camera": np.ones((3, 2, 2))},
        {**shipped_observations(), "agent_pos": np.full((3, 2, 2), np.nan)},
    ],
    ids=["missing", "shape", "count", "unknown", "NaN"],
)
def test_observations_that_do_not_fit_are_refused(
    checkpoint: Path, wrong: dict[str, np.ndarray]
) -> None:
    recorded.save_observations(checkpoint, wrong)
    with pytest.raises(CheckpointError, match=OBSERVATIONS_FILE):
        recorded.read_observations(checkpoint, CONFIG)
