"""One calibration for a checkpoint and for the live policy that was loaded from it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from para_policy import accelerate, load_policy
from para_policy.adapters.conventions import recognise
from para_policy.checkpoints.calibration import save_calibration
from para_policy.checkpoints.files import weights_sha256
from para_policy.checkpoints.lerobot.read import read_lerobot
from para_policy.checkpoints.native import save_checkpoint
from para_policy.diffusion.schedulers import build_scheduler
from para_policy.errors import CheckpointError
from tests.adapters.peer_policies import LeRobotModel, LeRobotPolicy, OriginalPolicy
from tests.checkpoints.test_lerobot import save


class TheirUnet(nn.Module):
    """Our network, with LeRobot's arguments, and the names that weights have in LeRobot's file."""

    def __init__(self, network: nn.Module, stored: dict[str, Tensor]) -> None:
        super().__init__()
        self.network, self._stored = network, stored

    def forward(self, x: Tensor, t: Tensor, global_cond: Tensor) -> Tensor:
        output: Tensor = self.network(x, t, global_cond)
        return output

    def state_dict(self, *, destination: Any, prefix: str, keep_vars: bool) -> Any:  # type: ignore[override]
        destination.update(
            {prefix + name.removeprefix("diffusion.unet."): v for name, v in self._stored.items()}
        )


def lerobot_policy(directory: Path) -> LeRobotPolicy:
    """What LeRobot would load from a directory, with states only."""
    loaded = load_policy(directory, calibrated=False)
    config = loaded.config
    policy = LeRobotPolicy(build_scheduler(config.noise_scheduler))
    model: LeRobotModel = policy.diffusion
    action = SimpleNamespace(shape=(config.action_dim,))
    model.config = SimpleNamespace(horizon=config.horizon, action_feature=action)
    stored = load_file(directory / "model.safetensors")
    unet = {name: value for name, value in stored.items() if name.startswith("diffusion.unet.")}
    model.unet = TheirUnet(loaded.network, unet)  # type: ignore[assignment]
    model.num_inference_steps = loaded.process().num_steps
    return policy.eval()


def conditions(directory: Path, count: int = 12) -> list[dict[str, Tensor]]:
    """Frames of which the stand-in makes conditions as wide as the policy's."""
    config = load_policy(directory, calibrated=False).config
    generator = torch.Generator().manual_seed(5)
    width = config.condition_dim // config.n_obs_steps
    return [{"observation.state": torch.rand(1, width, generator=generator)} for _ in range(count)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("states", tmp_path_factory.mktemp("lerobot"))


def test_a_live_policy_s_calibration_serves_the_checkpoint(directory: Path) -> None:
    policy = lerobot_policy(directory)
    accelerate(policy, "chord", observations=conditions(directory), calibration=directory)
    loaded = load_policy(directory)
    held = policy.para_policy.calibration
    found = loaded.calibrations[held.scheduler, held.steps]
    assert torch.equal(found.matrices, held.matrices)
    inputs = {
        name: np.zeros((loaded.config.n_obs_steps, *shape))
        for name, shape in loaded.config.inputs.items()
    }
    assert loaded.sample(inputs, sampler="chord").stats.converged


def test_a_checkpoint_s_calibration_serves_the_live_policy(directory: Path, tmp_path: Path) -> None:
    """Whose scheduler says every option, where the configuration leaves out defaults."""
    policy = lerobot_policy(directory)
    accelerate(policy, "chord", observations=conditions(directory))
    measured, loaded = policy.para_policy.calibration, load_policy(directory, calibrated=False)
    save_calibration(
        tmp_path, measured, weights_sha256(loaded.weights()), loaded.config.noise_scheduler
    )
    live = accelerate(lerobot_policy(directory), "chord", calibration=tmp_path)
    assert torch.equal(live.para_policy.calibration.matrices, measured.matrices)


def test_weights_have_one_hash_whoever_holds_them(directory: Path) -> None:
    checkpoint = read_lerobot(directory)
    policy = lerobot_policy(directory)
    assert weights_sha256(recognise(policy).weights()) == checkpoint.weights_sha256
    assert weights_sha256(load_policy(directory).weights()) == checkpoint.weights_sha256
    with torch.no_grad():
        changed = {name: value.clone() for name, value in checkpoint.state.items()}
        next(iter(changed.values())).flatten()[0] += 1e-3
    assert weights_sha256(changed) != checkpoint.weights_sha256
    renamed = {f"other.{name}": value for name, value in checkpoint.state.items()}
    assert weights_sha256(renamed) != checkpoint.weights_sha256


def test_an_original_policy_shares_it_with_its_conversion(directory: Path, tmp_path: Path) -> None:
    loaded = load_policy(directory, calibrated=False)

    class Policy(OriginalPolicy):
        def conditional_sample(
            self,
            condition_data: Tensor,
            condition_mask: Tensor,
            local_cond: Tensor | None = None,
            global_cond: Tensor | None = None,
            generator: torch.Generator | None = None,
            **kwargs: Any,
        ) -> Tensor:
            raise NotImplementedError

    save_checkpoint(tmp_path, loaded.config, loaded.weights(), loaded.normalizers)
    policy = Policy(loaded.network, build_scheduler(loaded.config.noise_scheduler))
    found = weights_sha256(recognise(policy).weights())
    assert found == weights_sha256(load_policy(tmp_path).weights())


def test_other_weights_and_schedules_are_refused(directory: Path, tmp_path: Path) -> None:
    policy = lerobot_policy(directory)
    accelerate(policy, "chord", observations=conditions(directory), calibration=tmp_path)
    save("states", tmp_path, seed=1)
    with pytest.raises(CheckpointError, match="other weights"):
        load_policy(tmp_path)
    with pytest.raises(CheckpointError, match="other weights"):
        accelerate(lerobot_policy(tmp_path), "chord", calibration=tmp_path)
