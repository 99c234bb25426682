"""Checkpoints of LeRobot's `multi_task_dit` act as in LeRobot; broken ones are refused.

What LeRobot itself made of them is recorded in `goldens/`, by `make_lerobot_dit.py`. Where LeRobot is
installed, the real class is asked over a grid of options, too.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from para_policy import load_policy
from para_policy.checkpoints import describe
from para_policy.checkpoints.lerobot import text
from para_policy.checkpoints.lerobot.read import _made_at, read_lerobot
from para_policy.checkpoints.native import save_checkpoint
from para_policy.diffusion.noise import Noise
from para_policy.errors import CheckpointError, InputError
from para_policy.networks.config import ClipConfig
from para_policy.policies.build import TASK as FEATURES
from tests.checkpoints.golden import Golden, read_golden
from tests.checkpoints.goldens.make_lerobot_dit import (
    CASES,
    CLIP,
    FLOW,
    ONE,
    TASK,
    TWO,
    DiTCase,
    record,
)

PREPROCESSOR = "policy_preprocessor.json"
GRID = {
    "rope": DiTCase(options={"use_positional_encoding": True}),
    "DDIM": DiTCase(options={"noise_scheduler_type": "DDIM", "num_inference_steps": 4}),
    "sample": DiTCase(options={"prediction_type": "sample", "beta_schedule": "linear"}),
    "DDIM of samples": DiTCase(
        options={"noise_scheduler_type": "DDIM", "prediction_type": "sample", "n_action_steps": 7}
    ),
    "flow": DiTCase(options={**FLOW, "n_obs_steps": 3, "n_action_steps": 1}),
    "flow to noise": DiTCase(
        options={**FLOW, "sigma_min": 0.2},
        modes={"STATE": "QUANTILE10", "ACTION": "QUANTILES"},
    ),
    "camera": DiTCase(ONE, {"image_resize_shape": (33, 50)}),
    "separate": DiTCase(TWO, {**FLOW, "use_separate_rgb_encoder_per_camera": True}),
    "shared": DiTCase(TWO, {"image_resize_shape": (32, 32), "image_crop_shape": None}),
}


def save(golden: Golden, folder: Path) -> Path:
    """Write the checkpoint, and the part of CLIP that is not in it."""
    clip = folder / "clip"
    clip.mkdir()
    for name, content in golden.facts["clip"].items():
        (clip / name).write_text(content)
    directory = golden.save(folder / "policy")
    for path in directory.glob("*.json"):
        path.write_text(path.read_text().replace(CLIP, str(clip)))
    return directory


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Callable[[Golden], None]:
    """Gives the tokens that LeRobot had, where the package that finds them is not installed."""

    def of(golden: Golden) -> None:
        if importlib.util.find_spec("tokenizers") is None:
            monkeypatch.setattr(text, "_tokens", lambda *given: golden.tensors["tokens"].tolist())

    return of


def assert_as_in_lerobot(
    golden: Golden, directory: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    recorded = golden.tensors
    policy = load_policy(directory, **options)
    obs = {name: value.numpy() for name, value in golden.part("obs").items()}
    values = policy.encoder.check(obs, batched=False)
    condition = policy.encoder.encode(values, torch.device("cpu"))
    assert_close(condition, recorded["condition"])
    output = policy.network(recorded["x"], recorded["t"], condition.expand(2, -1))
    assert output.std() > 0.05, "nothing to see"
    assert_close(output, recorded["output"])
    noise = Noise(recorded["initial"], recorded["steps"])
    monkeypatch.setattr(Noise, "from_seeds", lambda *args, **kwargs: noise)
    result = policy.sample(obs)
    assert_close(torch.from_numpy(result.sample), recorded["sample"][0])
    assert_close(torch.from_numpy(result.actions), recorded["actions"])


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Rounding grows with the numbers, and with the steps."""
    size = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * size)


@pytest.mark.parametrize("case", CASES)
def test_everything_is_as_in_lerobot_and_after_conversion(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: Callable[[Golden], None]
) -> None:
    golden = read_golden(case)
    tokens(golden)
    directory = save(golden, tmp_path)
    checkpoint = read_lerobot(directory, task=TASK)
    torch.testing.assert_close(
        checkpoint.state[FEATURES], golden.tensors["features"], rtol=1e-5, atol=1e-5
    )
    assert_as_in_lerobot(golden, directory, monkeypatch, task=TASK)
    native = tmp_path / "native"
    save_checkpoint(native, checkpoint.config, checkpoint.state, checkpoint.normalizers)
    assert_as_in_lerobot(golden, native, monkeypatch)


