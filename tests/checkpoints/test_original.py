"""Checkpoints of the original project give what its own policies gave."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from para_policy.checkpoints.checkpoint import Checkpoint
from para_policy.checkpoints.native import read_native, save_checkpoint
from para_policy.checkpoints.original import read as original
from para_policy.checkpoints.original.read import read_original
from para_policy.checkpoints.original.unpickle import plain, read_pickle
from para_policy.diffusion.noise import Noise
from para_policy.errors import CheckpointError, InputError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers import Sequential
from tests.checkpoints.original_goldens import (
    GOLDENS,
    checkpoint_without_weights,
    observations,
    whole_checkpoint,
)

CASES = sorted(
    path.stem.removeprefix("original_") for path in GOLDENS.glob("original_*.safetensors")
)
UNET = GOLDENS / "original_unet.ckpt"


@dataclass(frozen=True)
class Case:
    name: str
    checkpoint: Checkpoint
    expected: dict[str, Tensor]

    @property
    def policy(self) -> DiffusionPolicy:
        given = self.checkpoint
        return DiffusionPolicy(given.config, given.state, given.normalizers)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    path = whole_checkpoint(name, tmp_path_factory.mktemp(name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="images are scaled down")
        checkpoint = read_original(path)
    if checkpoint.config.vision is not None:
        # The goldens were made with a torchvision that scales smoothly; the one that the project
        # asks for does not.
        vision = checkpoint.config.vision.model_copy(update={"antialias": True})
        config = checkpoint.config.changed({"vision": vision})
        checkpoint = replace(checkpoint, config=config)
    return Case(name, checkpoint, load_file(GOLDENS / f"original_{name}.safetensors"))


def test_policies_give_what_the_original_gave(case: Case) -> None:
    policy, config, expected = case.policy, case.checkpoint.config, case.expected
    shapes = {name: (config.n_obs_steps, *shape) for name, shape in config.inputs.items()}
    denoiser = policy.denoiser(observations(2, shapes))
    torch.testing.assert_close(denoiser.condition, expected["condition"], atol=1e-5, rtol=0)
    output = denoiser(expected["x"], expected["t"], torch.arange(2))
    torch.testing.assert_close(output, expected["output"], atol=1e-5, rtol=0)
    noise = Noise(expected["initial"], expected["steps"])
    sample = Sequential()(denoiser, policy.process(), noise).sample
    action = policy.normalizers["action"]
    wanted = action.normalize(expected["action_pred"])
    torch.testing.assert_close(sample, wanted, atol=1e-5, rtol=0)
    chunk = expected["action_pred"][:, config.first_action :][:, : config.n_action_steps]
    torch.testing.assert_close(chunk, expected["action"], atol=0, rtol=0)


def test_every_weight_is_used_or_left_out_for_a_reason(case: Case) -> None:
    report = case.checkpoint.report
    assert len(report.matched) == len(case.checkpoint.state)
    assert report.missing == report.unexpected == ()
    assert all(report.ignored.values())
    assert "_dummy_variable" in report.ignored


def test_converted_checkpoints_survive_the_native_format(tmp_path: Path) -> None:
    given = read_original(UNET)
    save_checkpoint(tmp_path, given.config, given.state, given.normalizers)
    again = read_native(tmp_path)
    assert again.config == given.config
    assert all(torch.equal(again.state[name], value) for name, value in given.state.items())


def test_what_configurations_say() -> None:
    unet = read_original(UNET).config
    assert (unet.inputs, unet.horizon, unet.n_action_steps) == ({"obs": (5,)}, 16, 8)
    assert (unet.first_action, unet.control_hz, unet.num_inference_steps) == (1, 10.0, 10)
    plain_unet = read_original(GOLDENS / "original_unet_plain.ckpt").config
    assert (plain_unet.first_action, plain_unet.num_inference_steps) == (2, 5)
    assert plain_unet.noise_scheduler["_class_name"] == "DDIMScheduler"
    short = read_original(GOLDENS / "original_transformer_short.ckpt").config
    assert (short.horizon, short.n_action_steps, short.first_action) == (8, 8, 0)


Payload = dict[str, Any]


@pytest.fixture
def read_changed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Checkpoint]:
    """Read a golden after a change to what it holds."""

    def read(change: Callable[[Payload], object], **options: Any) -> Checkpoint:
        payload = read_pickle(UNET)
        payload["cfg"] = plain(UNET, payload["cfg"])
        change(payload)
        monkeypatch.setattr(original, "read_pickle", lambda path: payload)
        return read_original(UNET, **options)

    return read


def test_averaged_weights_are_taken_where_the_original_takes_them(
    read_changed: Callable[..., Checkpoint],
) -> None:
    name = "final_conv.1.bias"
    ema, live = (read_original(UNET, weights=kind).state[name] for kind in ("ema", "live"))
    assert not torch.equal(ema, live)
    assert torch.equal(read_original(UNET).state[name], ema)
    without = read_changed(lambda payload: payload["cfg"]["training"].update(use_ema=False))
    assert torch.equal(without.state[name], live)


def without_statistics(payload: Payload) -> None:
    del payload["state_dicts"]["ema_model"]["normalizer.params_dict.obs.scale"]


def statistics_of_another_shape(payload: Payload) -> None:
    state = payload["state_dicts"]["ema_model"]
    state["normalizer.params_dict.obs.scale"] = torch.ones(3)


def statistics(value: float) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        state = payload["state_dicts"]["ema_model"]
        state["normalizer.params_dict.action.scale"] = torch.full((2,), value)

    return change


DAMAGED = [
    (lambda payload: payload.pop("cfg"), "expected a dictionary with 'cfg'"),
    (lambda payload: payload["state_dicts"].pop("ema_model"), r"no ema weights.*there: \['model'"),
    (lambda payload: payload["state_dicts"].update(ema_model=[1]), "no dictionary of tensors"),
    (lambda payload: payload.update(state_dicts=3), "there: 'int'"),
    (lambda payload: payload["cfg"].pop("training"), "training.use_ema is None.*--weights"),
    (without_statistics, "has no 'normalizer.params_dict.obs.scale'"),
    (
        statistics_of_another_shape,
        r"obs.scale' has shape \(3,\); expected one of \[\(1,\), \(5,\)\]",
    ),
    (statistics(0.0), "scale of 'action' holds 0"),
    (statistics(float("nan")), "NaN or infinite.*action.scale"),
    (
        lambda payload: payload["state_dicts"]["ema_model"].pop("model.final_conv.1.bias"),
        "lacks 'final_conv.1.bias'",
    ),
    (
        lambda payload: payload["state_dicts"]["ema_model"].update(extra=torch.ones(1)),
        "has unknown 'extra'",
    ),
    (
        lambda payload: payload["cfg"]["policy"]["model"].update(down_dims=[8, 32]),
        "its configuration needs",
    ),
]


@pytest.mark.parametrize(("change", "words"), DAMAGED)
def test_what_is_missing_or_does_not_fit_is_named(
    change: Callable[[Payload], object], words: str, read_changed: Callable[..., Checkpoint]
) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_changed(change)


def test_one_number_stands_for_all_coordinates(read_changed: Callable[..., Checkpoint]) -> None:
    def change(payload: Payload) -> None:
        state = payload["state_dicts"]["ema_model"]
        state["normalizer.params_dict.obs.scale"] = torch.tensor([3.0])

    assert read_changed(change).normalizers["obs"].scale.tolist() == [3.0] * 5


def changed_golden(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Tensor
) -> Path:
    """A golden of images in which one of the averaged tensors is another one."""
    path = checkpoint_without_weights(name, folder)
    payload = read_pickle(path)
    payload["state_dicts"]["ema_model"][key] = value
    monkeypatch.setattr(original, "read_pickle", lambda path: payload)
    return path


def with_references(payload: Payload) -> None:
    cfg, policy = payload["cfg"], payload["cfg"]["policy"]
    cfg.update(horizon=policy["horizon"], n_obs_steps=policy["n_obs_steps"])
    policy["horizon"] = "${horizon}"
    policy["model"]["input_dim"] = "${eval:'${policy.action_dim} if True else None'}"
    policy["model"]["global_cond_dim"] = "${eval: ${policy.obs_dim} * ${n_obs_steps}}"


def with_an_unknown_reference(payload: Payload) -> None:
    payload["cfg"]["policy"]["horizon"] = "${now:%H}"


def test_references_that_a_file_still_holds_are_resolved(
    read_changed: Callable[..., Checkpoint],
) -> None:
    expected = read_original(UNET).config
    assert read_changed(with_references).config == expected
    assert read_changed(with_references, changes={"horizon": 32}).config.horizon == 32
    with pytest.raises(
        CheckpointError, match=r"horizon is '\$\{now:%H\}': .*--set policy.KEY=VALUE"
    ):
        read_changed(with_an_unknown_reference)
    found = read_changed(with_an_unknown_reference, changes={"policy.horizon": 16})
    assert found.config == expected


def test_a_change_that_nothing_reads_is_told(read_changed: Callable[..., Checkpoint]) -> None:
    with pytest.warns(UserWarning, match="--set horizon=32 changes nothing"):
        read_changed(lambda payload: None, changes={"horizon": 32})


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod."])
def test_weights_of_a_distributed_training_are_understood(
    read_changed: Callable[..., Checkpoint], prefix: str
) -> None:
    def wrap(payload: Payload) -> None:
        states = payload["state_dicts"]
        states["ema_model"] = {prefix + key: value for key, value in states["ema_model"].items()}

    expected, found = read_original(UNET), read_changed(wrap)
    assert found.state.keys() == expected.state.keys()
    assert all(torch.equal(found.state[name], value) for name, value in expected.state.items())
    assert torch.equal(found.normalizers["obs"].scale, expected.normalizers["obs"].scale)


def test_a_softmax_of_another_temperature_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "obs_encoder.obs_nets.image.nets.1.temperature"
    value = torch.tensor([0.5])
    path = changed_golden("hybrid_transformer", tmp_path, monkeypatch, key, value)
    with pytest.raises(CheckpointError, match="temperature' is not 1"):
        read_original(path)


def test_trust_is_warned_of_and_gives_the_same() -> None:
    pytest.importorskip("dill")
    pytest.importorskip("omegaconf")
    with pytest.warns(UserWarning, match="code that .* may contain is run"):
        trusted = read_original(UNET, trust_pickle=True)
    safe = read_original(UNET)
    assert trusted.config == safe.config
    assert trusted.report == safe.report
    assert all(torch.equal(trusted.state[name], value) for name, value in safe.state.items())


def test_trust_without_dill_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dill", None)
    with pytest.raises(InputError, match=r"needs dill; pip install '\.\[convert\]'"):
        read_original(UNET, trust_pickle=True)


def test_neither_project_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dill", "omegaconf", "hydra", "diffusion_policy", "robomimic"):
        monkeypatch.setitem(sys.modules, name, None)
    assert read_original(UNET).config.inputs == {"obs": (5,)}
