"""What is stored beside a checkpoint is what its policy observed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from para_policy.checkpoints.native import save_checkpoint
from para_policy.checkpoints.observations import OBSERVATIONS_FILE, read_observations
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.training.behaviour_cloning import IMAGES, ObservedNetwork
from sim import record_observations
from sim.pusht.env import PushT
from sim.record_observations import main
from tests.checkpoint import save_tiny_checkpoint, tiny_config


def test_where_nothing_can_be_stored_nothing_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_observations, "rollout", pytest.fail)
    checkpoint = save_tiny_checkpoint(tmp_path / "checkpoint", 8)
    (checkpoint / OBSERVATIONS_FILE).mkdir()
    assert main([str(checkpoint)]) == 2
    assert "is a folder; expected a file name" in capsys.readouterr().err
    (checkpoint / OBSERVATIONS_FILE).rmdir()
    (checkpoint / OBSERVATIONS_FILE).write_text("those of others")
    assert main([str(checkpoint)]) == 2
    assert "is there already; delete it to record anew" in capsys.readouterr().err


def test_images_are_stored_as_bytes(tmp_path: Path) -> None:
    changes = {
        "inputs": {"image": (3, 40, 40), "agent_pos": (2,), "environment_state": (16,)},
        "vision": {"cameras": ["image"], "num_keypoints": 4},
        "num_inference_steps": 2,
    }
    config = PolicyConfig.model_validate({**tiny_config(8).model_dump(), **changes})
    board = {
        name: LinearNormalizer(torch.full((width,), 2 / 512), torch.full((width,), -1.0))
        for name, width in (("agent_pos", 2), ("environment_state", 16), ("action", 2))
    }
    save_checkpoint(tmp_path, config, ObservedNetwork(config).weights(), board | {"image": IMAGES})
    assert main([str(tmp_path), "--count", "5", "--episodes", "1"]) == 0
    seen = read_observations(tmp_path, config)
    assert {name: (value.shape, value.dtype) for name, value in seen.items()} == {
        "image": ((5, 2, 3, 40, 40), np.uint8),
        "agent_pos": ((5, 2, 2), np.float32),
        "environment_state": ((5, 2, 16), np.float32),
    }
    # The agent, at the pixel where it is said to be, is drawn in a light blue.
    for image, (x, y) in zip(
        seen["image"].reshape(10, 3, 40, 40), seen["agent_pos"].reshape(10, 2), strict=True
    ):
        red, _, blue = image[:, int(y * 40 / 512), int(x * 40 / 512)].astype(int)
        assert blue > red + 40
    assert PushT(config.inputs).observation().keys() == seen.keys()
