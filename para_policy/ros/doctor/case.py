"""Case under examination: the user's request, and what the checks have learnt from it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from para_policy.errors import InputError

if TYPE_CHECKING:
    from para_policy.policies.config import PolicyConfig
    from para_policy.ros.messages.input_files import PolicyInputs

_SHORTEST_S, _LONGEST_S = 2.0, 600.0


@dataclass(frozen=True)
class Request:
    """Wishes of the user; None: as in the parameter file.

    Attributes:
        namespace: of the nodes.
        seconds: how long to listen to a running graph; 2 to 600, as nodes report once a second.
    Raises:
        InputError: when `seconds` is out of range.
    """

    params_file: Path | None = None
    checkpoint: str | None = None
    inputs_file: Path | None = None
    device: str | None = None
    namespace: str = ""
    control_rate_hz: float | None = None
    seconds: float = 3.0

    def __post_init__(self) -> None:
        if not _SHORTEST_S <= self.seconds <= _LONGEST_S:
            raise InputError(
                f"--seconds is {self.seconds:g}; expected {_SHORTEST_S:g} to {_LONGEST_S:g}"
            )

    def overrides(self) -> dict[str, Any]:
        """Parameters of policy_node that are given beside the file."""
        given = {
            "checkpoint": self.checkpoint,
            "inputs_file": self.inputs_file and str(self.inputs_file),
            "device": self.device,
            "control_rate_hz": self.control_rate_hz,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def full_namespace(self) -> str:
        """With the slash that node names have in the graph: "/" or "/robot1"."""
        return "/" + self.namespace.strip("/")


@dataclass
class Case:
    """Each check completes it for those after it.

    Attributes:
        values: parameters of policy_node, with defaults for what nobody has given.
        config: of the checkpoint; None until it could be read.
        inputs: topics of the policy's inputs; None until they are known.
    """

    request: Request
    values: dict[str, Any] = field(default_factory=dict)
    config: PolicyConfig | None = None
    inputs: PolicyInputs | None = None
