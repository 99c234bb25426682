"""Every option of an original configuration is used, has no effect, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from para_policy.checkpoints.original.config import convert
from para_policy.checkpoints.original.unpickle import plain, read_pickle
from para_policy.errors import CheckpointError
from tests.checkpoints.original_goldens import checkpoint_without_weights

GIVEN = Path("given.ckpt")


def cfg_of(name: str, folder: Path) -> dict[str, Any]:
    path = checkpoint_without_weights(name, folder)
    cfg: dict[str, Any] = plain(path, read_pickle(path)["cfg"])
    return cfg


def changed(cfg: dict[str, Any], option: str, value: object) -> dict[str, Any]:
    *parents, last = option.split(".")
    inner = cfg
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return cfg


def test_features_of_images_come_first_and_sorted_in_a_multi_image_encoder(tmp_path: Path) -> None:
    config, seen = convert(GIVEN, cfg_of("image", tmp_path))
    assert list(config.inputs) == ["a_camera", "camera_3", "a_gripper", "robot_eef_pose"]
    assert config.cameras == ("a_camera", "camera_3")
    assert seen.imagenet_norm
    assert config.vision is not None
    assert (config.vision.norm, config.vision.crop, config.vision.shared) == (
        "group",
        (43, 48),
        False,
    )


@pytest.mark.filterwarnings("ignore:images are scaled down")
def test_options_of_a_shared_encoder_that_the_original_ignores_are_ignored(tmp_path: Path) -> None:
    config, _ = convert(GIVEN, cfg_of("image_shared", tmp_path))
    assert config.vision is not None
    # use_group_norm and crop_shape are set, but have no effect there.
    assert (config.vision.norm, config.vision.crop, config.vision.shared) == ("batch", None, True)


def test_robomimic_features_stand_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    cfg = cfg_of("hybrid", tmp_path)
    assert list(convert(GIVEN, cfg)[0].inputs) == list(cfg["policy"]["shape_meta"]["obs"])
    assert convert(GIVEN, cfg)[0].control_hz == 20.0


def test_random_crops_in_evaluation_are_warned_of(tmp_path: Path) -> None:
    cfg = changed(cfg_of("hybrid", tmp_path), "policy.eval_fixed_crop", False)
    with pytest.warns(UserWarning, match="eval_fixed_crop is False.*actions differ"):
        convert(GIVEN, cfg)


def test_images_that_torchvision_scaled_differently_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"resize_shape \(40, 48\).*torchvision 0.13"):
        convert(GIVEN, cfg_of("image_shared", tmp_path))


REFUSED = [
    ("unet", "policy._target_", "umi.policy.DiffusionUnetTimmPolicy", "DiffusionUnetTimmPolicy"),
    ("unet", "policy.obs_as_global_cond", False, "obs_as_global_cond is False.*in-paint"),
    ("unet", "policy.obs_as_local_cond", True, "obs_as_local_cond is True"),
    ("unet", "policy.model.local_cond_dim", 5, "local_cond_dim is 5"),
    ("unet", "policy.model._target_", "other.ConditionalUnet1D", "model._target_ is 'other"),
    ("unet", "policy.eta", 0.5, "eta is 0.5"),
    ("unet", "policy.guidance", 2.0, "guidance is 2.0: .*not permitted"),
    ("unet", "policy.horizon", "${horizon}", r"horizon is '\$\{horizon\}'"),
    ("unet", "policy.horizon", 15, "horizon is 15; .*divisible"),
    (
        "unet",
        "policy.noise_scheduler._target_",
        "diffusers.EulerDiscreteScheduler",
        "EulerDiscrete",
    ),
    ("unet", "policy.noise_scheduler._target_", "mine.DDPMScheduler", "mine.DDPMScheduler"),
    ("unet", "policy.noise_scheduler.colour", "red", "no option .*colour"),
    ("unet", "policy.noise_scheduler.beta_schedule", "wavy", "cannot make this.*wavy"),
    ("unet", "policy.noise_scheduler._partial_", True, "_partial_"),
    ("unet", "policy", None, "holds the policy None"),
    ("transformer", "policy.obs_as_cond", False, "obs_as_cond is False.*in-paint"),
    ("transformer", "policy.model.time_as_cond", False, "time_as_cond is False.*encoder-only"),
    ("transformer", "policy.model.n_obs_steps", 3, "n_obs_steps 3 is not n_obs_steps 2"),
    ("transformer", "policy.model.horizon", 20, "20 positions and a causal mask"),
    ("transformer", "policy.model.horizon", 12, "12 positions"),
    ("hybrid", "policy.shape_meta.obs.robot0_eef_pos.type", "depth", "obs.robot0_eef_pos.type"),
    ("hybrid", "policy.shape_meta.obs.robot0_eef_pos.horizon", 2, "robot0_eef_pos.horizon is 2"),
    ("hybrid", "policy.shape_meta.obs.agentview_image.shape", [1, 52, 60], r"\(1, 52, 60\)"),
    ("image", "policy.obs_encoder._target_", "other.Encoder", "obs_encoder._target_ is 'other"),
    ("image", "policy.obs_encoder.rgb_model.name", "vit_b_16", "rgb_model.name is 'vit_b_16'"),
    ("image", "policy.obs_encoder.rgb_model.progress", True, "rgb_model.progress"),
    ("image", "policy.obs_encoder.crop_shape", {"a_camera": [8, 8]}, "one size for all cameras"),
    (
        "image",
        "policy.shape_meta.action.shape",
        [3],
        "obs_encoder.shape_meta and shape_meta differ",
    ),
]


@pytest.mark.parametrize(("name", "option", "value", "words"), REFUSED)
def test_options_that_cannot_be_converted_are_refused_by_name(
    name: str, option: str, value: object, words: str, tmp_path: Path
) -> None:
    cfg = changed(cfg_of(name, tmp_path), option, value)
    with pytest.raises(CheckpointError, match=words):
        convert(GIVEN, cfg)


def test_options_without_effect_are_accepted() -> None:
    cfg = changed(
        changed(cfg_of("unet", GIVEN), "policy.eta", 0), "policy.num_inference_steps", None
    )
    assert convert(GIVEN, cfg)[0].num_inference_steps is None


def test_crops_given_for_each_camera_may_be_equal(tmp_path: Path) -> None:
    crops = {"a_camera": [43, 48], "camera_3": [43, 48]}
    cfg = changed(cfg_of("image", tmp_path), "policy.obs_encoder.crop_shape", crops)
    vision = convert(GIVEN, cfg)[0].vision
    assert vision is not None
    assert vision.crop == (43, 48)
