"""`accelerate` on LeRobot's real `multi_task_dit`. Runs where LeRobot is installed; skipped elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy.adapters import accelerate
from para_policy.adapters.conventions import recognise
from para_policy.checkpoints.files import weights_sha256
from para_policy.errors import InputError
from tests.checkpoints.goldens.make_lerobot import STATE, statistics
from tests.checkpoints.goldens.make_lerobot_dit import FLOW, ONE, DiTCase, build, make_clip
from tests.networks.goldens.recipe import fill

pytest.importorskip("lerobot.policies.multi_task_dit")

OBJECTIVES: dict[str, dict[str, Any]] = {
    "DDPM": {"num_train_timesteps": 40},
    "DDIM": {"noise_scheduler_type": "DDIM", "num_train_timesteps": 40, "num_inference_steps": 10},
    "flow": {**FLOW, "num_integration_steps": 40},
    "flow to noise": {**FLOW, "num_integration_steps": 40, "sigma_min": 0.1},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("towers") / "clip", {})


def make(clip: Path, inputs: dict[str, tuple[int, ...]] | None = None, **options: Any) -> Any:
    case = DiTCase(inputs or {STATE: (3,)}, options)
    policy = build(case, statistics(case.inputs, 2), clip)[0].eval()
    with torch.no_grad():
        fill(policy.state_dict(), seed=0)
        for block in policy.noise_predictor.transformer_blocks:  # moderate, as if it were trained
            block.adaLN_modulation[1].weight *= 0.2
        policy.noise_predictor.output_proj.weight *= 0.3
    return policy


def drive(policy: Any, steps: int = 12) -> Tensor:
    """(steps, 1, 2) actions, with noise from torch's global generator."""
    generator = torch.Generator().manual_seed(99)
    torch.manual_seed(1)
    policy.reset()
    tokens = torch.tensor([[83, 20, 84]])
    text = {
        "observation.language.tokens": tokens,
        "observation.language.attention_mask": tokens > 0,
    }
    frames = [
        {
            name: torch.rand(1, *feature.shape, generator=generator)
            for name, feature in policy.config.input_features.items()
        }
        for _ in range(steps)
    ]
    return torch.stack([policy.select_action({**frame, **text}) for frame in frames])


@pytest.mark.parametrize("sampler", ["sequential", "x0"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_select_action_is_the_same(objective: str, sampler: str, clip: Path) -> None:
    policy = make(clip, **OBJECTIVES[objective])
    expected = drive(policy)
    assert expected.std() > 0.05, "nothing to see"
    after = torch.get_rng_state()
    accelerate(policy, sampler=sampler, **({} if sampler == "sequential" else {"tolerance": 1e-5}))
    found = drive(policy)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), after)
    last = policy.para_policy.last
    if sampler == "x0":
        assert last.converged.all()
        assert int(last.rounds) < policy.objective.config.num_integration_steps
    policy.para_policy.undo()
    assert torch.equal(drive(policy), expected)


def test_images_are_the_policys_own_matter(clip: Path) -> None:
    policy = make(clip, ONE, **OBJECTIVES["flow"])
    expected = drive(policy, 6)
    found = drive(accelerate(policy, tolerance=1e-5), 6)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_change_of_the_policy_is_followed(clip: Path) -> None:
    policy = make(clip, **OBJECTIVES["flow"])
    policy.config.num_integration_steps = 20
    expected = drive(policy)
    policy.config.num_integration_steps = 40
    accelerate(policy, tolerance=1e-5)
    drive(policy)
    policy.config.num_integration_steps = 20
    torch.testing.assert_close(drive(policy), expected, rtol=0, atol=1e-4)


def test_runge_kutta_is_refused_with_the_way_out(clip: Path) -> None:
    policy = make(clip, **{**FLOW, "integration_method": "rk4"})
    with pytest.raises(InputError, match=r"rk4, which asks the network between .* = 'euler'"):
        accelerate(policy)


def test_a_calibration_belongs_to_the_weights_of_network_and_cameras(clip: Path) -> None:
    policy = make(clip, ONE, **FLOW)
    weights = recognise(policy).weights()
    assert {name.split(".")[0] for name in weights} == {
        *("vision", "time_mlp", "input_proj", "transformer_blocks", "output_proj")
    }
    before = weights_sha256(weights)
    with torch.no_grad():
        policy.noise_predictor.output_proj.bias += 1
    assert weights_sha256(recognise(policy).weights()) != before
