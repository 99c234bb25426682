"""A configuration that cannot work is refused when it is read, not when the robot moves."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from para_policy.policies.config import PolicyConfig
from tests.checkpoint import THREE_LEVELS, tiny_config


def changed(**changes: Any) -> dict[str, Any]:
    return {**tiny_config().model_dump(), **changes}


def with_network(**changes: Any) -> dict[str, Any]:
    return changed(network={**tiny_config().network.model_dump(), **changes})


def test_a_configuration_survives_json() -> None:
    config = tiny_config()
    assert PolicyConfig.model_validate_json(config.model_dump_json()) == config
    assert (config.action_dim, config.n_obs_steps, config.horizon) == (2, 2, 16)
    assert (config.n_action_steps, config.control_hz) == (8, 10.0)
    assert config.inputs == {"environment_state": (16,), "agent_pos": (2,)}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (with_network(down_dims=THREE_LEVELS) | {"horizon": 15}, "horizon is 15.*divisible by 4"),
        (changed(n_action_steps=16), "n_action_steps is 16.*15"),
        (changed(n_obs_steps=0), "n_obs_steps"),
        (changed(control_hz=0.0), "control_hz"),
        (changed(inputs={}), "inputs"),
        (changed(inputs={"state": (0,)}), r"inputs\.state.*greater than or equal to 1"),
        (changed(action_names=()), "action_names"),
        (changed(type="transformer"), "type"),
        (changed(horizn=16), "horizn"),
        (with_network(kernal_size=3), "kernal_size"),
        (with_network(down_dims=()), "down_dims"),
    ],
)
def test_a_wrong_value_is_named(content: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){named}"):
        PolicyConfig.model_validate(content)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (with_network(n_groups=3), "n_groups"),
        (with_network(kernel_size=4), "kernel_size"),
        (with_network(step_embed_dim=9), "step_embed_dim"),
        (with_network(down_dims=(0, 16, 16)), "down_dims"),
        (changed(inputs={"action": (2,)}), "action"),
        (changed(noise_scheduler={"_class_name": "EulerDiscreteScheduler"}), "noise_scheduler"),
        (
            changed(noise_scheduler={"_class_name": "DDPMScheduler", "clip_smaple": True}),
            "noise_scheduler",
        ),
    ],
)
def test_a_network_or_schedule_that_cannot_be_built_is_refused_at_once(
    content: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=f"(?s){named}"):
        PolicyConfig.model_validate(content)
