"""Records what LeRobot's `multi_task_dit` makes of small policies, for test_lerobot_dit.py.

Run with lerobot 0.6.1 and its extra `multi_task_dit`, in an environment of its own:

    PYTHONPATH=. python -m tests.checkpoints.goldens.make_lerobot_dit

Files are as those of `make_lerobot`, whose statistics and observations these are. The CLIP towers are tiny
ones of this file's own; of their folder, `{CLIP}` in the texts, its configuration and tokenizer are kept.
"""

from __future__ import annotations

import json
import string
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints.goldens.make_lerobot import (
    ACTION,
    HERE,
    STATE,
    Case,
    observations,
    statistics,
    weights,
)

TASK = "Push the T, then let go."
CLIP = "{CLIP}"
TINY = {
    "hidden_dim": 16,
    "num_layers": 2,
    "num_heads": 2,
    "timestep_embed_dim": 8,
    "horizon": 8,
    "n_action_steps": 4,
    "num_train_timesteps": 20,
    "image_crop_shape": (32, 32),
}
ONE = {STATE: (3,), "observation.image": (3, 40, 48)}
TWO = {"observation.images.wrist": (3, 40, 44), STATE: (3,), "observation.images.a": (3, 40, 44)}
FLOW = {"objective": "flow_matching", "num_integration_steps": 7}


@dataclass(frozen=True)
class DiTCase:
    """A policy: widths of its features, options, modes, and what its towers do differently."""

    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {STATE: (3,)})
    options: Mapping[str, Any] = field(default_factory=dict)
    modes: Mapping[str, str] = field(default_factory=dict)
    tower: Mapping[str, Any] = field(default_factory=dict)

    @property
    def features(self) -> Case:
        """As `make_lerobot` has them."""
        return Case("0.6.1", self.inputs, {})


