"""A policy on top of an encoder that was trained before: frozen, or trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from para_policy import load_policy
from para_policy.cli.main import main
from para_policy.errors import CheckpointError, InputError
from para_policy.networks import vision
from para_policy.networks.vision import VisionEncoder
from para_policy.policies.build import VISION, build_vision
from para_policy.training.behaviour_cloning import prepare_data, train
from para_policy.training.config import TrainConfig
from para_policy.training.pretrained import read_encoder
from tests.checkpoint import tiny_config
from tests.training.demonstrations import circles, write_group
from tests.training.interruption import interrupt_at

SIDE = 20


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Circles that are seen as noise; the encoder has one convolution in place of eighteen."""
    monkeypatch.setattr(vision, "_resnet", lambda *_: nn.Sequential(nn.Conv2d(3, 128, 6, stride=4)))
    arrays, ends = circles()
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (len(arrays["state"]), SIDE, SIDE, 3), dtype=np.uint8)
    return write_group(tmp_path / "images.zarr", {**arrays, "img": frames}, ends)


def config(data: Path, weights: Path, *, trainable: bool = False, **training: Any) -> TrainConfig:
    policy = tiny_config(20).model_dump(mode="json")
    policy["inputs"] = {"agent_pos": [2], "image": [3, SIDE, SIDE]}
    policy["vision"] = {
        "cameras": ["image"],
        "base_channels": 16,
        "crop": [SIDE - 2, SIDE - 2],
        "num_keypoints": 8,
        "feature_dim": 6,
    }
    policy["network"]["down_dims"] = [8, 16, 32]
    observed = {"agent_pos": {"array": "state", "columns": [0, 1]}, "image": {"image": "img"}}
    run = {"steps": 6, "batch_size": 8, "warmup_steps": 2, "log_every": 2, "checkpoint_every": 3}
    return TrainConfig.model_validate(
        {
            "policy": policy,
            "data": {"path": str(data), "observations": observed},
            "encoder": {"weights": str(weights), "trainable": trainable},
            "training": {**run, **training},
        }
    )


def write_encoder(data: Path, path: Path, seed: int = 0) -> Path:
    """As a file of a pretraining, or of a policy: what is not of the encoder is left out."""
    torch.manual_seed(seed)
    network = build_vision(config(data, path).policy)
    assert network is not None
    save_file({**network.state_dict(prefix=VISION), "final_conv.1.bias": torch.ones(2)}, path)
    return path


@pytest.fixture
def weights(data: Path, tmp_path: Path) -> Path:
    return write_encoder(data, tmp_path / "encoder.safetensors")


def encoders(path: Path) -> dict[str, Tensor]:
    return {name: value for name, value in load_file(path).items() if name.startswith(VISION)}


def test_a_frozen_encoder_stays_as_it_is(data: Path, weights: Path, tmp_path: Path) -> None:
    checkpoint = train(config(data, weights), tmp_path / "run", device="cpu")
    exported = encoders(checkpoint / "model.safetensors")
    assert exported.keys() == encoders(weights).keys()
    for name, value in encoders(weights).items():
        assert torch.equal(exported[name], value)
    load_policy(checkpoint)


def test_cached_features_are_what_the_policy_sees(
    data: Path, weights: Path, tmp_path: Path
) -> None:
    """Frames of the demonstrations through the finished policy: the same condition."""
    made = config(data, weights)
    policy = load_policy(train(made, tmp_path / "run", device="cpu"))
    cached = prepare_data(made, read_encoder(made.policy, made.encoder)).train  # type: ignore[arg-type]
    frames = prepare_data(made).train
    chosen = torch.arange(0, len(frames), 7)
    features, images = cached.batch(chosen), frames.batch(chosen)["image"]
    assert features["image"].shape == (len(chosen), 2, 6)
    assert features["image"].std() > 0.01, "nothing to see"
    position = policy.normalizers["agent_pos"].unnormalize(features["agent_pos"])
    seen = {"agent_pos": position.numpy(), "image": images.numpy()}
    condition = policy.encoder.encode(policy.encoder.check(seen, batched=True), torch.device("cpu"))
    expected = torch.cat([features["agent_pos"], features["image"]], dim=-1).flatten(1)
    torch.testing.assert_close(condition, expected, atol=1e-5, rtol=1e-5)


