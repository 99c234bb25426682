"""Metadata of an exported network: the numbers that a program around it needs."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from torch import Tensor

from para_policy.diffusion.schedulers import build_scheduler
from para_policy.policies.config import PolicyConfig
from para_policy.policies.policy import DiffusionPolicy

KEY = "para_policy"
"""Entry of the model's metadata that holds them."""


def metadata(policy: DiffusionPolicy, checkpoint_sha256: str) -> str:
    """A JSON object; its numbers are the policy's floats, to the last bit.

    Returns:
        `checkpoint_sha256`; `prediction_type`, what the network predicts
        ("flow_prediction", a velocity, for a flow); `config`, as in the
        checkpoint; `condition`, name and width of what one observation step puts side by side (the
        steps follow one another, oldest first); `task`, what stands there at the end of each, where
        the policy has one, as it is; `normalizers`, scale and offset of each input and
        of "action", where normalised = physical * scale + offset; `steps`, the recurrence of
        `Process` for the checkpoint's own scheduler and number of steps.
    """
    config, task = policy.config, policy.encoder.task
    facts = {
        "checkpoint_sha256": checkpoint_sha256,
        "prediction_type": build_scheduler(config.noise_scheduler).config.get(
            "prediction_type", "flow_prediction"
        ),
        "config": config.model_dump(mode="json"),  # infinite numbers become null
        "condition": [[name, _width(config, name)] for name in config.inputs]
        + ([] if config.task is None else [["task", config.task.width]]),
        "task": None if task is None else task.tolist(),
        "normalizers": {name: _listed(pair) for name, pair in policy.normalizers.items()},
        "steps": _listed(policy.process()),
    }
    return json.dumps(facts, allow_nan=False)


def _width(config: PolicyConfig, name: str) -> int:
    if config.vision is not None and name in config.vision.cameras:
        return config.vision.width
    return math.prod(config.inputs[name])


def _listed(table: Any) -> dict[str, Any]:
    """Fields of a dataclass, tensors as lists."""
    values = {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}
    return {
        name: value.tolist() if isinstance(value, Tensor) else value
        for name, value in values.items()
    }