CASES = {
    "dit_state": DiTCase(),
    "dit_flow": DiTCase(options={**FLOW, "use_rope": False, "use_positional_encoding": True}),
    "dit_sample": DiTCase(
        options={"prediction_type": "sample", "noise_scheduler_type": "DDIM", "n_obs_steps": 1}
        | {"num_inference_steps": 5, "clip_sample": False, "rope_base": 50.0},
        modes={"STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    ),
    "dit_camera": DiTCase(ONE, {**FLOW, "sigma_min": 0.1}),
    "dit_cameras": DiTCase(
        TWO, {"use_separate_rgb_encoder_per_camera": True, "image_resize_shape": (36, 39)}
    ),
    "dit_cameras_shared": DiTCase(
        TWO,
        {**FLOW, "image_resize_shape": (32, 32), "image_crop_shape": None, "n_obs_steps": 1},
        tower={"hidden_act": "gelu", "layer_norm_eps": 1e-3},
    ),
}


def make_clip(folder: Path, tower: Mapping[str, Any]) -> Path:
    """A CLIP with a few weights and words, as `from_pretrained` reads it."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = [*string.ascii_lowercase, *string.digits, ".", ",", "'"]
    merged = [("p", "u"), ("pu", "s"), ("pus", "h</w>"), ("t", "h"), ("th", "e</w>")]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(m) for m in merged)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    start, end = len(words) - 2, len(words) - 1
    size = {"intermediate_size": 24, "num_hidden_layers": 2, **tower}
    text = {"hidden_size": 16, "num_attention_heads": 4, "max_position_embeddings": 30}
    special = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    vision = {"hidden_size": 24, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        text_config={**text, **size, "vocab_size": len(words), **special},
        vision_config={**vision, **size},
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=merged).save_pretrained(folder)
    return folder


def build(case: DiTCase, stats: Mapping[str, Any], clip: Path) -> tuple[Any, Any, Any]:
    """The real policy, and what comes before and after it."""
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.multi_task_dit import MultiTaskDiTConfig, MultiTaskDiTPolicy

    kinds = {STATE: FeatureType.STATE}
    options: dict[str, Any] = {**TINY, **case.options}
    if case.modes:
        options["normalization_mapping"] = {
            kind: NormalizationMode(mode) for kind, mode in case.modes.items()
        }
    config = MultiTaskDiTConfig(
        input_features={
            name: PolicyFeature(kinds.get(name, FeatureType.VISUAL), shape)
            for name, shape in case.inputs.items()
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        vision_encoder_name=str(clip),
        text_encoder_name=str(clip),
        tokenizer_max_length=24,
        device="cpu",
        **options,
    )
    return MultiTaskDiTPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)


def record(case: DiTCase, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of a case, computed by LeRobot."""
    stats = statistics(case.inputs, 2)
    clip = make_clip(folder / "clip", case.tower)
    policy, before, after = build(case, stats, clip)
    policy.eval()
    shapes = {key: list(value.shape) for key, value in policy.state_dict().items()}
    policy.load_state_dict(weights(shapes))
    directory = folder / "policy"
    for part in (policy, before, after):
        part.save_pretrained(directory)
    written = load_file(directory / "model.safetensors")
    assert {key: list(value.shape) for key, value in written.items()} == shapes
    texts = {path.name: path.read_text() for path in directory.glob("*.json")}
    facts = {
        "lerobot": metadata.version("lerobot"),
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
        "files": {name: text.replace(str(clip), CLIP) for name, text in texts.items()},
        "clip": {name: (clip / name).read_text() for name in ("config.json", "tokenizer.json")},
        "shapes": shapes,
        "parameters": [key for key, _ in policy.named_parameters()],
    }
    tensors = {
        f"file/{path.name}/{key}": value
        for path in directory.glob("*processor*.safetensors")
        for key, value in load_file(path).items()
    }
    seen = observations(case.features, stats, policy.config.n_obs_steps)
    return facts, tensors | run(case, policy, before, after, seen)


@torch.no_grad()
def run(
    case: DiTCase, policy: Any, before: Any, after: Any, obs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Everything from observations to actions, as `select_action` does it."""
    config, encoder, network = policy.config, policy.observation_encoder, policy.noise_predictor
    cameras = [key for key, shape in case.inputs.items() if len(shape) == 3]
    generator = torch.Generator().manual_seed(3)
    shape = (1, config.horizon, 2)
    flows = config.objective == "flow_matching"
    t = torch.tensor([0.3, 0.9]) if flows else torch.tensor([3, 17])
    x, initial = (
        torch.randn(2, *shape[1:], generator=generator),
        torch.randn(shape, generator=generator),
    )
    count = config.num_integration_steps if flows else policy.objective.num_inference_steps
    steps = torch.randn(1, count, *shape[1:], generator=generator)
    conditions: list[Tensor] = []
    encode = encoder.encode
    encoder.encode = lambda batch: conditions.append(encode(batch)) or conditions[-1]
    for step in range(config.n_obs_steps):
        now = {key: value[None, step] for key, value in obs.items()}
        now = {key: value / 255 if key in cameras else value for key, value in now.items()}
        batch = before({**now, "task": TASK})
        # What `select_action` does until it asks for a chunk.
        batch.pop(ACTION)
        batch = policy._prepare_batch(batch)
        for key in policy._queues:
            if key in batch and key != ACTION:
                policy._queues[key].append(batch[key])
    noises = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    samples: list[Tensor] = []
    sample = policy.objective.conditional_sample
    policy.objective.conditional_sample = lambda *given: (
        samples.append(sample(*given)) or samples[-1]
    )
    with (
        mock.patch(noises, side_effect=steps[0][:, None]),
        mock.patch("torch.randn", return_value=initial),
    ):
        chunk = policy.predict_action_chunk(batch)
    tokens = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    return {
        **{f"obs/{key}": value for key, value in obs.items()},
        "tokens": tokens[0][0, : int(tokens[1].sum())].clone(),
        "features": encoder.text_encoder(*tokens)[0],
        "condition": conditions[0],
        "x": x,
        "t": t,
        "output": network(x, t, conditions[0].expand(2, -1)),
        "initial": initial,
        "steps": steps,
        "sample": samples[0],
        "actions": after(chunk)[0],
    }


if __name__ == "__main__":
    for name, described in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            facts, tensors = record(described, Path(place))
        save_file(
            {key: value.contiguous() for key, value in tensors.items()},
            HERE / f"lerobot_{name}.safetensors",
            {"golden": json.dumps(facts)},
        )
        print(name)
