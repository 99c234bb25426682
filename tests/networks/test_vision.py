"""Image encoders compute what torchvision, LeRobot, robomimic and the original project do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.networks import vision
from para_policy.networks.config import VisionConfig
from para_policy.networks.vision import VisionEncoder
from tests.networks.goldens.recipe import fill, images

GOLDENS = Path(__file__).parent / "goldens" / "vision.safetensors"


def variants() -> dict[str, dict[str, Any]]:
    with safe_open(GOLDENS, "pt") as file:
        return json.loads(file.metadata()["variants"])


VARIANTS = variants()


def encoder(seed: int = 0, **config: Any) -> VisionEncoder:
    """With moderate weights, in evaluation mode."""
    network = VisionEncoder(VisionConfig(**{"cameras": ("front",), **config})).eval()
    fill(network.state_dict(), seed)
    return network


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_features_are_those_of_the_other_projects(name: str) -> None:
    facts = VARIANTS[name]
    network = VisionEncoder(VisionConfig(**facts["config"])).eval()
    assert fill(network.state_dict(), facts["seed"]) == pytest.approx(facts["checksum"], rel=1e-9)
    cameras = network.config.cameras
    features = network({c: images(2, *facts["size"], seed=100 + i) for i, c in enumerate(cameras)})
    with safe_open(GOLDENS, "pt") as file:
        for camera in cameras:
            expected = file.get_tensor(f"{name}/{camera}")
            assert expected.std() > 0.05, "nothing to see"
            assert features[camera].shape == (2, network.config.width)
            torch.testing.assert_close(features[camera], expected, rtol=1e-5, atol=1e-5)


def test_the_goldens_cover_every_backbone_norm_and_pooling() -> None:
    kinds = {
        tuple(v["config"][k] for k in ("backbone", "norm", "pooling")) for v in VARIANTS.values()
    }
    assert len(kinds) == 3 * 2 * 2


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name]["state_names"]])
def test_state_names_follow_the_children_of_torchvisions_resnet(name: str) -> None:
    with torch.device("meta"):
        network = VisionEncoder(VisionConfig(**VARIANTS[name]["config"]))
    assert list(network.state_dict()) == VARIANTS[name]["state_names"]


def test_state_names_of_pool_and_head() -> None:
    state = encoder(num_keypoints=3, feature_dim=5).state_dict()
    shapes = {n: tuple(v.shape) for n, v in state.items() if "backbone" not in n}
    assert shapes == {
        "encoders.0.pool.nets.weight": (3, 512, 1, 1),
        "encoders.0.pool.nets.bias": (3,),
        "encoders.0.head.weight": (5, 6),
        "encoders.0.head.bias": (5,),
    }


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_narrower_backbone_has_the_same_layers(backbone: str) -> None:
    """Every number of channels, but for those of the image, is a quarter."""
    full, narrow = (
        encoder(backbone=backbone, pooling="average", **config)
        for config in ({}, {"base_channels": 16})
    )
    assert narrow.config.width == full.config.width // 4
    for name, value in narrow.state_dict().items():
        expected = [n if n in (1, 3, 7) else n // 4 for n in full.state_dict()[name].shape]
        assert list(value.shape) == expected, name
    x = {"front": images(2, 64, 64, seed=1)}
    assert narrow(x)["front"].shape == (2, narrow.config.width)


def test_widths_that_groups_do_not_divide_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"base_channels.*\n.*multiple of 16"):
        VisionConfig(cameras=("front",), base_channels=24)


@torch.no_grad()
def test_positions_are_not_rounded_under_autocast() -> None:
    """The same maps: keypoints and features to the last bits, not to those of bfloat16."""
    network = encoder(num_keypoints=4, feature_dim=8)
    x = {"front": images(2, 64, 96, seed=1)}
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.encoders[0].backbone(x["front"])
        rounded = network(x)["front"]
    assert maps.dtype == torch.bfloat16
    exact = network.encoders[0].head(network.encoders[0].pool(maps.float())).relu()
    torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("shared", "count"), [(True, 1), (False, 2)])
def test_shared_means_one_encoder(shared: bool, count: int) -> None:
    network = encoder(cameras=("front", "wrist"), shared=shared)
    assert {name.split(".")[1] for name in network.state_dict()} == {str(i) for i in range(count)}


def _with_counted_calls(network: VisionEncoder) -> list[int]:
    """Number of images of each call of an encoder, filled as calls happen."""
    calls: list[int] = []
    for part in network.encoders:
        part.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    return calls


@torch.no_grad()
def test_a_shared_encoder_sees_cameras_of_equal_size_together() -> None:
    cameras = ("front", "left", "wrist")
    network = encoder(cameras=cameras, shared=True, num_keypoints=4, feature_dim=6)
    calls = _with_counted_calls(network)
    views = {
        "front": images(2, 40, 48, seed=1),
        "left": images(2, 64, 40, seed=2),
        "wrist": images(3, 40, 48, seed=3),
    }
    features = network(views)
    assert calls == [5, 2]
    for camera in cameras:
        alone = network.encoders[0](views[camera])
        torch.testing.assert_close(features[camera], alone, rtol=1e-5, atol=1e-5)
    resized = encoder(cameras=cameras, shared=True, resize=(40, 48), num_keypoints=4)
    calls = _with_counted_calls(resized)
    resized(views)
    assert calls == [7]


@pytest.mark.parametrize("norm", ["batch", "group"])
@torch.no_grad()
def test_in_evaluation_an_image_does_not_depend_on_the_others(norm: str) -> None:
    network = encoder(norm=norm, num_keypoints=4, crop=(36, 40))
    x = images(3, 40, 48, seed=1)
    together = network({"front": x})["front"]
    for i in range(3):
        alone = network({"front": x[i : i + 1]})["front"]
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("pooling", ["spatial_softmax", "average"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_gradients_reach_every_parameter(norm: str, pooling: str) -> None:
    network = encoder(norm=norm, pooling=pooling, num_keypoints=4, feature_dim=64).train()
    network({"front": images(4, 64, 64, seed=1)})["front"].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # The softmax does not see what all positions have in common.
        if name != "encoders.0.pool.nets.bias":
            assert parameter.grad.abs().max() > 0, name


def test_new_backbones_start_as_torchvisions_do() -> None:
    torch.manual_seed(0)
    network = VisionEncoder(VisionConfig(cameras=("front",)))
    convolution = network.get_submodule("encoders.0.backbone.7.1.conv2")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    norm = network.get_submodule("encoders.0.backbone.7.1.bn2")
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (32, 512)
    assert (norm.weight == 1).all()
    assert not norm.bias.any()


def _crops(network: VisionEncoder, x: Tensor) -> Tensor:
    """What the encoder of the only camera receives."""
    seen: list[Tensor] = []
    hook = network.encoders[0].register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    network({"front": x})
    hook.remove()
    return seen[0]


def _coordinates(count: int, height: int, width: int) -> Tensor:
    """Images whose channels are their number, the row and the column."""
    axes = [torch.arange(float(n)) for n in (count, height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=1)


@torch.no_grad()
def test_training_crops_each_image_at_a_random_place_inside() -> None:
    network = encoder(crop=(30, 33), pooling="average").train()
    torch.manual_seed(0)
    crops = _crops(network, _coordinates(200, 32, 36))
    assert crops.shape == (200, 3, 30, 33)
    corner = crops[:, :, :1, :1]
    assert torch.equal(crops - corner, _coordinates(1, 30, 33).expand(200, -1, -1, -1))
    assert corner[:, 0].flatten().tolist() == list(range(200))
    corners = {tuple(c) for c in corner[:, 1:].flatten(1).long().tolist()}
    assert corners == {(row, column) for row in range(3) for column in range(4)}
    assert not torch.equal(crops, _crops(network, _coordinates(200, 32, 36)))


@pytest.mark.parametrize(
    ("crop", "corner"),
    # Halves go to the even neighbour.
    [((32, 36), (0, 0)), ((31, 35), (0, 0)), ((29, 33), (2, 2)), ((27, 26), (2, 5))],
)
@torch.no_grad()
def test_evaluation_crops_the_centre(crop: tuple[int, int], corner: tuple[int, int]) -> None:
    network = encoder(crop=crop, pooling="average")
    crops = _crops(network, _coordinates(2, 32, 36))
    assert crops.shape == (2, 3, *crop)
    assert tuple(crops[1, :, 0, 0].tolist()) == (1, *corner)


@torch.no_grad()
def test_training_resizes_before_it_crops() -> None:
    network = encoder(resize=(64, 72), crop=(64, 72), pooling="average")
    x = images(2, 32, 36, seed=1)
    expected = _crops(network, x)
    torch.testing.assert_close(_crops(network.train(), x), expected)
    assert expected.shape == (2, 3, 64, 72)


@torch.no_grad()
def test_keypoints_are_x_then_y_of_the_strongest_position() -> None:
    pool = vision.SpatialSoftmax(2, 2)
    nn.init.dirac_(pool.nets.weight)
    nn.init.zeros_(pool.nets.bias)
    maps = torch.zeros(1, 2, 3, 5)
    maps[0, 0, 0, 4] = maps[0, 1, 2, 1] = 100.0
    torch.testing.assert_close(pool(maps), torch.tensor([[1.0, -1.0, -0.5, 1.0]]))


def test_positions_are_computed_once_and_are_no_weights() -> None:
    network = encoder(num_keypoints=4)
    vision._position_grid.cache_clear()
    with torch.inference_mode():
        network({"front": images(1, 64, 96, seed=1)})
    network.train()({"front": images(2, 64, 96, seed=2)})["front"].sum().backward()
    info = vision._position_grid.cache_info()
    assert (info.misses, info.hits) == (1, 1)
    assert not [name for name in network.state_dict() if "grid" in name or "pos" in name]


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"wrist": torch.zeros(1, 3, 40, 40)}, r"no images of camera 'front'; got \['wrist'\]"),
        ({"front": torch.zeros(1, 4, 40, 40)}, r"shape \(1, 4, 40, 40\); expected \(images, 3"),
        ({"front": torch.zeros(2, 3, 40)}, r"shape \(2, 3, 40\)"),
        ({"front": torch.zeros(1, 3, 29, 40)}, r"29 x 40 pixels.*crop, 30 x 32"),
        ({"front": torch.zeros(1, 3, 40, 31)}, r"40 x 31 pixels.*crop, 30 x 32"),
    ],
)
def test_wrong_images_are_refused(views: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder(crop=(30, 32))(views)
