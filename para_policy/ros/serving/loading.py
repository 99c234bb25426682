"""Loading of a policy and of the mapping that feeds it, as parameters say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from para_policy.checkpoints.load import make_policy, read_checkpoint, resolve
from para_policy.errors import InputError
from para_policy.ros.messages.inputs import InputMapping, load_inputs
from para_policy.ros.parameters.policy import Values, sampler_options

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy and what feeds it.

    Attributes:
        weights_sha256: of the file that the weights came from.
        inputs: of the policy, by name.
    """

    policy: DiffusionPolicy
    weights_sha256: str
    inputs: Mapping[str, InputMapping]


def load(values: Values) -> LoadedPolicy:
    """Load the policy, prepare its network, and load the mapping of its inputs.

    Raises:
        ParaPolicyError: when a parameter is not valid or the checkpoint cannot be loaded.
    """
    if values["stamp_mode"] not in ("observation", "zero"):
        raise InputError(
            f"stamp_mode is '{values['stamp_mode']}'; expected 'observation' or 'zero'"
        )
    warm = values["warm_start"] and not values["lockstep"]
    if values["shift_noise"] and not warm:
        raise InputError("shift_noise is true; it needs warm_start: true and lockstep: false")
    chunking = values["real_time_chunking"]
    if chunking not in ("none", "hard", "soft"):
        raise InputError(f"real_time_chunking is '{chunking}'; expected 'none', 'hard' or 'soft'")
    if chunking != "none" and not warm:
        raise InputError(
            f"real_time_chunking is '{chunking}'; it needs warm_start: true and lockstep: false"
        )
    if values["added_latency_ms"] and values["lockstep"]:
        raise InputError(
            "added_latency_ms is set; in lockstep nothing is late: set lockstep: false"
        )
    if not values["checkpoint"]:
        raise InputError("parameter checkpoint is empty; give the directory of a checkpoint")
    if not values["inputs_file"]:
        raise InputError("parameter inputs_file is empty; give the file that maps topics to inputs")
    sampler_options(values)  # fails before the slow part
    directory = resolve(values["checkpoint"])
    checkpoint = read_checkpoint(directory)
    policy = make_policy(
        checkpoint,
        directory,
        values["device"],
        engine=values["engine"],
        precision=values["precision"],
    )
    shapes = {name: tuple(shape) for name, shape in policy.config.inputs.items()}
    inputs = load_inputs(values["inputs_file"], shapes)
    policy.warm_up()
    return LoadedPolicy(policy, checkpoint.sha256, inputs)
