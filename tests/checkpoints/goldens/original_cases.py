"""Configurations of the original project that the goldens were made with, and what is changed."""

from __future__ import annotations

SCHEDULE = ["policy.noise_scheduler.num_train_timesteps=10", "policy.num_inference_steps=10"]
_UNET = [
    "task.obs_dim=5",
    "policy.model.down_dims=[8,16]",
    "policy.model.diffusion_step_embed_dim=4",
    "policy.model.kernel_size=3",
]
_IMAGE_UNET = ["policy.down_dims=[16,32]", "policy.diffusion_step_embed_dim=8"]
_TRANSFORMER = [
    "task.obs_dim=5",
    "policy.model.n_layer=2",
    "policy.model.n_emb=8",
    "policy.model.n_head=2",
]
_ROBOMIMIC_TASK = [
    "task.shape_meta.obs.agentview_image.shape=[3,52,60]",
    "task.shape_meta.obs.robot0_eye_in_hand_image.shape=[3,52,60]",
    "task.shape_meta.action.shape=[3]",
]
# Names that sort in another order than they stand in.
_REAL_TASK = [
    "task.image_shape=[3,52,60]",
    "~task.shape_meta.obs.camera_1",
    "+task.shape_meta.obs.a_camera={shape:[3,52,60],type:rgb}",
    "+task.shape_meta.obs.a_gripper={shape:[1]}",
]
CASES: dict[str, tuple[str, list[str]]] = {
    "unet": ("train_diffusion_unet_lowdim_workspace", _UNET),
    "unet_plain": (
        "train_diffusion_unet_ddim_lowdim_workspace",
        [
            *_UNET,
            "obs_as_local_cond=False",
            "obs_as_global_cond=True",
            "policy.oa_step_convention=False",
            "policy.model.cond_predict_scale=False",
            "policy.num_inference_steps=5",
            "training.use_ema=False",
        ],
    ),
    "transformer": (
        "train_diffusion_transformer_lowdim_pusht_workspace",
        _TRANSFORMER,
    ),
    "transformer_short": (
        "train_diffusion_transformer_lowdim_pusht_workspace",
        [
            *_TRANSFORMER,
            "pred_action_steps_only=True",
            "policy.model.causal_attn=False",
            "policy.model.n_cond_layers=1",
        ],
    ),
    "hybrid": (
        "train_diffusion_unet_hybrid_workspace",
        [*_IMAGE_UNET, *_ROBOMIMIC_TASK, "policy.crop_shape=[43,48]"],
    ),
    "hybrid_transformer": (
        "train_diffusion_transformer_hybrid_workspace",
        [
            "task=pusht_image",
            "task.shape_meta.obs.image.shape=[3,44,48]",
            "policy.crop_shape=null",
            "policy.obs_encoder_group_norm=False",
            "policy.n_layer=1",
            "policy.n_emb=8",
            "policy.n_head=2",
        ],
    ),
    "image": (
        "train_diffusion_unet_real_image_workspace",
        [
            *_IMAGE_UNET,
            *_REAL_TASK,
            "policy.obs_encoder.resize_shape=[52,60]",
            "policy.obs_encoder.crop_shape=[43,48]",
        ],
    ),
    "image_shared": (
        "train_diffusion_unet_real_pretrained_workspace",
        [
            *_IMAGE_UNET,
            *_REAL_TASK,
            "policy.obs_encoder.rgb_model.weights=null",
            "policy.obs_encoder.resize_shape=[40,48]",
            "policy.obs_encoder.crop_shape=[32,32]",
            "policy.obs_encoder.use_group_norm=True",
        ],
    ),
}
