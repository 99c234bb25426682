"""LeRobot checkpoints act as in LeRobot, whichever version wrote them; broken ones are refused.

What LeRobot itself made of them is recorded in `goldens/`, by `make_lerobot.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from torch import Tensor

from para_policy import Process
from para_policy.calibration.measure import Settings, calibrate
from para_policy.checkpoints.calibration import save_calibration
from para_policy.checkpoints.checkpoint import Checkpoint
from para_policy.checkpoints.lerobot.config import read_policy
from para_policy.checkpoints.lerobot.read import is_lerobot, read_lerobot
from para_policy.checkpoints.load import load_policy
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.diffusion.noise import Noise
from para_policy.errors import CheckpointError, InputError
from para_policy.policies.build import state_shapes
from para_policy.policies.encoder import Encoder
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoints.damage import Damage, edit_tensors
from tests.checkpoints.golden import read_golden, save
from tests.checkpoints.goldens.make_lerobot import CASES

ABSOLUTE = 1e-5
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"


def policy_of(checkpoint: Checkpoint) -> DiffusionPolicy:
    return DiffusionPolicy(checkpoint.config, checkpoint.state, checkpoint.normalizers)


def assert_close(found: Any, expected: Tensor, scale: float = 1.0) -> None:
    torch.testing.assert_close(
        torch.as_tensor(found), expected, rtol=0, atol=ABSOLUTE * scale, check_dtype=False
    )


@pytest.mark.parametrize("case", CASES)
def test_everything_from_observations_to_actions_is_as_in_lerobot(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = read_golden(case)
    recorded = golden.tensors
    checkpoint = read_lerobot(save(case, tmp_path))
    policy = policy_of(checkpoint)
    obs = {name: value.numpy() for name, value in golden.part("obs").items()}

    for name, value in golden.part("normalized").items():
        assert_close(policy.normalizers[name].normalize(golden.part("obs")[name]), value)
    observer = Encoder(checkpoint.config, policy.normalizers, policy.vision)
    condition = observer.encode(observer.check(obs, batched=False), torch.device("cpu"))
    assert_close(condition, recorded["condition"])
    output = policy.network(recorded["x"], recorded["t"], recorded["condition"].expand(2, -1))
    assert_close(output, recorded["output"])

    noise = Noise(recorded["initial"], recorded["steps"])
    monkeypatch.setattr(Noise, "from_seeds", lambda *args, **kwargs: noise)
    result = policy.sample(obs)
    assert_close(result.sample, recorded["sample"][0])
    assert_close(result.actions, recorded["actions"], scale=100.0)


def test_whole_numbers_are_scaled_as_numbers(tmp_path: Path) -> None:
    """LeRobot cuts the limits to whole numbers, too, and may divide by nothing."""
    policy = policy_of(read_lerobot(save("states", tmp_path)))
    obs = {name: value.numpy() for name, value in read_golden("states").part("obs").items()}
    whole = {name: np.round(values).astype(np.int64) for name, values in obs.items()}
    found = policy.sample(whole, seed=0).actions
    expected = policy.sample({n: v.astype(np.float32) for n, v in whole.items()}, seed=0).actions
    np.testing.assert_array_equal(found, expected)


def test_goldens_are_no_trivial_policies() -> None:
    for case, described in CASES.items():
        recorded = read_golden(case).tensors
        assert recorded["condition"].std() > 0.1
        assert 0.1 < recorded["output"].std() < 10
        moving = recorded["sample"].abs() < 0.999
        assert 0.1 < recorded["sample"][moving].std() < 10
        cameras = [name for name, shape in described.inputs.items() if len(shape) == 3]
        if cameras:
            steps = len(recorded[f"obs/{cameras[0]}"])
            states = recorded["condition"].reshape(steps, -1)
            images = states[:, 3 : 3 + 6 * len(cameras)].reshape(-1, 6)
            assert images.std(dim=0).max() > 0.05, "no two images look alike"


def test_the_configuration_says_what_lerobot_s_says(tmp_path: Path) -> None:
    config = read_lerobot(save("resize", tmp_path)).config
    assert list(config.inputs) == [
        STATE,
        "observation.images.wrist",
        "observation.images.a",
        ENVIRONMENT,
    ]
    assert config.action_names == ("action_0", "action_1")
    assert (config.n_obs_steps, config.first_action, config.horizon) == (2, 1, 8)
    assert config.control_hz is None
    assert config.vision is not None
    assert (config.vision.resize, config.vision.crop) == ((48, 44), (40, 37))
    assert (config.vision.shared, config.vision.feature_dim) == (False, 6)


def test_the_control_rate_is_that_of_the_environment(tmp_path: Path) -> None:
    save("states", tmp_path)
    assert read_lerobot(tmp_path).config.control_hz == 10.0
    edit_json("train_config.json", lambda c: c.update(env=None))(tmp_path)
    assert read_lerobot(tmp_path).config.control_hz is None


def test_the_report_says_what_became_of_each_weight(tmp_path: Path) -> None:
    report = read_lerobot(save("old_cameras", tmp_path)).report
    text = report.text()
    assert "normalize_inputs.buffer_observation_state.min" in report.ignored
    assert "diffusion.rgb_encoder.pool.pos_grid" in report.ignored
    assert "statistics, which become normalizers" in text
    assert "which follow from the size of the image" in text
    assert set(report.matched) | set(report.ignored) == set(read_golden("old_cameras").model())


def test_names_of_a_compiled_network_are_understood(tmp_path: Path) -> None:
    expected = read_lerobot(save("states", tmp_path)).state

    def compile_names(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace("unet.", "unet._orig_mod.")] = tensors.pop(name)

    edit_tensors("model.safetensors", compile_names)(tmp_path)
    found = read_lerobot(tmp_path).state
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_robomimic_s_spatial_softmax_of_early_2024_is_understood(tmp_path: Path) -> None:
    expected = read_lerobot(save("2024_camera", tmp_path)).state

    def older(tensors: dict[str, Tensor], temperature: float = 1.0) -> None:
        pool = "diffusion.rgb_encoder.pool."
        grid = tensors.pop(pool + "pos_grid")
        tensors[pool + "pos_x"], tensors[pool + "pos_y"] = grid.T[:, None].contiguous().unbind()
        tensors[pool + "temperature"] = torch.tensor([temperature])

    edit_tensors("model.safetensors", older)(tmp_path)
    found = read_lerobot(tmp_path).state
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    save("2024_camera", tmp_path)
    edit_tensors("model.safetensors", lambda tensors: older(tensors, 2.0))(tmp_path)
    with pytest.raises(CheckpointError, match=r"pool.temperature' is \[2.0\]; only .* 1"):
        read_lerobot(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("case", ["states", "old_states"])
def test_names_of_wrapped_networks_are_understood(case: str, prefix: str, tmp_path: Path) -> None:
    expected = read_lerobot(save(case, tmp_path))

    def wrap(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    edit_tensors("model.safetensors", wrap)(tmp_path)
    found = read_lerobot(tmp_path)
    assert found.state.keys() == expected.state.keys()
    assert all(torch.equal(found.state[name], expected.state[name]) for name in found.state)
    for name, normalizer in expected.normalizers.items():
        assert torch.equal(found.normalizers[name].scale, normalizer.scale)


def test_weights_with_and_without_a_prefix_are_refused(tmp_path: Path) -> None:
    name = "diffusion.unet.final_conv.1.bias"
    damage = edit_tensors("model.safetensors", lambda t: t.update({f"module.{name}": t[name] + 1}))
    assert_refused("states", damage, f"two weights under one name.*'{name}'", tmp_path)


def test_more_actions_than_there_are_means_all_of_them(tmp_path: Path) -> None:
    """LeRobot cuts them out of the horizon and takes what it gets."""
    save("states", tmp_path)
    edit_config(lambda c: c.update(n_action_steps=c["horizon"]))(tmp_path)
    with pytest.warns(UserWarning, match="are executed, as in the project"):
        config = read_lerobot(tmp_path).config
    assert config.n_action_steps == config.horizon - config.n_obs_steps + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_backbone": "resnet101", "use_group_norm": True},
        {"vision_backbone": "resnet152"},
        {"down_dims": [16]},
        {"beta_schedule": "sigmoid", "noise_scheduler_type": "DDPM"},
        {"beta_schedule": "laplace", "noise_scheduler_type": "DDPM"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_what_lerobot_can_run_is_understood(changes: dict[str, Any], tmp_path: Path) -> None:
    path = save("camera", tmp_path) / "config.json"
    content = json.loads(path.read_text()) | changes
    config = read_policy(path, content, None).config
    assert state_shapes(config)
    assert Process.from_scheduler(config.noise_scheduler, 5).num_steps == 5


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("policy_preprocessor.json", "relative_actions_processor"),
        ("policy_postprocessor.json", "absolute_actions_processor"),
    ],
)
def test_a_processor_step_counts_if_it_is_switched_on(name: str, step: str, tmp_path: Path) -> None:
    def add(enabled: bool) -> Damage:
        new = {"registry_name": step, "config": {"enabled": enabled, "exclude_joints": []}}
        return edit_json(name, lambda content: content["steps"].insert(0, new))

    expected = read_lerobot(save("states", tmp_path)).normalizers
    add(False)(tmp_path)
    found = read_lerobot(tmp_path).normalizers
    assert all(torch.equal(found[name].scale, expected[name].scale) for name in expected)
    assert_refused("states", add(True), f"the steps .*'{step}'", tmp_path)


def test_keys_that_only_later_versions_write_may_be_missing(tmp_path: Path) -> None:
    save("states", tmp_path)
    expected = read_lerobot(tmp_path).config
    later = ("resize_shape", "crop_ratio", "compile_model", "use_separate_rgb_encoder_per_camera")
    edit_config(lambda c: [c.pop(key) for key in (*later, "noise_scheduler_type")])(tmp_path)
    assert read_lerobot(tmp_path).config == expected


@pytest.mark.parametrize(
    ("resize", "ratio", "crop", "expected"),
    [
        (None, 1.0, [30, 20], (30, 20)),
        (None, 0.5, None, None),
        ([34, 36], 1.0, [30, 20], None),
        ([34, 36], 0.9, [30, 20], (30, 32)),
    ],
)
def test_the_crop_follows_lerobot_s_rules(
    resize: list[int] | None,
    ratio: float,
    crop: list[int] | None,
    expected: tuple[int, int] | None,
    tmp_path: Path,
) -> None:
    save("camera", tmp_path)
    edit_config(lambda c: c.update(resize_shape=resize, crop_ratio=ratio, crop_shape=crop))(
        tmp_path
    )
    vision = read_lerobot(tmp_path).config.vision
    assert vision is not None
    assert vision.crop == expected


@pytest.mark.parametrize("case", ["states", "old_states", "mean_std"])
def test_an_input_that_never_changed_stays_where_training_saw_it(case: str, tmp_path: Path) -> None:
    """LeRobot would make 10^5 of a difference of 0.001."""
    normalizer = read_lerobot(save(case, tmp_path)).normalizers[STATE]
    seen, near = (normalizer.normalize(torch.full((3,), value))[1] for value in (12.345, 12.346))
    assert_close(seen, torch.tensor(-1.0))
    assert abs(float(near - seen)) < 0.01


def test_statistics_that_were_rounded_are_read_with_a_warning(tmp_path: Path) -> None:
    exact = read_lerobot(save("states", tmp_path)).normalizers[STATE]
    edit_tensors(
        NORMALIZER, lambda t: t.update({name: value.bfloat16() for name, value in t.items()})
    )(tmp_path)
    with pytest.warns(UserWarning, match="statistics in torch.bfloat16: LeRobot rounds them"):
        rounded = read_lerobot(tmp_path).normalizers[STATE]
    torch.testing.assert_close(rounded.scale, exact.scale, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("case", "name", "ends"),
    [("states", ENVIRONMENT, ["std"]), ("mean_std", ENVIRONMENT, ["q10", "q90"])],
)
def test_a_constant_that_changed_is_refused(
    case: str, name: str, ends: list[str], tmp_path: Path
) -> None:
    """LeRobot would make 10^7 of a difference of 0.1; `load_policy` would leave it as it is."""

    def lose(tensors: dict[str, Tensor]) -> None:
        for end in ends:
            tensors[f"{name}.{end}"][2] = 0.0

    message = f"'{name}' say that number 2 never changed, min and max that it went from"
    assert_refused(case, edit_tensors(NORMALIZER, lose), message, tmp_path)


@pytest.mark.parametrize("case", ["resize", "resnet50"])
def test_averaged_weights_come_from_the_training_state(case: str, tmp_path: Path) -> None:
    """All that is trained; the statistics of batch norms are those of the checkpoint."""
    golden = read_golden(case)
    live, other = (save(case, tmp_path / name, seed) for name, seed in (("live", 0), ("other", 5)))
    averaged = load_file(other / "model.safetensors")
    trained = golden.facts["parameters"]
    model = EMAModel([torch.nn.Parameter(averaged[name]) for name in trained])
    path = tmp_path / "training_state" / "ema_state.pt"
    path.parent.mkdir()
    torch.save(model.state_dict(), path)
    kept = {name: v for name, v in golden.model().items() if name not in trained}
    edit_tensors("model.safetensors", lambda tensors: tensors.update(kept))(other)

    found, expected = read_lerobot(live, weights="ema"), read_lerobot(other).state
    assert found.source == path
    assert found.state.keys() == expected.keys()
    for name, value in found.state.items():
        assert torch.equal(value, expected[name]), name


def test_averaged_weights_in_a_directory_of_their_own_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = save("states", tmp_path / "pretrained_model")
    own = save("states", tmp_path / "pretrained_model_ema", seed=5)
    found = read_lerobot(live, weights="ema")
    assert found.source == own / "model.safetensors"
    expected = read_lerobot(own).state
    assert all(torch.equal(found.state[name], expected[name]) for name in expected)

    monkeypatch.chdir(live)
    assert read_lerobot(".", weights="ema").source == own / "model.safetensors"


def test_other_weights_than_live_and_averaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights is 'best'; expected 'live' or 'ema'"):
        read_lerobot(save("states", tmp_path), weights="best")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no averaged weights.*weights='live'.*ema.enable"),
        ({"decay": 0.99}, "no state of averaged weights with 'shadow_params'"),
        ({"shadow_params": [torch.zeros(3)]}, "holds 1 tensors of other shapes than the"),
        ({"shadow_params": [3]}, "no state of averaged weights"),
        ({"shadow_params": Path("x")}, "no state of averaged weights"),
        (b"broken", "no state of averaged weights"),
    ],
)
def test_averaged_weights_that_cannot_be_read_are_refused(
    content: Any, message: str, tmp_path: Path
) -> None:
    live = save("states", tmp_path / "pretrained_model")
    path = tmp_path / "training_state" / "ema_state.pt"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_lerobot(live, weights="ema")


def test_only_lerobot_s_directories_are_taken_for_such(tmp_path: Path) -> None:
    assert is_lerobot(save("states", tmp_path / "new"))
    assert is_lerobot(save("2024_states", tmp_path / "2024"))
    assert not is_lerobot(tmp_path)
    (tmp_path / "config.json").write_text('{"type": "diffusion", "format_version": 2}')
    assert not is_lerobot(tmp_path)
    (tmp_path / "config.json").write_text('{"type": "act", "input_features": {}}')
    assert is_lerobot(tmp_path), "the reader then explains what is wrong"


PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
NORMALIZER = "policy_preprocessor_step_3_normalizer_processor.safetensors"
UNNORMALIZER = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(directory: Path) -> None:
        content = json.loads((directory / name).read_text())
        change(content)
        (directory / name).write_text(json.dumps(content))

    return damage


def edit_config(change: Callable[[dict[str, Any]], object]) -> Damage:
    return edit_json("config.json", change)


def edit_step(index: int, change: Callable[[dict[str, Any]], object]) -> Damage:
    return edit_json(PREPROCESSOR, lambda content: change(content["steps"][index]))


def remove(name: str) -> Damage:
    return lambda directory: (directory / name).unlink()


def write(name: str, text: str) -> Damage:
    return lambda directory: (directory / name).write_text(text)


def assert_refused(case: str, damage: Damage, message: str, directory: Path) -> None:
    save(case, directory)
    damage(directory)
    with pytest.raises(CheckpointError, match=message):
        read_lerobot(directory)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "config.json' is missing"),
        (remove("model.safetensors"), "model.safetensors' is missing"),
        (write("config.json", "{"), "not valid JSON"),
        (write("config.json", "[]"), "not a JSON object"),
        (write("model.safetensors", "{"), "truncated.*copy the checkpoint again"),
        (edit_config(lambda c: c.update(type="act")), "'act'; only .*'diffusion'"),
        (edit_config(lambda c: c.update(type=["pi0"])), "'pi0'"),
        (edit_config(lambda c: c.pop("type")), "type that is not named"),
        (
            edit_config(lambda c: c.update(eta=0.5)),
            r"unknown keys \['eta'\].*LeRobot from May 2024",
        ),
        (edit_config(lambda c: c.update(use_peft=True)), "use_peft=True, expected false: merge"),
        (edit_config(lambda c: c.pop("horizon")), "horizon: Field required"),
        (edit_config(lambda c: c.update(horizon="16")), "horizon: .*valid integer"),
        (edit_config(lambda c: c.update(horizon=True)), "horizon: .*valid integer"),
        (edit_config(lambda c: c.update(horizon=7)), "horizon is 7"),
        (edit_config(lambda c: c.update(down_dims=[16, 10**9])), "down_dims.1: .*100000"),
        (edit_config(lambda c: c.update(down_dims=[12, 24], n_groups=4)), "multiple of 8"),
        (edit_config(lambda c: c.update(clip_sample=1)), "clip_sample: .*valid boolean"),
        (edit_config(lambda c: c.update(clip_sample_range=float("nan"))), "clip_sample_range"),
        (edit_config(lambda c: c.update(beta_schedule="wavy")), "beta_schedule: .*'linear'"),
        (edit_config(lambda c: c.update(prediction_type="flow")), "prediction_type: .*'sample'"),
        (edit_config(lambda c: c.update(noise_scheduler_type="LMS")), "noise_scheduler_type"),
        (
            edit_config(lambda c: c.update(num_inference_steps=21)),
            "num_inference_steps 21; at most",
        ),
        (edit_config(lambda c: c.update(vision_backbone="vit")), "vision_backbone: .*'resnet18'"),
        (edit_config(lambda c: c.update(input_features=None)), "input_features: .*dictionary"),
        (edit_config(lambda c: c["input_features"].pop(STATE)), f"no feature '{STATE}'"),
        (edit_config(lambda c: c["output_features"].pop("action")), "no feature 'action'"),
        (
            edit_config(lambda c: c["input_features"][STATE].update(shape=[3, 2])),
            r"'observation.state' has shape \(3, 2\), expected \(width,\)",
        ),
        (
            edit_config(lambda c: c["input_features"][STATE].update(type="JOINTS")),
            "input_features.observation.state.type: Input should be 'STATE'",
        ),
        (
            edit_config(
                lambda c: c["input_features"].update(env=c["input_features"].pop(ENVIRONMENT))
            ),
            "type ENV is called 'env'",
        ),
        (
            edit_config(lambda c: c["normalization_mapping"].update(STATE="ROBUST")),
            "normalization_mapping.STATE: .*'MIN_MAX'",
        ),
        (
            edit_config(lambda c: c["normalization_mapping"].update(STATE="MEAN_STD")),
            "'observation.state' with MIN_MAX, config.json says MEAN_STD",
        ),
        (write("train_config.json", '{"env": {"fps": "10"}}'), "env.fps='10', expected a rate"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(
    damage: Damage, message: str, tmp_path: Path
) -> None:
    assert_refused("states", damage, message, tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove(PREPROCESSOR), f"{PREPROCESSOR}' is missing"),
        (remove(POSTPROCESSOR), f"{POSTPROCESSOR}' is missing"),
        (remove(NORMALIZER), "normalizer_processor.safetensors' is missing"),
        (write(UNNORMALIZER, ""), "truncated"),
        (
            lambda directory: [
                (directory / name).unlink() for name in (PREPROCESSOR, POSTPROCESSOR)
            ],
            "no statistics: neither policy_preprocessor.json",
        ),
        (edit_json(PREPROCESSOR, lambda c: c.update(steps={})), "steps: .*valid list"),
        (edit_step(3, lambda step: step.pop("state_file")), "names no state_file"),
        (edit_step(3, lambda step: step.update(state_file="../x.safetensors")), "'../x.safeten"),
        (edit_step(3, lambda step: step.update(state_file="/x.safetensors")), "beside it"),
        (edit_step(3, lambda step: step.update(state_file="..")), "beside it"),
        (edit_step(3, lambda step: step.update(state_file="")), "beside it"),
        (edit_step(3, lambda step: step.update(state_file="a" * 999)), "beside it"),
        (edit_step(3, lambda step: step.update(registry_name="x")), "has 0 steps 'normalizer_pro"),
        (edit_step(0, lambda step: step.update(registry_name="hil_crop")), "steps.*'hil_crop'"),
        (edit_step(3, lambda step: step["config"].update(eps=0.0)), "eps: .*greater"),
        (
            edit_step(3, lambda step: step["config"]["norm_map"].update(STATE="MEAN_STD")),
            "'observation.state' with MEAN_STD, config.json says MIN_MAX",
        ),
        (
            edit_step(3, lambda step: step["config"].update(normalize_observation_keys=[])),
            "'observation.state' with IDENTITY, config.json says MIN_MAX",
        ),
        (
            edit_step(3, lambda step: step["config"]["features"][STATE].update(shape=[4])),
            r"STATE \(4,\) of 'observation.state', config.json STATE \(3,\)",
        ),
        (
            edit_step(3, lambda step: step["config"]["features"].pop(STATE)),
            "says nothing of 'observation.state'",
        ),
        (
            edit_tensors(NORMALIZER, lambda t: t.pop(f"{STATE}.max")),
            "no 'observation.state.max', which .* mode MIN_MAX needs.*save the policy again",
        ),
        (
            edit_tensors(UNNORMALIZER, lambda t: t.update({"action.min": torch.zeros(3)})),
            r"'action.min' has shape \(3,\), expected \(2,\)",
        ),
        (
            edit_tensors(
                NORMALIZER, lambda t: t.update({f"{STATE}.max": t[f"{STATE}.max"].long()})
            ),
            "'observation.state.max' is torch.int64, expected float32; LeRobot cuts",
        ),
        (
            edit_tensors(UNNORMALIZER, lambda t: t["action.min"].fill_(torch.nan)),
            "'action.min' is .*expected finite",
        ),
        (
            edit_tensors(UNNORMALIZER, lambda t: t["action.min"].fill_(1e9)),
            "expected a range or deviation of 0 or more",
        ),
        (
            edit_tensors(
                UNNORMALIZER, lambda t: [t[f"action.{k}"].fill_(3e38) for k in ("min", "max")]
            ),
            "statistics of 'action' are beyond float32",
        ),
    ],
)
def test_statistics_that_do_not_fit_are_refused(
    damage: Damage, message: str, tmp_path: Path
) -> None:
    assert_refused("states", damage, message, tmp_path)


BUFFER = "normalize_inputs.buffer_observation_state"


@pytest.mark.parametrize(
    ("case", "damage", "message"),
    [
        (
            "old_states",
            edit_tensors("model.safetensors", lambda t: t[f"{BUFFER}.min"].fill_(torch.inf)),
            f"'{BUFFER}.min' is .*inf.*expected finite.*never filled in",
        ),
        (
            "old_states",
            edit_tensors("model.safetensors", lambda t: t.pop(f"{BUFFER}.min")),
            f"no '{BUFFER}.min'",
        ),
        (
            "old_states",
            edit_config(lambda c: c["normalization_mapping"].update(ACTION="QUANTILES")),
            "no 'unnormalize_outputs.buffer_action.q01'",
        ),
        (
            "2024_states",
            edit_config(lambda c: c["input_normalization_modes"].update({STATE: "quantiles"})),
            "input_normalization_modes.observation.state: .*'mean_std'",
        ),
        ("2024_states", edit_config(lambda c: c.pop("num_train_timesteps")), "not named; only"),
        ("2024_states", edit_config(lambda c: c.update(use_ema=True)), "use_ema=True"),
        (
            "camera",
            edit_config(lambda c: c.update(crop_shape=[41, 10])),
            r"crop \(41, 10\) is larger",
        ),
        (
            "camera",
            edit_config(
                lambda c: c["input_features"]["observation.image"].update(shape=[1, 40, 48])
            ),
            r"must be an input of shape \(3, height, width\)",
        ),
        (
            "cameras_shared",
            edit_config(
                lambda c: c["input_features"]["observation.images.a"].update(shape=[3, 30, 30])
            ),
            r"'observation.images.a' has shape \(3, 30, 30\) and 'observation.images.wrist'",
        ),
    ],
)
def test_other_layouts_are_checked_alike(
    case: str, damage: Damage, message: str, tmp_path: Path
) -> None:
    assert_refused(case, damage, message, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("diffusion.unet.final_conv.1.bias"), "lacks 'final_conv.1.bias'"),
        (lambda t: t.update({"diffusion.x": torch.zeros(1)}), "has unknown 'diffusion.x'"),
        (
            lambda t: t.update({"diffusion.unet.final_conv.1.bias": torch.zeros(3)}),
            r"'diffusion.unet.final_conv.1.bias' has shape \(3,\)",
        ),
        (
            lambda t: t["diffusion.unet.final_conv.1.bias"].fill_(torch.inf),
            "infinite values in 'diffusion.unet.final_conv.1.bias'",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path
) -> None:
    assert_refused("states", edit_tensors("model.safetensors", change), message, tmp_path)


def test_averaged_weights_beside_a_calibration_of_the_live_ones(tmp_path: Path) -> None:
    """To calibrate again, which measures the live weights, would not help."""
    live = save("states", tmp_path / "pretrained_model")
    save("states", tmp_path / "pretrained_model_ema", seed=5)
    policy = load_policy(live)
    observation = {n: torch.zeros(2, 2, *s) for n, s in policy.config.inputs.items()}
    measured = calibrate(policy.chain("ddim", 4), observation, Settings(jacobians=2, cases=4))
    schedule = policy.config.noise_scheduler
    save_calibration(live, measured, checkpoint_hash(live), schedule)
    assert load_policy(live).calibrations
    with pytest.raises(
        CheckpointError, match=r"other weights .*convert '.*' DIRECTORY --weights ema"
    ):
        load_policy(live, weights="ema")
    assert not load_policy(live, weights="ema", calibrated=False).calibrations
