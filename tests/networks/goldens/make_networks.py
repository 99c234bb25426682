"""Makes `vision.safetensors` and `transformer.safetensors` with the networks of other projects.

Run with torchvision 0.28.0, lerobot 0.4.4 (the encoder is the same in commit 7427f31) and, on
the path, checkouts of real-stanford/diffusion_policy (commit 5ba07ac) and of robomimic 0.2.0, the
version that the former asks for (commit 62ed2de):

    PYTHONPATH=.:diffusion_policy:robomimic python -m tests.networks.goldens.make_networks

Weights and images follow `recipe` and are not stored. The metadata hold what a test needs
to build the same network with the names of this project.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.networks.goldens.recipe import fill, images

HERE = Path(__file__).parent
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(channels // 16, channels),
}
SIZE = (64, 80)
Network = tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], dict[str, Tensor]]
Make = Callable[[dict[str, Any]], Network]


def resnet(kind: str, norm: str) -> nn.Module:
    import torchvision

    network = getattr(torchvision.models, kind)(weights=None, norm_layer=NORMS[norm])
    network.fc = nn.Identity()
    return network


def torchvision_names(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Children of a ResNet are numbered in the order of their definition."""
    order = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    numbered = {}
    for name, tensor in state.items():
        child, rest = name.removeprefix(prefix).split(".", 1)
        numbered[f"backbone.{order.index(child)}.{rest}"] = tensor
    return numbered


def of_encoder(i: int, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"encoders.{i}.{name}": tensor for name, tensor in state.items()}


def torchvision_resnet(config: dict[str, Any]) -> Network:
    network = resnet(config["backbone"], config["norm"]).eval()
    camera = config["cameras"][0]
    state = of_encoder(0, torchvision_names(network.state_dict()))
    return lambda x: {camera: network(x[camera])}, state


def original_multi_image(config: dict[str, Any]) -> Network:
    """The encoder of the original project's image policies."""
    from diffusion_policy.model.vision.multi_image_obs_encoder import MultiImageObsEncoder

    cameras = config["cameras"]
    shape_meta = {name: {"shape": (3, *SIZE), "type": "rgb"} for name in cameras}
    encoder = MultiImageObsEncoder(
        {"obs": shape_meta},
        resnet(config["backbone"], config["norm"]),
        resize_shape=config.get("resize"),
        crop_shape=config.get("crop"),
        share_rgb_model=config["shared"],
    ).eval()
    models = ["rgb"] if config["shared"] else cameras
    state: dict[str, Tensor] = {}
    for i, name in enumerate(models):
        state |= of_encoder(i, torchvision_names(encoder.key_model_map[name].state_dict()))

    def run(x: dict[str, Tensor]) -> dict[str, Tensor]:
        features = encoder(x).chunk(len(cameras), dim=1)
        return dict(zip(encoder.rgb_keys, features, strict=True))

    return run, state


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Parameters whose name begins with a key of `names`; constants of the projects do not."""
    return {
        new + name.removeprefix(old): tensor
        for name, tensor in state.items()
        for old, new in names.items()
        if name.startswith(old)
    }


def lerobot_encoder(config: dict[str, Any]) -> Network:
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionRgbEncoder

    camera = config["cameras"][0]
    diffusion = DiffusionConfig(
        input_features={camera: PolicyFeature(FeatureType.VISUAL, (3, *SIZE))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        vision_backbone=config["backbone"],
        use_group_norm=config["norm"] == "group",
        crop_shape=config.get("crop"),
        spatial_softmax_num_keypoints=config["num_keypoints"],
    )
    # Set afterwards: together with a size, LeRobot takes only crops by a ratio.
    diffusion.resize_shape = config.get("resize")
    encoder = DiffusionRgbEncoder(diffusion).eval()
    names = {"backbone.": "backbone.", "pool.nets.": "pool.nets.", "out.": "head."}
    state = of_encoder(0, renamed(encoder.state_dict(), names))
    return lambda x: {camera: encoder(x[camera])}, state


def robomimic_core(config: dict[str, Any]) -> Network:
    """What the original project's hybrid policies make of robomimic, with its fixed crop."""
    from diffusion_policy.common.pytorch_util import replace_submodules
    from diffusion_policy.model.vision.crop_randomizer import CropRandomizer
    from robomimic.models.base_nets import VisualCore

    camera, crop = config["cameras"][0], config["crop"]
    core = VisualCore(
        (3, *crop),
        "ResNet18Conv",
        {"pretrained": False, "input_coord_conv": False},
        "SpatialSoftmax",
        {"num_kp": config["num_keypoints"], "temperature": 1.0, "noise_std": 0.0},
        feature_dimension=config["feature_dim"],
    )
    if config["norm"] == "group":
        replace_submodules(
            core, lambda m: isinstance(m, nn.BatchNorm2d), lambda m: NORMS["group"](m.num_features)
        )
    core.eval()
    randomizer = CropRandomizer((3, *SIZE), *crop).eval()
    names = {"nets.0.nets.": "backbone.", "nets.1.nets.": "pool.nets.", "nets.3.": "head."}
    state = of_encoder(0, renamed(core.state_dict(), names))
    # robomimic's observation encoder applies a ReLU to every visual core.
    return lambda x: {camera: torch.relu(core(randomizer.forward_in(x[camera])))}, state


