"""Makes `dit.safetensors` with the network of LeRobot's `multi_task_dit`.

Run with lerobot 0.6.1 and its extra `multi_task_dit`, in an environment of its own:

    PYTHONPATH=. python -m tests.networks.goldens.make_dit

Weights follow `recipe` and are not stored; see `make_networks`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.networks.goldens.recipe import fill

GOLDENS = Path(__file__).parent / "dit.safetensors"
ACTIONS, HORIZON, CONDITION = 3, 10, 7
SIZE = {"hidden_dim": 24, "num_layers": 3, "num_heads": 2, "timestep_embed_dim": 12}
VARIANTS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "another base": {"rope_base": 50.0},
    "learned": {"use_rope": False, "use_positional_encoding": True},
    "rotary and learned": {"use_positional_encoding": True},
    "no positions": {"use_rope": False},
}


def theirs(config: dict[str, Any]) -> Any:
    """LeRobot's network of that size, in evaluation mode."""
    from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
    from lerobot.policies.multi_task_dit.modeling_multi_task_dit import DiffusionTransformer

    action = SimpleNamespace(shape=(ACTIONS,))
    options = vars(MultiTaskDiTConfig()) | {"horizon": HORIZON} | config
    network = DiffusionTransformer(
        SimpleNamespace(action_feature=action, **options), conditioning_dim=CONDITION
    )
    return network.eval()


def our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its weights by our names: torch's own attention is one layer of ours."""
    ours = (("multihead_attn.in_proj_", "attn.qkv_proj."), ("multihead_attn.", "attn."))
    for old, new in ours:
        state = {name.replace(old, new): value for name, value in state.items()}
    return state


def inputs() -> dict[str, Tensor]:
    """Of three rows; `t` are steps of a diffusion, `time` those of a flow."""
    generator = torch.Generator().manual_seed(100)
    return {
        "x": torch.rand((3, HORIZON, ACTIONS), generator=generator),
        "t": torch.tensor([0, 37, 99]),
        "time": torch.tensor([0.0, 0.37, 0.99]),
        "condition": torch.rand((3, CONDITION), generator=generator),
    }


@torch.no_grad()
def make() -> None:
    given = inputs()
    outputs, facts = dict(given), {}
    for seed, (name, changes) in enumerate(VARIANTS.items()):
        config = SIZE | changes
        network = theirs(config)
        state = our_names(network.state_dict())
        facts[name] = {
            "config": config,
            "seed": seed,
            "checksum": fill(state, seed),
            "state_names": sorted(state),
        }
        for steps in ("t", "time"):
            outputs[f"{name}/{steps}"] = network(given["x"], given[steps], given["condition"])
    save_file(outputs, GOLDENS, {"variants": json.dumps(facts)})


if __name__ == "__main__":
    make()
