"""A miniature training learns, stops, and goes on as if it had not been stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from torch import Tensor, nn

from para_policy import load_policy
from para_policy.diffusion.noise_schedule import Prediction
from para_policy.errors import DataError, InputError
from para_policy.networks import vision
from para_policy.training import behaviour_cloning
from para_policy.training.behaviour_cloning import ObservedNetwork, prepare_data, train
from para_policy.training.config import TrainConfig
from para_policy.training.dataset import Images
from para_policy.training.draws import batch_indices
from para_policy.training.states import States
from sim.pusht.env import check_inputs
from tests.checkpoint import tiny_config
from tests.training.demonstrations import REPOSITORY, circles, write_group
from tests.training.interruption import interrupt_at

Target: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of states, timesteps, and the clean samples in them."""


def content(path: Path, **training: Any) -> dict[str, Any]:
    policy = tiny_config(20).model_dump(mode="json")
    policy["inputs"] = {"agent_pos": [2]}
    policy["network"]["down_dims"] = [8, 16, 32]
    return {
        "policy": policy,
        "data": {
            "path": str(path),
            "action": {"array": "action"},
            "observations": {"agent_pos": {"array": "state", "columns": [0, 1]}},
        },
        "training": {
            "steps": 6,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "warmup_steps": 2,
            "log_every": 2,
            "checkpoint_every": 3,
            **training,
        },
    }


def config(path: Path, **training: Any) -> TrainConfig:
    return TrainConfig.model_validate(content(path, **training))


FLOW = {"_class_name": "FlowMatching", "velocity": "data-noise", "times": [1.0, 0.0]}


def flow_config(path: Path, **training: Any) -> TrainConfig:
    """A flow with continuous levels, and a transformer with dropout."""
    made = content(path, **{"noise_levels": {"distribution": "beta"}, **training})
    made["policy"] |= {
        "noise_scheduler": FLOW,
        "num_inference_steps": 10,
        "network": {
            "kind": "dit",
            "hidden_dim": 16,
            "num_layers": 2,
            "num_heads": 2,
            "timestep_embed_dim": 8,
        },
    }
    return TrainConfig.model_validate(made)


