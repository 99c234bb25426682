"""An encoder learns where the T and the agent are, from pictures of random states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from para_policy.errors import InputError
from para_policy.networks import vision
from para_policy.policies.config import PolicyConfig
from para_policy.training import trainer
from para_policy.training.config import EncoderConfig, OptimisationConfig, TrainConfig
from para_policy.training.pretrained import read_encoder
from sim.pretrain_encoder import FEATURES, PretrainConfig, Pretraining, errors, main
from sim.pusht.drawing import T_OUTLINE
from sim.pusht.env import BOARD_SIZE, GOAL_POSE
from sim.pusht.random_states import random_states
from tests.checkpoint import tiny_config
from tests.training.demonstrations import REPOSITORY
from tests.training.interruption import interrupt_at

SIDE = 32


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three convolutions in place of eighteen, whose maps of small images have 7 x 7 places."""

    def layers(*_: Any) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 128, 3, padding=1),
            nn.ReLU(),
        )

    monkeypatch.setattr(vision, "_resnet", layers)
    monkeypatch.setattr("sim.pretrain_encoder._HELD_OUT", 96)


def policy(**changes: Any) -> PolicyConfig:
    seeing = {"cameras": ["image"], "base_channels": 16, "num_keypoints": 16}
    return tiny_config().changed(
        {
            "inputs": {"image": (3, SIDE, SIDE), "agent_pos": (2,)},
            "vision": {**seeing, "feature_dim": FEATURES, **changes},
        }
    )


def pretraining(**training: Any) -> Pretraining:
    options = {"batch_size": 8, "warmup_steps": 2, "log_every": 2, "checkpoint_every": 2}
    run = OptimisationConfig.model_validate({"steps": 4, **options, **training})
    return Pretraining(PretrainConfig.of(policy(), run))


def test_pretraining_learns_to_see(tmp_path: Path) -> None:
    """Where the block is, far better than any answer that does not look at the picture."""
    task = pretraining(steps=150, batch_size=16, learning_rate=1e-2, log_every=50)
    directory = trainer.run(task, tmp_path / "run", device="cpu")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["ema_loss"] for line in lines]
    assert losses[0] > losses[1] > losses[2]
    found = json.loads((directory / "held_out.json").read_text())
    seen = task.held_out[1].numpy()
    blind = errors(np.broadcast_to(np.median(seen, axis=0), seen.shape), seen)
    assert found["block_px"]["mean"] < 0.4 * blind["block_px"]["mean"]


def test_what_is_exported_answers_as_what_was_trained(tmp_path: Path) -> None:
    task = pretraining()
    directory = trainer.run(task, tmp_path / "run", device="cpu")
    encoder = read_encoder(policy(), EncoderConfig(weights=directory / "encoder.safetensors"))
    images, seen = task.held_out
    with torch.no_grad():
        features = encoder.eval()({"image": 2 * (images / 255) - 1})["image"]
    found = errors(256 * features.numpy(), seen.numpy())
    for name, written in json.loads((directory / "held_out.json").read_text()).items():
        assert found[name] == pytest.approx(written, rel=1e-4)


def test_a_resumed_pretraining_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer.run(pretraining(), tmp_path / "whole", device="cpu")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(pretraining(), tmp_path / "parts", device="cpu")
    torch.manual_seed(123)
    parts = trainer.run(pretraining(), tmp_path / "parts", resume=True, device="cpu")
    states = [load_file(path / "encoder.safetensors") for path in (whole, parts)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_no_picture_is_seen_twice() -> None:
    task = pretraining()
    drawn = [task.held_out[1][:4], *(task.pictures(4, step, 0)[1] for step in (0, 1))]
    drawn.append(task.pictures(4, 0, 1)[1])  # of another process
    rows = torch.cat(drawn)
    assert len(rows.unique(dim=0)) == 16
    assert torch.equal(task.pictures(4, 1, 0)[1], drawn[2])


def test_random_states_lie_where_the_policy_will_be() -> None:
    states = random_states(2000, np.random.default_rng(0))
    c, s = np.cos(states[:, 4]), np.sin(states[:, 4])
    turned = T_OUTLINE @ np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], axis=1)
    corners = turned + states[:, None, 2:4]
    assert corners.min() >= 5
    assert corners.max() <= BOARD_SIZE - 5
    assert states[:, :2].min() >= 20
    assert states[:, :2].max() <= BOARD_SIZE - 20
    near = np.linalg.norm(states[:, 2:4] - GOAL_POSE[:2], axis=1) < 60
    assert 0.4 < near.mean() < 0.7
    bar = (corners[:, 0] + corners[:, 2]) / 2  # its middle; the bar is 120 x 30
    covering = np.linalg.norm(states[:, :2] - bar, axis=1) < 25
    assert 0.01 < covering.mean() < 0.1
    assert np.histogram(states[:, 4], bins=4, range=(0, 2 * np.pi))[0].min() > 100


def test_errors_are_those_of_the_motion() -> None:
    """A block that is turned by 3 degrees and moved by (3, 4) pixels, an agent that is moved by 2."""
    points = np.random.default_rng(0).uniform(0, 512, (5, 8, 2))
    angle = np.radians(3)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = points.mean(axis=1, keepdims=True)
    moved = (points - middle) @ turn + middle + [3, 4]
    true = np.concatenate([points.reshape(5, 16), np.full((5, 2), 100.0)], axis=1)
    found = np.concatenate([moved.reshape(5, 16), np.full((5, 2), [100.0, 102.0])], axis=1)
    expected = {"agent_px": 2, "block_px": 5, "block_deg": 3}
    for name, statistics in errors(found, true).items():
        assert statistics == pytest.approx({"mean": expected[name], "p95": expected[name]})


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"feature_dim": 16}, "makes 16 features; expected feature_dim 18"),
        ({"pooling": "average"}, "makes 128 features"),
    ],
)
def test_other_features_are_refused(vision: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PretrainConfig.of(policy(**vision), OptimisationConfig(steps=1))


def test_a_policy_without_a_camera_is_refused() -> None:
    with pytest.raises(InputError, match=r"policy\.vision is None; expected a ResNet"):
        PretrainConfig.of(tiny_config(), OptimisationConfig(steps=1))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--batch-size", "99999999"), "batch-size 99999999"),
        (("--batch-size", "0"), "batch_size"),
        (("--precision", "fp8"), "precision"),
        (("--steps", "-1"), "steps"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str], message: str
) -> None:
    config = REPOSITORY / "config" / "training" / "pusht_image.yaml"
    output = tmp_path / "run"
    arguments = ["--config", str(config), "--output", str(output), *option]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_the_shipped_configuration_can_be_pretrained() -> None:
    shipped = TrainConfig.from_yaml(REPOSITORY / "config" / "training" / "pusht_image.yaml")
    made = PretrainConfig.of(shipped.policy, OptimisationConfig(steps=1))
    assert made.image == (3, 96, 96)
    assert shipped.encoder is not None
    assert not shipped.encoder.trainable
