"""A miniature training learns, stops, and goes on as if it had not been stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from para_policy import load_policy
from para_policy.errors import DataError, InputError
from para_policy.training.behaviour_cloning import prepare_data, train
from para_policy.training.config import TrainConfig
from tests.fixtures_checkpoint import tiny_config
from tests.training.demonstrations import REPOSITORY, circles, write_group
from tests.training.interruption import interrupt_at


def content(path: Path, **training: Any) -> dict[str, Any]:
    policy = tiny_config(20).model_dump(mode="json")
    policy["inputs"] = {"agent_pos": [2]}
    policy["network"]["down_dims"] = [8, 16, 32]
    return {
        "policy": policy,
        "data": {
            "path": str(path),
            "action": {"array": "action"},
            "observations": {"agent_pos": {"array": "state", "columns": [0, 1]}},
        },
        "training": {
            "steps": 6,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "warmup_steps": 2,
            "log_every": 2,
            "checkpoint_every": 3,
            **training,
        },
    }


def config(path: Path, **training: Any) -> TrainConfig:
    return TrainConfig.model_validate(content(path, **training))


def metrics(output: Path) -> list[dict[str, float]]:
    """All records, without the time that they took."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all(record.pop("seconds") >= 0 for record in records)
    return records


def weights(output: Path) -> dict[str, list[float]]:
    state = load_file(output / "checkpoint" / "model.safetensors")
    return {name: value.tolist() for name, value in state.items()}


def test_training_lowers_the_loss_and_leaves_a_policy(zarr_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    checkpoint = train(config(zarr_path, steps=80, log_every=20), output, device="cpu")
    records = metrics(output)
    assert [record["step"] for record in records] == [20, 40, 60, 80]
    assert records[-1]["ema_loss"] < 0.8 * records[0]["ema_loss"]
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    assert records[-1]["learning_rate"] < records[0]["learning_rate"]
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    policy = load_policy(checkpoint)
    result = policy.sample({"agent_pos": np.array([[456.0, 256.0], [452.0, 296.0]])})
    assert result.actions.shape == (8, 2)
    assert (np.abs(result.prediction - 256) <= 201).all()  # inside what was demonstrated


def test_a_run_depends_on_its_seed_alone(zarr_path: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name) % 1000)
        train(config(zarr_path, seed=seed), tmp_path / name, device="cpu")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one(
    zarr_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config(zarr_path), whole, device="cpu")
    with monkeypatch.context() as patch:
        interrupt_at(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            train(config(zarr_path), parts, device="cpu")
    train(config(zarr_path), parts, resume=True, device="cpu")
    assert weights(parts) == weights(whole)
    assert [r["step"] for r in metrics(parts)] == [r["step"] for r in metrics(whole)]
    for resumed, straight in zip(metrics(parts), metrics(whole), strict=True):
        assert resumed["ema_loss"] == straight["ema_loss"]
        assert resumed["learning_rate"] == straight["learning_rate"]


def test_a_finished_run_is_not_overwritten(zarr_path: Path, tmp_path: Path) -> None:
    train(config(zarr_path), tmp_path / "run", device="cpu")
    before = weights(tmp_path / "run")
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        train(config(zarr_path, seed=7), tmp_path / "run", device="cpu")
    assert weights(tmp_path / "run") == before


def test_a_run_that_stopped_before_its_first_checkpoint_can_go_on(
    zarr_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has metrics but no state: one of the two ways to start it again must be open."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)  # logged at 2, saved at 3
        with pytest.raises(KeyboardInterrupt):
            train(config(zarr_path), tmp_path / "run", device="cpu")
    refused = 0
    for resume in (False, True):
        try:
            train(config(zarr_path), tmp_path / "run", resume=resume, device="cpu")
            break
        except InputError:
            refused += 1
    assert refused < 2, "neither with nor without resume"


def test_a_run_is_resumed_with_its_own_configuration_only(zarr_path: Path, tmp_path: Path) -> None:
    train(config(zarr_path), tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="another configuration"):
        train(config(zarr_path, seed=7), tmp_path / "run", resume=True, device="cpu")


def test_a_device_that_is_none_is_refused(zarr_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device is 'nonsense'"):
        train(config(zarr_path), tmp_path / "run", device="nonsense")


def test_there_must_be_something_to_resume(zarr_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        train(config(zarr_path), tmp_path / "run", resume=True, device="cpu")


def test_validation_episodes_are_kept_out_of_training(zarr_path: Path) -> None:
    made = content(zarr_path)
    made["data"]["validation_ratio"] = 0.34
    data = prepare_data(TrainConfig.model_validate(made))
    assert "validation" in data.evaluation_name
    lengths = {len(data.train), len(data.evaluation)}
    windows = {30 - 7, 25 - 7, 40 - 7}
    assert lengths == {len(data.evaluation), sum(windows) - len(data.evaluation)}
    assert len(data.evaluation) in windows


def test_features_are_normalised_to_the_unit_box(zarr_path: Path) -> None:
    data = prepare_data(config(zarr_path))
    batch = data.train.batch(torch.arange(len(data.train)))
    for values in batch.values():
        assert values.abs().max() <= 1 + 1e-5
        assert values.min() < -0.9
        assert values.max() > 0.9


def test_too_few_windows_for_a_batch_are_refused(tmp_path: Path) -> None:
    path = write_group(tmp_path / "demo.zarr", *circles((10,)))
    with pytest.raises(DataError, match=r"3 training windows.*batch of 16.*batch_size"):
        prepare_data(config(path))


def test_demonstrations_with_holes_are_refused(tmp_path: Path) -> None:
    arrays, ends = circles()
    arrays["action"][17, 1] = np.nan
    path = write_group(tmp_path / "demo.zarr", arrays, ends)
    with pytest.raises(DataError, match="NaN"):
        prepare_data(config(path))


def test_the_shipped_configuration_is_valid() -> None:
    shipped = TrainConfig.from_yaml(REPOSITORY / "configs" / "pusht_state.yaml")
    assert shipped.policy.inputs == {"environment_state": (16,), "agent_pos": (2,)}
    assert shipped.policy.noise_scheduler["beta_schedule"] == "squaredcos_cap_v2"


def test_a_configuration_is_read_from_yaml(zarr_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(content(zarr_path)))
    assert TrainConfig.from_yaml(file) == config(zarr_path)


def changed(section: str, key: str, value: Any) -> str:
    made = content(Path("demo.zarr"))
    made[section][key] = value
    return yaml.safe_dump(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {steps: [", "not valid YAML"),
        ("", r"train\.yaml"),
        ("just a word", r"train\.yaml"),
        ("policy: {}", "data.*[Ff]ield required"),
        (changed("training", "learning_rat", 1), "training.learning_rat"),
        (changed("training", "steps", 0), "training.steps"),
        (changed("training", "steps", "many"), "training.steps"),
        (changed("training", "precision", "fp8"), "training.precision"),
        (changed("data", "validation_ratio", 1.0), "data.validation_ratio"),
        (changed("policy", "horizon", 15), "horizon is 15"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig.from_yaml(file)
    assert "train.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml"):
        TrainConfig.from_yaml(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="cannot read"):
        TrainConfig.from_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"binary\.yaml"):
        TrainConfig.from_yaml(tmp_path / "binary.yaml")
