"""The DiT has LeRobot's structure, names and arithmetic."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file

from para_policy.networks.config import DiTConfig
from para_policy.networks.dit import DiT
from tests.networks.goldens.make_dit import (
    ACTIONS,
    CONDITION,
    GOLDENS,
    HORIZON,
    SIZE,
    inputs,
    our_names,
    theirs,
)
from tests.networks.goldens.recipe import fill


def variants() -> dict[str, dict[str, Any]]:
    with safe_open(GOLDENS, "pt") as file:
        return json.loads(file.metadata()["variants"])


VARIANTS = variants()


def ours(config: dict[str, Any]) -> DiT:
    return DiT(ACTIONS, HORIZON, CONDITION, **config).eval()


@pytest.mark.parametrize("steps", ["t", "time"])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_outputs_are_those_of_lerobot(name: str, steps: str) -> None:
    facts, golden = VARIANTS[name], load_file(GOLDENS)
    network = ours(facts["config"])
    assert sorted(network.state_dict()) == facts["state_names"]
    assert fill(network.state_dict(), facts["seed"]) == pytest.approx(facts["checksum"], rel=1e-9)
    output = network(golden["x"], golden[steps], golden["condition"])
    assert output.std() > 0.05, "nothing to see"
    torch.testing.assert_close(output, golden[f"{name}/{steps}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_weights_of_the_real_network_serve_ours(name: str) -> None:
    pytest.importorskip("lerobot.policies.multi_task_dit")
    real, network = theirs(VARIANTS[name]["config"]), ours(VARIANTS[name]["config"])
    state = our_names(real.state_dict())
    fill(state, seed=7)
    network.load_state_dict(state)
    given = inputs()
    for steps in ("t", "time"):
        row = given["x"], given[steps], given["condition"]
        torch.testing.assert_close(network(*row), real(*row), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = ours(VARIANTS[name]["config"]).train()
    fill(network.state_dict(), seed=1)
    given = inputs()
    network(given["x"], given["time"], given["condition"]).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@torch.no_grad()
def test_new_blocks_pass_their_input_on() -> None:
    torch.manual_seed(0)
    network, given = ours(SIZE), inputs()
    expected = network.output_proj(network.input_proj(given["x"]))
    assert torch.equal(network(given["x"], given["t"], given["condition"]), expected)


@pytest.mark.parametrize(("rope", "learned"), [(True, False), (False, True), (False, False)])
@torch.no_grad()
def test_positions_tell_the_order_of_actions(rope: bool, learned: bool) -> None:
    network = ours({**SIZE, "use_rope": rope, "use_positional_encoding": learned})
    fill(network.state_dict(), seed=2)
    given = inputs()
    order = torch.randperm(HORIZON, generator=torch.Generator().manual_seed(3))
    x, rest = given["x"], (given["t"], given["condition"])
    same = torch.allclose(network(x[:, order], *rest), network(x, *rest)[:, order], atol=1e-4)
    assert same == (not rope and not learned)


def test_dropout_acts_in_training_only() -> None:
    network = ours({**SIZE, "dropout": 0.5})
    fill(network.state_dict(), seed=2)
    row = [inputs()[name] for name in ("x", "t", "condition")]
    assert torch.equal(network(*row), network(*row))
    network.train()
    assert not torch.equal(network(*row), network(*row))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"hidden_dim": 30, "num_heads": 4},
            "hidden_dim is 30; it must be a multiple of num_heads 4",
        ),
        ({"hidden_dim": 12, "num_heads": 4}, "heads of odd width"),
        ({"timestep_embed_dim": 13}, "timestep_embed_dim is 13"),
        ({"rope_base": 0}, "rope_base"),
        ({"num_layers": 0}, "num_layers"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DiTConfig(**config)
    DiTConfig(hidden_dim=12, num_heads=4, use_rope=False)
