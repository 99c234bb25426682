"""`accelerate` on the real LeRobot policy. Runs where `lerobot` is installed; skipped elsewhere.

LeRobot is no dependency of the tests: it pins versions of torch that they do not need. The stand-ins of
`tests/adapters/test_accelerate.py` have its loop; this file shows that they still do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from para_policy import load_policy
from para_policy.adapters import accelerate
from para_policy.checkpoints.calibration import save_calibration
from para_policy.checkpoints.files import weights_sha256
from para_policy.checkpoints.lerobot.read import read_lerobot

modeling = pytest.importorskip("lerobot.policies.diffusion.modeling_diffusion")
configuration = pytest.importorskip("lerobot.policies.diffusion.configuration_diffusion")
processors = pytest.importorskip("lerobot.policies.diffusion.processor_diffusion")
types = pytest.importorskip("lerobot.configs.types")


def make(*, images: bool = False, **options: Any) -> Any:
    feature, kind = types.PolicyFeature, types.FeatureType
    inputs = {
        "observation.state": feature(kind.STATE, (2,)),
        "observation.environment_state": feature(kind.ENV, (16,)),
    }
    if images:
        inputs = {
            "observation.state": feature(kind.STATE, (2,)),
            "observation.image": feature(kind.VISUAL, (3, 32, 32)),
        }
        options |= {"crop_shape": (28, 28), "spatial_softmax_num_keypoints": 4}
        # The defaults of 0.6 are downloaded.
        options |= {"pretrained_backbone_weights": None, "use_group_norm": True}
    config = configuration.DiffusionConfig(
        input_features=inputs,
        output_features={"action": feature(kind.ACTION, (2,))},
        down_dims=(16, 32, 32),
        diffusion_step_embed_dim=16,
        n_groups=4,
        device="cpu",
        **options,
    )
    torch.manual_seed(0)
    return modeling.DiffusionPolicy(config).eval()


def drive(policy: Any, steps: int = 20, seed: int = 1) -> Tensor:
    """(steps, 1, 2) actions, with noise from torch's global generator."""
    generator = torch.Generator().manual_seed(99)
    torch.manual_seed(seed)
    policy.reset()
    return torch.stack([policy.select_action(frame) for frame in frames(policy, steps, generator)])


def frames(policy: Any, count: int, generator: torch.Generator) -> list[dict[str, Tensor]]:
    """Observations as LeRobot's preprocessor gives them: normalised, with a batch axis."""
    return [
        {
            name: torch.rand(1, *feature.shape, generator=generator)
            for name, feature in policy.config.input_features.items()
        }
        for _ in range(count)
    ]


def save(policy: Any, directory: Path) -> None:
    """Weights, configuration and statistics, as training saves them."""
    policy.save_pretrained(directory)
    features = {**policy.config.input_features, **policy.config.output_features}
    values = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.25}
    statistics = {
        name: {
            what: torch.full((feature.shape[0], *[1] * (len(feature.shape) - 1)), value)
            for what, value in values.items()
        }
        for name, feature in features.items()
    }
    for processor in processors.make_diffusion_pre_post_processors(policy.config, statistics):
        processor.save_pretrained(directory)


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("sampler", ["sequential", "x0", "chord"])
def test_select_action_is_the_same(kind: str, images: bool, sampler: str) -> None:
    steps = 100 if kind == "DDPM" else 16
    policy = make(images=images, noise_scheduler_type=kind, num_inference_steps=steps)
    expected = drive(policy)
    after = torch.get_rng_state()
    given: dict[str, Any] = {} if sampler == "sequential" else {"tolerance": 1e-4}
    if sampler == "chord":
        given["observations"] = frames(policy, 40, torch.Generator().manual_seed(5))
    accelerate(policy, sampler=sampler, **given)
    found = drive(policy)
    assert float((found - expected).abs().max()) < (1e-5 if sampler == "sequential" else 1e-3)
    assert torch.equal(torch.get_rng_state(), after)
    policy.para_policy.undo()
    assert torch.equal(drive(policy), expected)


@pytest.mark.parametrize("images", [False, True])
def test_a_calibration_serves_the_checkpoint_and_the_live_policy(
    images: bool, tmp_path: Path
) -> None:
    policy = make(images=images, noise_scheduler_type="DDIM", num_inference_steps=8)
    save(policy, tmp_path)
    given = frames(policy, 100, torch.Generator().manual_seed(5))
    accelerate(policy, "chord", observations=given, calibration=tmp_path)
    policy.para_policy.undo()
    loaded = load_policy(tmp_path)
    held = loaded.calibrations["ddim", 8]
    save_calibration(
        tmp_path, held, weights_sha256(loaded.weights()), loaded.config.noise_scheduler
    )
    accelerate(policy, "chord", calibration=tmp_path)
    assert torch.equal(policy.para_policy.calibration.matrices, held.matrices)
    assert read_lerobot(tmp_path).weights_sha256 == weights_sha256(loaded.weights())


def test_autocast_gives_the_actions_of_lerobot_s_own_loop() -> None:
    """Its noise is drawn in half precision there."""
    policy = make()

    def driven() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return drive(policy)

    expected = driven()
    accelerate(policy, tolerance=1e-3)
    assert float((driven() - expected).abs().max()) < 0.05


def test_rollout_compiles_the_chunk() -> None:
    policy = make(noise_scheduler_type="DDIM", num_inference_steps=8)
    expected = drive(policy)
    accelerate(policy, tolerance=1e-4)
    policy.predict_action_chunk = torch.compile(policy.predict_action_chunk, backend="eager")
    assert float((drive(policy) - expected).abs().max()) < 1e-3


def test_what_is_saved_is_the_plain_policy(tmp_path: Path) -> None:
    policy = accelerate(make())
    policy.save_pretrained(tmp_path)
    loaded = make()
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert set(policy.state_dict()) == set(loaded.state_dict())