@pytest.mark.parametrize("case", GRID)
def test_everything_is_as_in_the_installed_lerobot(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lerobot.policies.multi_task_dit")
    golden = Golden(*record(GRID[case], tmp_path / "theirs"))
    assert_as_in_lerobot(golden, save(golden, tmp_path), monkeypatch, task=TASK)


@pytest.mark.parametrize("case", ["dit_state", "dit_flow", "dit_cameras"])
def test_averaged_weights_are_listed_in_the_order_of_lerobots_modules(case: str) -> None:
    names = read_golden(case).facts["parameters"]
    assert sorted(names, key=_made_at) == names


@pytest.mark.parametrize("words", [TASK, "", "THE  the\tPush'pus 42.", "the push " * 20])
def test_texts_become_the_tokens_of_clip(words: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    directory = save(read_golden("dit_state"), tmp_path)
    found = text._tokens(words, text._settings(directory / PREPROCESSOR))
    if words == TASK:
        assert found == read_golden("dit_state").tensors["tokens"].tolist()
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "clip")
    assert found == theirs(words, max_length=24, truncation=True)["input_ids"]


def test_without_its_text_a_policy_is_described_and_does_not_act(tmp_path: Path) -> None:
    directory = save(read_golden("dit_camera"), tmp_path)
    facts = describe.describe(directory)
    assert "--task 'what the robot is to do'" in facts["task"]
    assert "DiT with 2 layers of width 16" in facts["policy"]
    assert "CLIP with 2 layers of width 24, patches of 8 x 8" in facts["inputs"]
    assert "left out: 'observation_encoder.text_encoder" in facts["weights used"]
    with pytest.raises(
        CheckpointError, match="was trained with texts, and needs the one of its task"
    ):
        load_policy(directory)


def test_a_text_is_for_policies_that_take_one(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "checkpoints" / "pusht_state"
    with pytest.raises(InputError, match=r"task is 'x'; .* is no LeRobot checkpoint"):
        load_policy(shipped, task="x")
    diffusion = read_golden("states").save(tmp_path)
    with pytest.raises(InputError, match=r"task is 'x'; .* takes no text"):
        load_policy(diffusion, task="x")


def test_a_crop_that_does_not_fit_is_none_as_in_lerobot(tmp_path: Path) -> None:
    directory = save(read_golden("dit_cameras_shared"), tmp_path)
    edit(directory / "config.json", image_crop_shape=[33, 10])
    vision = read_lerobot(directory).config.vision
    assert isinstance(vision, ClipConfig)
    assert (vision.resize, vision.crop, vision.size.hidden_act) == ((32, 32), None, "gelu")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_step(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    step = next(s for s in content["steps"] if s["registry_name"] == text.STEP)
    step["config"] |= changes
    path.write_text(json.dumps(content))


def drop(directory: Path, name: str) -> None:
    model = directory / "model.safetensors"
    save_file({k: v for k, v in load_file(model).items() if not k.endswith(name)}, model)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "rk4": (
        lambda d: edit(d / "config.json", integration_method="rk4"),
        "has integration_method 'rk4', .* --set integration_method=euler",
    ),
    "unknown key": (lambda d: edit(d / "config.json", flux=1), r"unknown keys \['flux'\]"),
    "no tower of that name": (
        lambda d: edit(d / "config.json", vision_encoder_name="/no/clip"),
        "'/no/clip' is no local directory",
    ),
    "image of another size": (
        lambda d: edit(d / "config.json", image_crop_shape=None),
        r"camera 'observation.image': the encoder would see 40 x 48 pixels; it needs 32 x 32",
    ),
    "filled up on the left": (
        lambda d: edit_step(d / PREPROCESSOR, padding_side="left"),
        "fills texts up on the left",
    ),
    "no tokenizer": (
        lambda d: edit_step(d / PREPROCESSOR, tokenizer_name=str(d)),
        "has no tokenizer.json, which the text needs",
    ),
    "no patches": (
        lambda d: drop(d, "patch_embedding.weight"),
        "patch_embedding.weight' is missing; expected a weight with 4 axes",
    ),
    "no text tower": (
        lambda d: drop(d, "token_embedding.weight"),
        "token_embedding.weight' is missing",
    ),
    "no projection": (lambda d: drop(d, "projection.bias"), "lacks 'bias'"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_what_is_broken_is_refused(
    damage: str, tmp_path: Path, tokens: Callable[[Golden], None]
) -> None:
    golden = read_golden("dit_camera")
    if damage == "no tokenizer":
        pytest.importorskip("tokenizers")
    tokens(golden)
    directory = save(golden, tmp_path)
    broken, message = BROKEN[damage]
    broken(directory)
    with pytest.raises(CheckpointError, match=message):
        read_lerobot(directory, task=TASK)