def metrics(output: Path) -> list[dict[str, float]]:
    """All records, without the time that they took."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all(record.pop("seconds") >= 0 for record in records)
    return records


def weights(output: Path) -> dict[str, list[float]]:
    state = load_file(output / "checkpoint" / "model.safetensors")
    return {name: value.tolist() for name, value in state.items()}


def test_training_lowers_the_loss_and_leaves_a_policy(zarr_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    checkpoint = train(config(zarr_path, steps=80, log_every=20), output, device="cpu")
    records = metrics(output)
    assert [record["step"] for record in records] == [20, 40, 60, 80]
    assert records[-1]["ema_loss"] < 0.8 * records[0]["ema_loss"]
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    assert records[-1]["learning_rate"] < records[0]["learning_rate"]
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    policy = load_policy(checkpoint)
    result = policy.sample({"agent_pos": np.array([[456.0, 256.0], [452.0, 296.0]])})
    assert result.actions.shape == (8, 2)
    assert (np.abs(result.prediction - 256) <= 201).all()  # inside what was demonstrated


def test_a_flow_is_learned_and_sampled(zarr_path: Path, tmp_path: Path) -> None:
    made = flow_config(zarr_path, steps=120, log_every=30, learning_rate=1e-2)
    policy = load_policy(train(made, tmp_path / "run", device="cpu"))
    losses = [record["ema_loss"] for record in metrics(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]
    result = policy.sample({"agent_pos": np.array([[456.0, 256.0], [452.0, 296.0]])})
    assert result.stats.evals == 10
    assert result.actions.shape == (8, 2)


def ddpm(prediction: str) -> dict[str, Any]:
    return {**tiny_config(20).noise_scheduler, "prediction_type": prediction}


def ddpm_target(prediction: str) -> Target:
    def target(x: Tensor, t: Tensor, clean: Tensor) -> Tensor:
        alpha_bar = (1 - betas_for_alpha_bar(20)).cumprod(0)[t][:, None, None]
        noise = (x - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        v = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
        return {"epsilon": noise, "sample": clean, "v_prediction": v}[prediction]

    return target


def flow_target(x: Tensor, t: Tensor, clean: Tensor) -> Tensor:
    """As LeRobot has it: x = t data + (1 - t) noise, and the way from noise to data."""
    t = t[:, None, None]
    return clean - (x - t * clean) / (1 - t)


@pytest.mark.parametrize(
    ("noise_scheduler", "distribution", "target"),
    [
        *((ddpm(kind), "uniform", ddpm_target(kind)) for kind in get_args(Prediction)),
        *((FLOW, distribution, flow_target) for distribution in ("uniform", "beta")),
    ],
)
def test_the_loss_is_that_of_the_closed_form(
    zarr_path: Path, noise_scheduler: dict[str, Any], distribution: str, target: Target
) -> None:
    """From what the network is asked follow the noise in it, the target, and the error of the answer."""
    made = content(zarr_path, noise_levels={"distribution": distribution})
    made["policy"]["noise_scheduler"] = noise_scheduler
    task = behaviour_cloning._Cloning(TrainConfig.model_validate(made))
    asked: list[tuple[Tensor, Tensor]] = []

    class Network(nn.Module):
        def forward(self, x: Tensor, t: Tensor, observed: dict[str, Tensor]) -> Tensor:
            asked.append((x, t))
            return 0.3 * x

    accelerator, step = Accelerator(cpu=True), 5
    loss = task.loss(Network(), step, accelerator)
    ((x, t),) = asked
    run, data = task.run, task.data.train
    clean = data.batch(batch_indices(step, len(data), run.batch_size, run.seed, accelerator))
    expected = (0.3 * x - target(x, t, clean["action"])).square().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_run_depends_on_its_seed_alone(zarr_path: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name) % 1000)
        train(config(zarr_path, seed=seed), tmp_path / name, device="cpu")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


@pytest.mark.parametrize(("made", "stop"), [(config, 3), (config, 5), (flow_config, 5)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    zarr_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: Callable[[Path], TrainConfig],
    stop: int,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(made(zarr_path), whole, device="cpu")
    with monkeypatch.context() as patch:
        interrupt_at(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            train(made(zarr_path), parts, device="cpu")
    train(made(zarr_path), parts, resume=True, device="cpu")
    assert weights(parts) == weights(whole)
    assert [r["step"] for r in metrics(parts)] == [r["step"] for r in metrics(whole)]
    for resumed, straight in zip(metrics(parts), metrics(whole), strict=True):
        assert resumed["ema_loss"] == straight["ema_loss"]
        assert resumed["learning_rate"] == straight["learning_rate"]


def test_averages_of_a_resumed_run_are_on_its_device(
    zarr_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state is read to the CPU, wherever the run trains."""
    train(config(zarr_path, steps=2, checkpoint_every=2), tmp_path / "run", device="cpu")
    happened: list[object] = []

    def load_state_dict(self: EMAModel, state: dict[str, Any]) -> None:
        happened.append("read")
        read(self, state)

    def to(self: EMAModel, device: torch.device, **options: Any) -> None:
        happened.append(device)
        move(self, device, **options)

    read, move = EMAModel.load_state_dict, EMAModel.to
    monkeypatch.setattr(EMAModel, "load_state_dict", load_state_dict)
    monkeypatch.setattr(EMAModel, "to", to)
    again = config(zarr_path, steps=4, checkpoint_every=2)
    train(again, tmp_path / "run", device="cpu", resume=True)
    assert happened[-2:] == ["read", torch.device("cpu")]


def test_a_finished_run_is_not_overwritten(zarr_path: Path, tmp_path: Path) -> None:
    train(config(zarr_path), tmp_path / "run", device="cpu")
    before = weights(tmp_path / "run")
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        train(config(zarr_path, seed=7), tmp_path / "run", device="cpu")
    assert weights(tmp_path / "run") == before