def test_a_step_with_a_frozen_encoder_encodes_nothing(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    forward = VisionEncoder.forward

    def counted(self: VisionEncoder, images: dict[str, Tensor]) -> dict[str, Tensor]:
        calls.append(len(images["image"]))
        return forward(self, images)

    monkeypatch.setattr(VisionEncoder, "forward", counted)
    train(config(data, weights), tmp_path / "run", device="cpu")
    assert sum(calls) == 30 + 25 + 40  # every frame once


def test_a_trainable_encoder_begins_where_it_was(data: Path, weights: Path, tmp_path: Path) -> None:
    changes = {}
    for rate in (1e-12, 1e-2):
        made = config(data, weights, trainable=True, learning_rate=rate)
        checkpoint = train(made, tmp_path / str(rate), device="cpu")
        exported = encoders(checkpoint / "model.safetensors")
        changes[rate] = max(
            float((exported[name] - value).abs().max()) for name, value in encoders(weights).items()
        )
    assert changes[1e-12] < 1e-6
    assert changes[1e-2] > 1e-4


def test_a_run_goes_on_with_the_encoder_that_it_began_with(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(data, weights), tmp_path / "whole", device="cpu")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(config(data, weights), tmp_path / "parts", device="cpu")
    other = write_encoder(data, tmp_path / "other.safetensors", seed=1)
    with pytest.raises(InputError, match=r"other is the content of encoder \(sha256"):
        train(config(data, other), tmp_path / "parts", resume=True, device="cpu")
    moved = weights.rename(tmp_path / "moved.safetensors")
    parts = train(config(data, moved), tmp_path / "parts", resume=True, device="cpu")
    states = [load_file(path / "model.safetensors") for path in (whole, parts)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_policy_in_half_precision_acts_as_its_rounded_weights(
    data: Path, weights: Path, tmp_path: Path
) -> None:
    paths = {
        stored: train(config(data, weights, stored=stored), tmp_path / stored, device="cpu")
        for stored in ("float32", "float16")
    }
    whole, half = (load_policy(path).weights() for path in paths.values())
    for name, value in whole.items():
        assert half[name].dtype == torch.float32
        assert torch.equal(half[name], value.half().float())


def test_an_encoder_that_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no encoder at '.*absent\.safetensors'.*--encoder FILE"):
        train(config(data, tmp_path / "absent.safetensors"), tmp_path / "run", device="cpu")


def test_an_encoder_of_another_shape_is_refused(data: Path, weights: Path, tmp_path: Path) -> None:
    state = load_file(weights)
    state["vision.encoders.0.head.bias"] = torch.zeros(7)
    save_file(state, weights)
    with pytest.raises(CheckpointError, match=r"encoders\.0\.head\.bias.*\(7,\).*needs \(6,\)"):
        train(config(data, weights), tmp_path / "run", device="cpu")
    del state["vision.encoders.0.head.bias"]
    save_file(state, weights)
    with pytest.raises(CheckpointError, match=r"lacks .*encoders\.0\.head\.bias"):
        train(config(data, weights), tmp_path / "run", device="cpu")


def test_the_command_takes_another_encoder(
    data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = config(data, tmp_path / "absent.safetensors").model_dump(mode="json")
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(made))
    command = ["train", "--config", str(file), "--device", "cpu", "--encoder", str(weights)]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    exported = encoders(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in encoders(weights).items())
    del made["encoder"]
    file.write_text(yaml.safe_dump(made))
    assert main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "has no section encoder" in " ".join(capsys.readouterr().err.split())


def test_an_encoder_needs_a_camera(data: Path, weights: Path) -> None:
    made = config(data, weights).model_dump(mode="json")
    made["policy"] |= {"vision": None, "inputs": {"agent_pos": [2]}}
    with pytest.raises(ValueError, match=r"encoder is given, but policy\.vision names no camera"):
        TrainConfig.model_validate(made)
