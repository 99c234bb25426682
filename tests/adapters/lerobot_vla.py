"""Small vision-language-action policies of the real LeRobot 0.6.1, with random weights, made offline.

Configurations of the language models are cut down; classes, loops and caches are LeRobot's and
transformers' own. Replaced, while a policy is made: what would come from the Hub, which is SmolVLA's
configuration and processor, and all of EVO1's vision-language model.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

CHUNK, ACTIONS, SIDE, WORDS = 8, 4, 28, 64


def _module(policy: str, name: str) -> Any:
    return importlib.import_module(f"lerobot.policies.{policy}.{name}_{policy}")


def _features() -> dict[str, Any]:
    types = importlib.import_module("lerobot.configs.types")
    feature, kind = types.PolicyFeature, types.FeatureType
    return {
        "input_features": {
            "observation.state": feature(kind.STATE, (4,)),
            "observation.images.a": feature(kind.VISUAL, (3, SIDE, SIDE)),
        },
        "output_features": {"action": feature(kind.ACTION, (ACTIONS,))},
        "device": "cpu",
        "chunk_size": CHUNK,
        "n_action_steps": CHUNK,
        "max_action_dim": 8,
        "max_state_dim": 8,
    }


def _openpi(policy: str, prefix: str, **options: Any) -> Any:
    modeling, configuration = _module(policy, "modeling"), _module(policy, "configuration")
    whole, expert = "PaliGemmaForConditionalGenerationWithPiGemma", "PiGemmaForCausalLM"
    make_whole, make_expert = getattr(modeling, whole), getattr(modeling, expert)
    size = modeling.GemmaConfig(32, 2, 64, 8, 1, 8)

    def small_whole(config: Any) -> Any:
        config.text_config.vocab_size, config.image_token_id = WORDS, WORDS - 1
        vision = config.vision_config
        vision.hidden_size, vision.intermediate_size, vision.projection_dim = 32, 64, 32
        vision.num_hidden_layers, vision.num_attention_heads, vision.patch_size = 1, 2, 14
        return make_whole(config=config)

    def small_expert(config: Any) -> Any:
        config.vocab_size = WORDS
        return make_expert(config=config)

    with mock.patch.multiple(
        modeling,
        get_gemma_config=lambda _: size,
        **{whole: small_whole, expert: small_expert},
    ):
        config = getattr(configuration, f"{prefix}Config")
        settings = {"dtype": "float32", "image_resolution": (SIDE, SIDE), **options}
        return getattr(modeling, f"{prefix}Policy")(config(**_features(), **settings))


def _smolvla(**options: Any) -> Any:
    transformers = importlib.import_module("transformers")
    inside = importlib.import_module("lerobot.policies.smolvla.smolvlm_with_expert")
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    found = transformers.SmolVLMConfig(
        text_config=sizes
        | {"model_type": "llama", "num_hidden_layers": 4, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": WORDS, "pad_token_id": 0},
        vision_config=sizes
        | {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 14},
        scale_factor=2,
        image_token_id=WORDS - 1,
    )
    tokens = SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
    with (
        mock.patch.object(inside.AutoConfig, "from_pretrained", return_value=found),
        mock.patch.object(
            inside.AutoProcessor, "from_pretrained", return_value=SimpleNamespace(tokenizer=tokens)
        ),
    ):
        config = _module("smolvla", "configuration").SmolVLAConfig(
            **_features(), num_vlm_layers=4, resize_imgs_with_padding=(SIDE, SIDE), **options
        )
        return _module("smolvla", "modeling").SmolVLAPolicy(config)


def _eo1(**options: Any) -> Any:
    qwen = importlib.import_module("transformers.models.qwen2_5_vl.configuration_qwen2_5_vl")
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    language = qwen.Qwen2_5_VLConfig(
        text_config=sizes
        | {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
        | {"vocab_size": WORDS, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
        vision_config=sizes
        | {"depth": 1, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14}
        | {"fullatt_block_indexes": [0], "window_size": SIDE},
        image_token_id=60,
        video_token_id=61,
        vision_start_token_id=58,
        vision_end_token_id=59,
    )
    config = _module("eo1", "configuration").EO1Config(
        **_features(),
        vlm_config=language.to_dict(),
        dtype="float32",
        pretrained_path="none",  # made from vlm_config, with no weights of the Hub
        **options,
    )
    return _module("eo1", "modeling").EO1Policy(config)


class _Fused(nn.Module):
    """In place of EVO1's InternVL3, which LeRobot makes from the Hub alone."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        parts = ("language_model", "vision_tower", "multi_modal_projector")
        self.model = nn.ModuleDict({name: nn.Linear(3 * SIDE * SIDE, 32) for name in parts})

    def get_fused_image_text_embedding_batched(
        self, camera_images: list[Tensor], **_: Any
    ) -> tuple[Tensor, Tensor]:
        token = self.model["vision_tower"](camera_images[0].flatten(1))[:, None]
        mask = torch.ones(len(token), 3, dtype=torch.bool)
        mask[1::2, 2] = False
        return torch.cat([token, 2 * token, 3 * token], dim=1), mask