def vision_variants() -> dict[str, tuple[Make, dict[str, Any]]]:
    variants: dict[str, tuple[Make, dict[str, Any]]] = {}
    one = {"cameras": ["front"]}
    for backbone in ("resnet18", "resnet34", "resnet50"):
        for norm in NORMS:
            kind = {"backbone": backbone, "norm": norm}
            average = {**one, **kind, "pooling": "average"}
            variants[f"torchvision {backbone} {norm}"] = torchvision_resnet, average
            keypoints = {"pooling": "spatial_softmax", "num_keypoints": 8, "feature_dim": 16}
            variants[f"lerobot {backbone} {norm}"] = lerobot_encoder, {**one, **kind, **keypoints}
    small = {**one, "backbone": "resnet18", "pooling": "spatial_softmax"}
    square = {"num_keypoints": 8, "feature_dim": 16}
    sizes = {
        "odd crop": {"crop": [41, 67]},
        "resize": {"resize": [96, 40]},
        "resize and crop": {"resize": [50, 100], "crop": [35, 97]},
    }
    for name, size in sizes.items():
        config = {**small, **square, **size, "norm": "group"}
        variants[f"lerobot {name}"] = lerobot_encoder, config
    for norm in NORMS:
        config = {**small, "norm": norm, "crop": [57, 59], "num_keypoints": 12, "feature_dim": 10}
        variants[f"robomimic {norm}"] = robomimic_core, config
    two = {"cameras": ["front", "wrist"], "backbone": "resnet18", "pooling": "average"}
    for shared in (True, False):
        size = {"resize": [72, 61], "crop": [51, 54]}
        config = {**two, **size, "norm": "group", "shared": shared}
        variants[f"original {'shared' if shared else 'separate'}"] = original_multi_image, config
    return variants


def make_vision() -> None:
    outputs, facts = {}, {}
    for seed, (name, (make, config)) in enumerate(vision_variants().items()):
        run, state = make(config)
        facts[name] = {
            "config": config,
            "seed": seed,
            "size": SIZE,
            "checksum": fill(state, seed),
            "state_names": list(state) if name.startswith("torchvision") else None,
        }
        inputs = {
            camera: images(2, *SIZE, seed=100 + i) for i, camera in enumerate(config["cameras"])
        }
        for camera, features in run(inputs).items():
            outputs[f"{name}/{camera}"] = features.contiguous()
    save_file(outputs, HERE / "vision.safetensors", {"variants": json.dumps(facts)})


def make_transformer() -> None:
    from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion

    generator = torch.Generator().manual_seed(100)
    inputs = {
        "x": torch.rand((3, 10, 3), generator=generator),
        "t": torch.tensor([0, 37, 99]),
        "condition": torch.rand((3, 4, 5), generator=generator),
    }
    outputs, facts = dict(inputs), {}
    sizes = {"action_dim": 3, "horizon": 10, "n_obs_steps": 4, "feature_dim": 5}
    for seed in range(4):
        config = {
            "n_layer": 3,
            "n_head": 4,
            "n_emb": 24,
            "causal_attn": bool(seed % 2),
            "n_cond_layers": 2 * (seed // 2),
        }
        network = TransformerForDiffusion(
            input_dim=3, output_dim=3, horizon=10, n_obs_steps=4, cond_dim=5, **config
        ).eval()
        absent = ("mask", "memory_mask", "_dummy_variable")
        state = {n: v for n, v in network.state_dict().items() if n not in absent}
        name = f"causal {config['causal_attn']}, cond layers {config['n_cond_layers']}"
        facts[name] = {
            "config": {**sizes, **config},
            "seed": seed,
            "checksum": fill(state, seed),
            "state_names": list(state),
        }
        outputs[name] = network(*inputs.values())
    save_file(outputs, HERE / "transformer.safetensors", {"variants": json.dumps(facts)})


if __name__ == "__main__":
    with torch.no_grad():
        make_vision()
        make_transformer()