def test_a_run_that_stopped_before_its_first_checkpoint_can_go_on(
    zarr_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has metrics but no state: one of the two ways to start it again must be open."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)  # logged at 2, saved at 3
        with pytest.raises(KeyboardInterrupt):
            train(config(zarr_path), tmp_path / "run", device="cpu")
    refused = 0
    for resume in (False, True):
        try:
            train(config(zarr_path), tmp_path / "run", resume=resume, device="cpu")
            break
        except InputError:
            refused += 1
    assert refused < 2, "neither with nor without resume"


def test_a_run_is_resumed_with_its_own_configuration_only(zarr_path: Path, tmp_path: Path) -> None:
    train(config(zarr_path), tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="another configuration"):
        train(config(zarr_path, seed=7), tmp_path / "run", resume=True, device="cpu")


def test_a_device_that_is_none_is_refused(zarr_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device 'nonsense' cannot be used"):
        train(config(zarr_path), tmp_path / "run", device="nonsense")


def test_there_must_be_something_to_resume(zarr_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        train(config(zarr_path), tmp_path / "run", resume=True, device="cpu")


def test_validation_episodes_are_kept_out_of_training(zarr_path: Path) -> None:
    made = content(zarr_path)
    made["data"]["validation_ratio"] = 0.34
    data = prepare_data(TrainConfig.model_validate(made))
    assert "validation" in data.evaluation_name
    lengths = {len(data.train), len(data.evaluation)}
    windows = {30 - 7, 25 - 7, 40 - 7}
    assert lengths == {len(data.evaluation), sum(windows) - len(data.evaluation)}
    assert len(data.evaluation) in windows


def test_features_are_normalised_to_the_unit_box(zarr_path: Path) -> None:
    data = prepare_data(config(zarr_path))
    batch = data.train.batch(torch.arange(len(data.train)))
    for values in batch.values():
        assert values.abs().max() <= 1 + 1e-5
        assert values.min() < -0.9
        assert values.max() > 0.9


def test_too_few_windows_for_a_batch_are_refused(tmp_path: Path) -> None:
    path = write_group(tmp_path / "demo.zarr", *circles((10,)))
    with pytest.raises(DataError, match=r"3 training windows.*batch of 16.*batch_size"):
        prepare_data(config(path))


def test_demonstrations_with_holes_are_refused(tmp_path: Path) -> None:
    arrays, ends = circles()
    arrays["action"][17, 1] = np.nan
    path = write_group(tmp_path / "demo.zarr", arrays, ends)
    with pytest.raises(DataError, match="NaN"):
        prepare_data(config(path))


def test_the_shipped_configurations_are_valid() -> None:
    folder = REPOSITORY / "config" / "training"
    shipped = TrainConfig.from_yaml(folder / "pusht_state.yaml")
    assert shipped.policy.inputs == {"environment_state": (16,), "agent_pos": (2,)}
    assert shipped.policy.noise_scheduler["beta_schedule"] == "squaredcos_cap_v2"
    flow = TrainConfig.from_yaml(folder / "pusht_flow.yaml")
    assert (flow.policy.inputs, flow.data) == (shipped.policy.inputs, shipped.data)


def test_a_configuration_is_read_from_yaml(zarr_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(content(zarr_path)))
    assert TrainConfig.from_yaml(file) == config(zarr_path)


def test_no_precision_needs_no_quotes(zarr_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    text = yaml.safe_dump(content(zarr_path, precision="bf16"))
    for written in ("no", "'no'"):
        file.write_text(text.replace("precision: bf16", f"precision: {written}"))
        assert TrainConfig.from_yaml(file).training.precision == "no"


def changed(section: str, key: str, value: Any) -> str:
    made = content(Path("demo.zarr"))
    made[section][key] = value
    return yaml.safe_dump(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {steps: [", "not valid YAML"),
        ("training: {steps: 1, steps: 2}", "key 'steps' stands in line 1"),
        ("", r"train\.yaml"),
        ("just a word", r"train\.yaml"),
        ("policy: {}", "data.*[Ff]ield required"),
        (changed("training", "learning_rat", 1), "training.learning_rat"),
        (changed("training", "steps", 0), "training.steps"),
        (changed("training", "steps", "many"), "training.steps"),
        (changed("training", "precision", "fp8"), "training.precision"),
        (changed("training", "learning_rate", float("inf")), "training.learning_rate"),
        (changed("training", "learning_rate", 1e38), "training.learning_rate"),
        (changed("training", "weight_decay", float("nan")), "training.weight_decay"),
        (changed("training", "betas", [0.9, 1.0]), "training.betas"),
        (changed("training", "noise_levels", {"distribution": "normal"}), "training.noise_levels"),
        (
            changed("training", "noise_levels", {"distribution": "uniform", "s": 0.9}),
            "training.noise_levels.uniform.s",
        ),
        (
            changed("training", "noise_levels", {"distribution": "beta", "alpha": 0}),
            "training.noise_levels.beta.alpha",
        ),
        (
            changed("training", "noise_levels", {"distribution": "beta"}),
            "DDPMScheduler.*uniform",
        ),
        (changed("data", "validation_ratio", 1.0), "data.validation_ratio"),
        (changed("policy", "horizon", 15), "horizon is 15"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig.from_yaml(file)
    assert "train.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml"):
        TrainConfig.from_yaml(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="cannot read"):
        TrainConfig.from_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"binary\.yaml"):
        TrainConfig.from_yaml(tmp_path / "binary.yaml")


SIDE = 20


def seen_circles() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Demonstrations of an agent that is only seen: a bright square in dark frames."""
    arrays, ends = circles()
    centre = np.clip(arrays["state"][:, :2] / 512 * SIDE, 2, SIDE - 3).astype(int)
    frames = np.zeros((len(centre), SIDE, SIDE, 3), dtype=np.uint8)
    for frame, (x, y) in zip(frames, centre, strict=True):
        frame[y - 2 : y + 3, x - 2 : x + 3] = (255, 200, 40)
    return {**arrays, "img": frames}, ends


@pytest.fixture
def image_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With one convolution in place of eighteen, whose map of tiny frames has 4 x 4 places."""
    monkeypatch.setattr(vision, "_resnet", lambda *_: nn.Sequential(nn.Conv2d(3, 512, 6, stride=4)))
    return write_group(tmp_path / "images.zarr", *seen_circles())


def image_config(path: Path, **training: Any) -> TrainConfig:
    """A small policy with a camera; what it does not see it cannot know."""
    made = content(path, **{"batch_size": 8, "evaluation_windows": 16, **training})
    made["policy"] |= {
        "inputs": {"image": [3, SIDE, SIDE]},
        "vision": {
            "cameras": ["image"],
            "crop": [SIDE - 2, SIDE - 2],
            "num_keypoints": 8,
            "feature_dim": 16,
        },
        "n_obs_steps": 1,
        "first_action": 0,
    }
    # Where noise hides the action, only what is seen tells it.
    made["policy"]["noise_scheduler"]["prediction_type"] = "sample"
    made["data"]["observations"] = {"image": {"image": "img"}}
    return TrainConfig.model_validate(made)


def test_an_image_policy_learns_to_see(image_path: Path, tmp_path: Path) -> None:
    """Far better than the same network without sight: frames shuffled against actions."""
    arrays, ends = seen_circles()
    mixed = np.random.default_rng(0).permutation(len(arrays["img"]))
    blind_path = write_group(tmp_path / "b.zarr", {**arrays, "img": arrays["img"][mixed]}, ends)
    options = {"steps": 60, "log_every": 20, "batch_size": 16, "evaluation_windows": 64}
    losses = {}
    for name, path in (("seeing", image_path), ("blind", blind_path)):
        train(image_config(path, **options), tmp_path / name, device="cpu")
        losses[name] = [record["loss"] for record in metrics(tmp_path / name)]
    assert losses["seeing"][-1] < 0.7 * losses["seeing"][0]
    assert losses["seeing"][-1] < 0.85 * losses["blind"][-1]


@pytest.fixture
def image_run(image_path: Path, tmp_path: Path) -> Path:
    train(image_config(image_path), tmp_path / "whole", device="cpu")
    return tmp_path / "whole"


def test_a_resumed_image_run_equals_an_uninterrupted_one(
    image_path: Path, image_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random crops included, and whatever else draws random numbers in between."""
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(image_config(image_path), parts, device="cpu")
    torch.manual_seed(123)
    train(image_config(image_path), parts, resume=True, device="cpu")
    assert weights(parts) == weights(image_run)
    for resumed, straight in zip(metrics(parts), metrics(image_run), strict=True):
        assert resumed["ema_loss"] == straight["ema_loss"]


def test_an_image_run_leaves_a_policy(image_path: Path, image_run: Path) -> None:
    policy = load_policy(image_run / "checkpoint")
    for name in ("scale", "offset"):
        expected = {"scale": 2.0, "offset": -1.0}[name]
        assert getattr(policy.normalizers["image"], name).tolist() == [expected] * 3
    (image,) = seen_circles()[0]["img"][:1]
    result = policy.sample({"image": np.moveaxis(image, -1, 0)[None]}, seed=0)
    assert result.actions.shape == (8, 2)
    scaled = policy.sample({"image": np.moveaxis(image, -1, 0)[None] / 255}, seed=0)
    np.testing.assert_allclose(result.actions, scaled.actions, atol=1e-2)


def test_the_policy_sees_as_in_training(image_path: Path, image_run: Path) -> None:
    """The same condition vector from raw frames, so that nothing is scaled twice or cut elsewhere."""
    policy = load_policy(image_run / "checkpoint")
    data = prepare_data(image_config(image_path))
    batch = data.train.batch(torch.arange(4))
    network = ObservedNetwork(policy.config).eval()
    network.network.load_state_dict(policy.network.state_dict())
    assert network.vision is not None
    assert policy.vision is not None
    network.vision.load_state_dict(policy.vision.state_dict())
    x, t = torch.randn(4, 16, 2, generator=torch.Generator().manual_seed(0)), torch.full((4,), 7)
    with torch.no_grad():
        trained = network(x, t, {"image": batch["image"]})
        played = policy.denoiser({"image": batch["image"].numpy()})(x, t, torch.arange(4))
    torch.testing.assert_close(played, trained, atol=1e-5, rtol=1e-4)


def test_averaged_weights_of_network_and_encoder_are_exported(
    image_run: Path,
) -> None:
    newest, _ = States(image_run / "state").newest()
    live = load_file(newest / "model.safetensors")
    averaged = load_file(image_run / "checkpoint" / "model.safetensors")
    renamed = {
        f"network.{name}" if not name.startswith("vision.") else name: value
        for name, value in averaged.items()
    }
    assert renamed.keys() == live.keys()
    for name in ("vision.encoders.0.backbone.0.weight", "network.final_conv.1.weight"):
        assert renamed[name].shape == live[name].shape
        assert 0 < (renamed[name] - live[name]).abs().max() < 0.1


def test_the_evaluation_loss_uses_no_random_crops(image_path: Path) -> None:
    task = behaviour_cloning._Cloning(image_config(image_path))
    network, accelerator = task.network(), Accelerator(cpu=True)
    losses, crops = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            losses.append(task.evaluation_loss(network, accelerator))
            crops.append([task.loss(network, step, accelerator).item() for step in (0, 1, 0)])
    assert losses[0] == losses[1]
    assert network.training
    assert crops[0] == crops[1]  # of the step alone
    assert crops[0][0] == crops[0][2] != crops[0][1]


def test_crops_are_random_in_training(image_path: Path) -> None:
    network = ObservedNetwork(image_config(image_path).policy)
    image = {"image": prepare_data(image_config(image_path)).train.batch(torch.arange(1))["image"]}
    x, t = torch.zeros(1, 16, 2), torch.zeros(1, dtype=torch.int64)
    torch.manual_seed(0)
    with torch.no_grad():
        assert len({network(x, t, image).sum().item() for _ in range(20)}) > 3


def test_an_action_is_no_image(image_path: Path) -> None:
    made = image_config(image_path).model_dump(mode="json")
    made["data"]["action"] = {"image": "img"}
    with pytest.raises(ValueError, match=r"data\.action"):
        TrainConfig.model_validate(made)


def test_the_shipped_image_configuration_fits_what_is_rendered() -> None:
    shipped = TrainConfig.from_yaml(REPOSITORY / "config" / "training" / "pusht_image.yaml")
    assert shipped.policy.inputs == {"image": (3, 96, 96), "agent_pos": (2,)}
    assert shipped.policy.cameras == ("image",)
    assert shipped.data.observations["image"] == Images(image="img")
    check_inputs(shipped.policy.inputs)
