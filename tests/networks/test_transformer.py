"""The transformer has the original project's structure, names and arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from para_policy.networks.transformer import TransformerForDiffusion
from tests.networks.goldens.recipe import fill

GOLDENS = Path(__file__).parent / "goldens" / "transformer.safetensors"
ACTIONS, HORIZON, OBS_STEPS, FEATURES = 3, 10, 4, 5


def variants() -> dict[str, dict[str, Any]]:
    with safe_open(GOLDENS, "pt") as file:
        return json.loads(file.metadata()["variants"])


VARIANTS = variants()


def tiny(**changes: Any) -> TransformerForDiffusion:
    """With moderate weights, in evaluation mode."""
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_emb": 16, **changes}
    network = TransformerForDiffusion(ACTIONS, HORIZON, OBS_STEPS, FEATURES, **sizes).eval()
    fill(network.state_dict(), seed=0)
    return network


def inputs(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, HORIZON, ACTIONS, generator=generator)
    condition = torch.randn(count, OBS_STEPS * FEATURES, generator=generator)
    return x, torch.randint(100, (count,), generator=generator), condition


@pytest.mark.parametrize("grad", [True, False], ids=["training graph", "no grad"])
@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_are_those_of_the_original_project(name: str, grad: bool) -> None:
    facts, golden = VARIANTS[name], load_file(GOLDENS)
    network = TransformerForDiffusion(**facts["config"]).eval()
    assert fill(network.state_dict(), facts["seed"]) == pytest.approx(facts["checksum"], rel=1e-9)
    # torch takes other kernels where it needs no gradients.
    with torch.set_grad_enabled(grad):
        output = network(golden["x"], golden["t"], golden["condition"].flatten(1))
    torch.testing.assert_close(output.detach(), golden[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_state_names_are_the_original_ones(name: str) -> None:
    network = TransformerForDiffusion(**VARIANTS[name]["config"])
    assert list(network.state_dict()) == VARIANTS[name]["state_names"]


@pytest.mark.parametrize("n_cond_layers", [0, 2])
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_observing_once_serves_every_step(causal: bool, n_cond_layers: int) -> None:
    network = tiny(causal_attn=causal, n_cond_layers=n_cond_layers)
    x, t, condition = inputs()
    observed = network.observe(condition)
    assert observed.shape == (4, OBS_STEPS, 16)
    for noisy, step in ((x, t), (x + 1, t.flip(0))):
        expected = network(noisy, step, condition)
        assert torch.equal(network.denoise(noisy, step, observed), expected)
    assert not torch.allclose(network(x, t, condition), network(x, t.flip(0), condition), atol=1e-3)


@torch.no_grad()
def test_without_condition_layers_observe_does_all_work_on_observations() -> None:
    network = tiny(n_cond_layers=0)
    x, t, condition = inputs()
    observed = network.observe(condition)
    tokens: list[int] = []
    network.encoder.register_forward_hook(lambda m, i, output: tokens.append(output.shape[1]))
    network.denoise(x, t, observed)
    assert tokens == [1]


@pytest.mark.parametrize("n_cond_layers", [0, 2])
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_rows_are_independent_and_depend_on_their_inputs(causal: bool, n_cond_layers: int) -> None:
    network = tiny(causal_attn=causal, n_cond_layers=n_cond_layers)
    x, t, condition = inputs()
    together = network(x, t, condition)
    for i in range(4):
        alone = network(x[i : i + 1], t[i : i + 1], condition[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-5)
    for changed in ((x.flip(0), t, condition), (x, t + 50, condition), (x, t, condition.flip(0))):
        assert not torch.allclose(network(*changed), together, atol=1e-3)


def _first_changed(network: nn.Module, change: str, position: int) -> int | None:
    """First action that changes with an action or an observation step."""
    x, t, condition = inputs(1)
    before = network(x, t, condition)
    if change == "action":
        x[:, position] += 1
    else:
        condition[:, FEATURES * position : FEATURES * (position + 1)] += 1
    differs = (network(x, t, condition) - before).abs().amax(dim=(0, 2)) > 1e-5
    return int(differs.nonzero()[0]) if differs.any() else None


@pytest.mark.parametrize("change", ["action", "observation"])
@torch.no_grad()
def test_causal_attention_looks_only_back(change: str) -> None:
    causal, free = tiny(causal_attn=True), tiny(causal_attn=False)
    for position in range(OBS_STEPS):
        assert _first_changed(causal, change, position) == position
        assert _first_changed(free, change, position) == 0


def test_causal_attention_compares_no_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing the mask in every call would make a GPU wait."""

    def compared(*args: object, **kwargs: object) -> None:
        raise AssertionError("torch compares the mask")

    network = tiny(causal_attn=True)
    monkeypatch.setattr("torch.nn.modules.transformer._generate_square_subsequent_mask", compared)
    network(*inputs())


@pytest.mark.parametrize("n_cond_layers", [0, 2])
def test_gradients_reach_every_parameter(n_cond_layers: int) -> None:
    network = tiny(causal_attn=True, n_cond_layers=n_cond_layers).train()
    network(*inputs()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("drop", [{"p_drop_emb": 0.5}, {"p_drop_attn": 0.5}])
@pytest.mark.parametrize("n_cond_layers", [0, 2])
def test_dropout_acts_in_training_only(n_cond_layers: int, drop: dict[str, float]) -> None:
    none = {"p_drop_emb": 0.0, "p_drop_attn": 0.0}
    network = tiny(n_cond_layers=n_cond_layers, **{**none, **drop})
    assert torch.equal(network(*inputs()), network(*inputs()))
    network.train()
    assert not torch.equal(network(*inputs()), network(*inputs()))
    certain = tiny(n_cond_layers=n_cond_layers, **none).train()
    assert torch.equal(certain(*inputs()), certain(*inputs()))


@torch.no_grad()
def test_all_embedded_tokens_pass_the_dropout() -> None:
    network = tiny()
    tokens: list[int] = []
    network.drop.register_forward_hook(lambda m, i, output: tokens.append(output.shape[1]))
    network(*inputs())
    assert sorted(tokens) == [1, OBS_STEPS, HORIZON]


@pytest.mark.parametrize("n_cond_layers", [0, 2])
def test_new_networks_start_as_the_original_does(n_cond_layers: int) -> None:
    torch.manual_seed(0)
    network = TransformerForDiffusion(
        40, 40, 40, 40, n_layer=1, n_head=2, n_emb=64, n_cond_layers=n_cond_layers
    )
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name or name == "ln_f.weight":
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(parameter.mean().item()) < 0.002, name
