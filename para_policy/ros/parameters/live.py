"""Changing parameters of a configured policy node: which, when, and with what result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node

from para_policy.errors import ParaPolicyError
from para_policy.planning.fleet import Fleet
from para_policy.ros.parameters.policy import FIXED, LIVE, present_values
from para_policy.ros.serving.settings import Loaded, change_settings


def change_parameters(
    node: Node, loaded: Loaded, fleet: Fleet, parameters: Sequence[Any]
) -> SetParametersResult:
    """Take over all of `parameters`, from the next chunk on, or refuse all and say why.

    ROS has checked types and ranges already. Parameters that are not ours are left to others.
    """
    changes = {parameter.name: parameter.value for parameter in parameters}
    fixed = sorted(FIXED & changes.keys())
    if fixed:
        reason = f"{', '.join(fixed)} cannot change now; deactivate and cleanup the node first"
        return SetParametersResult(successful=False, reason=reason)
    changed = LIVE & changes.keys() - {"seed"}  # which counts from the next reset on
    if not changed:
        return SetParametersResult(successful=True)
    try:
        values = present_values(node, {name: changes[name] for name in changed})
        fleet.change(change_settings(loaded, fleet.settings, values, frozenset(changed)))
    except ParaPolicyError as error:
        return SetParametersResult(successful=False, reason=str(error))
    except Exception as error:  # options in YAML reach code that does not expect every type
        return SetParametersResult(successful=False, reason=f"not usable: {error!r}")
    return SetParametersResult(successful=True)
