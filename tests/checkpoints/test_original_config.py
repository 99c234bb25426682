"""Every option of an original configuration is used, has no effect, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from para_policy.checkpoints.original.config import convert
from para_policy.checkpoints.original.unpickle import plain, read_pickle
from para_policy.errors import CheckpointError
from para_policy.policies.build import state_shapes
from para_policy.policies.config import PolicyConfig
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoints.original_goldens import checkpoint_without_weights
from tests.checkpoints.random_weights import random_normalizers, random_weights

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
    ("unet", "policy.guidance", 2.0, "guidance is 2.0: .*not permitted.*--set policy.KEY=VALUE"),
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


def test_more_actions_than_there_are_means_all_of_them() -> None:
    """There, `action_pred[:, start:end]` gives what there is."""
    cfg = cfg_of("unet", GIVEN)
    horizon = cfg["policy"]["horizon"]
    with pytest.warns(
        UserWarning, match=rf"n_action_steps {horizon}, but of the horizon {horizon} only"
    ):
        config, _ = convert(GIVEN, changed(cfg, "policy.n_action_steps", horizon))
    assert config.n_action_steps == horizon - config.first_action < horizon


def test_notes_of_others_in_shape_meta_are_not_read(tmp_path: Path) -> None:
    expected = convert(GIVEN, cfg_of("hybrid", tmp_path))
    cfg = cfg_of("hybrid", tmp_path)
    for place in ("obs.robot0_eef_pos", "action", "obs.agentview_image"):
        changed(cfg, f"policy.shape_meta.{place}.horizon", 2)
        changed(cfg, f"policy.shape_meta.{place}.rotation_rep", "rotation_6d")
    assert convert(GIVEN, changed(cfg, "policy.shape_meta.notes", "a task")) == expected


@pytest.mark.parametrize("name", ["hybrid", "hybrid_transformer", "image"])
def test_policies_of_images_may_have_no_camera(name: str, tmp_path: Path) -> None:
    cfg = cfg_of(name, tmp_path)
    obs = cfg["policy"]["shape_meta"]["obs"]
    vectors = {key: entry for key, entry in obs.items() if entry.get("type") != "rgb"}
    changed(cfg, "policy.shape_meta.obs", vectors)
    if name == "image":
        changed(cfg, "policy.obs_encoder.shape_meta", cfg["policy"]["shape_meta"])
        changed(cfg, "policy.obs_encoder.imagenet_norm", False)
    config, seen = convert(GIVEN, cfg)
    assert (config.vision, seen.names, config.cameras) == (None, {}, ())
    assert set(config.inputs) == set(vectors)
    assert config.feature_dim == sum(entry["shape"][0] for entry in vectors.values())
    assert_runs(config)


def assert_runs(config: PolicyConfig) -> None:
    policy = DiffusionPolicy(config, random_weights(config), random_normalizers(config))
    shapes = {name: (config.n_obs_steps, *shape) for name, shape in config.inputs.items()}
    result = policy.sample({name: np.zeros(s) for name, s in shapes.items()}, sampler="x0")
    assert result.actions.shape == (config.n_action_steps, config.action_dim)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("image", "policy.obs_encoder.rgb_model.name", "resnet101"),
        ("image", "policy.obs_encoder.rgb_model.name", "resnet152"),
        ("unet", "policy.model.down_dims", [16]),
        ("unet", "policy.noise_scheduler.beta_schedule", "sigmoid"),
        (
            "unet_plain",
            "policy.noise_scheduler._target_",
            "diffusers.schedulers.scheduling_ddim_parallel.DDIMParallelScheduler",
        ),
        ("unet", "policy.noise_scheduler._target_", "diffusers.DDPMParallelScheduler"),
    ],
)
def test_what_the_original_project_can_run_can_be_converted(
    name: str, option: str, value: object, tmp_path: Path
) -> None:
    config, _ = convert(GIVEN, changed(cfg_of(name, tmp_path), option, value))
    assert state_shapes(config)
    if not config.cameras:
        assert_runs(config)


def test_crops_given_for_each_camera_may_be_equal(tmp_path: Path) -> None:
    crops = {"a_camera": [43, 48], "camera_3": [43, 48]}
    cfg = changed(cfg_of("image", tmp_path), "policy.obs_encoder.crop_shape", crops)
    vision = convert(GIVEN, cfg)[0].vision
    assert vision is not None
    assert vision.crop == (43, 48)