def _evo1(**options: Any) -> Any:
    model = importlib.import_module("lerobot.policies.evo1.evo1_model")
    sizes = {"embed_dim": 32, "hidden_dim": 32, "state_hidden_dim": 32}
    with mock.patch.object(model, "InternVL3Embedder", _Fused):
        config = _module("evo1", "configuration").Evo1Config(
            **_features(),
            **sizes,
            num_heads=2,
            num_layers=2,
            image_resolution=(SIDE, SIDE),
            **options,
        )
        return _module("evo1", "modeling").Evo1Policy(config)


MAKERS: dict[str, Callable[..., Any]] = {
    "pi0": lambda **options: _openpi("pi0", "PI0", **options),
    "pi05": lambda **options: _openpi("pi05", "PI05", **options),
    "smolvla": _smolvla,
    "eo1": _eo1,
    "evo1": _evo1,
}
STEPS = {
    "pi0": "num_inference_steps",
    "pi05": "num_inference_steps",
    "smolvla": "num_steps",
    "eo1": "num_denoise_steps",
    "evo1": "num_inference_timesteps",
}
"""Option with the number of steps."""


def make(kind: str, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return MAKERS[kind](**options).eval()


def batch(kind: str, size: int = 2, seed: int = 0) -> dict[str, Any]:
    """Observations as the policy's preprocessor gives them; prompts of odd samples are shorter."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> Tensor:
        return torch.randint(5, 50, (size, count), generator=generator)

    state = torch.randn(size, 4, generator=generator)
    if kind == "eo1":
        span = [58, 60, 60, 60, 60, 59]  # one image of 4 x 4 patches
        ids = torch.cat(
            [
                words(3),
                torch.tensor(span).expand(size, -1),
                words(3),
                torch.tensor([56, *[57] * CHUNK]).expand(size, -1),
            ],
            dim=1,
        )
        mask = torch.ones_like(ids)
        mask[1::2, :2] = 0
        return {
            "observation.state": state,
            "input_ids": ids,
            "attention_mask": mask,
            "pixel_values": torch.randn(size * 16, 3 * 2 * 14 * 14, generator=generator),
            "image_grid_thw": torch.tensor([[1, 4, 4]] * size),
            "mm_token_type_ids": (ids == 60).int(),
            "state_token_id": 56,
            "action_token_id": 57,
        }
    images = torch.rand(size, 3, SIDE, SIDE, generator=generator)
    prompt = torch.ones(size, 6, dtype=torch.bool)
    prompt[1::2, 4:] = False
    return {
        "observation.state": state,
        "observation.images.a": images,
        "observation.language.tokens": words(6),
        "observation.language.attention_mask": prompt,
        "task": ["pick"] * size,
    }
