"""Loading of a policy and of the mapping that feeds it, as parameters say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from para_policy.checkpoints.load import make_policy, read_checkpoint, resolve
from para_policy.ros.messages.input_files import PolicyInputs, load_inputs
from para_policy.ros.parameters.policy import Values, check_combinations

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy and what feeds it.

    Attributes:
        weights_sha256: of the file that the weights came from.
        inputs: topics that feed it.
        topics: their full names, as remapped, by the namespace of each robot and the name of the input or
            part; empty where no node runs.
        max_rate_hz: largest control rate that may be set while the node runs: that of the
            demonstrations, or the one it was configured with where that is larger or the only one.
    """

    policy: DiffusionPolicy
    weights_sha256: str
    inputs: PolicyInputs
    max_rate_hz: float = math.inf
    topics: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def load(values: Values) -> LoadedPolicy:
    """Load the policy, prepare its network, and load the mapping of its inputs.

    Raises:
        ParaPolicyError: when a parameter is not valid or the checkpoint cannot be loaded.
    """
    check_combinations(values)  # fails before the slow part
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
    max_rate_hz = max(values["control_rate_hz"], policy.config.control_hz or 0.0)
    return LoadedPolicy(policy, checkpoint.sha256, inputs, max_rate_hz)
