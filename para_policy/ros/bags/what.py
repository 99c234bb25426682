"""What a recorder is to record, from the files that the nodes were started with."""

from __future__ import annotations

from pathlib import Path

from rclpy.parameter import Parameter

from para_policy.errors import InputError
from para_policy.ros.messages.inputs import InputMapping, read_inputs
from para_policy.ros.parameters.offline import offline_node, resolved_file


def inputs_of_parameters(path: Path, namespace: str, policy_node: str) -> dict[str, InputMapping]:
    """The mapping that a parameter file gives to the policy node.

    Raises:
        InputError: when it names no inputs file, or one that is not valid.
    """
    with (
        resolved_file(path) as resolved,
        offline_node(policy_node, namespace, resolved.path, given=True) as node,
    ):
        file = node.get_parameter_or("inputs_file", Parameter("inputs_file", value="")).value
    if not file:
        raise InputError(
            f"parameter file '{path}' gives no inputs_file to {namespace.rstrip('/')}/{policy_node}"
            "; give --inputs-file, or neither to learn the topics from the node's settings message"
        )
    return read_inputs(file)
