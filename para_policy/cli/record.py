"""`para-policy record`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from para_policy.errors import InputError
from para_policy.extras import require_ros
from para_policy.files import check_output_folder
from para_policy.terminal import answers

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Record:
    """Write what a policy node sees and says into a rosbag2 bag, until Ctrl-C."""

    output: Path
    """Folder of the new bag; must not exist."""
    params_file: Path | None = None
    """Parameters that the policy node was started with; its inputs_file says what to record."""
    inputs_file: Path | None = None
    """Topics of the policy's inputs. Without either file they come from the node's settings message."""
    namespace: str = "/"
    """Namespace of the nodes."""
    policy_node: str = "policy_node"
    """Name of the policy node."""
    storage: Literal["mcap", "sqlite3"] = "mcap"
    """Format of the bag."""
    seconds: float | None = None
    """Stop after so long."""

    def __call__(self) -> None:
        require_ros()
        from rich.live import Live

        from para_policy.ros.bags.recorder import record
        from para_policy.ros.bags.topics import RecordedNodes
        from para_policy.ros.messages.input_files import InputForms, read_inputs
        from para_policy.ros.parameters.offline import inputs_of_parameters

        if self.params_file is not None and self.inputs_file is not None:
            raise InputError("--params-file and --inputs-file were given; give one of them")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds:g}; expected more than 0")
        namespace = "/" + self.namespace.strip("/")
        inputs: InputForms | None = None
        if self.inputs_file is not None:
            inputs = read_inputs(self.inputs_file)
        elif self.params_file is not None:
            inputs = inputs_of_parameters(self.params_file, namespace, self.policy_node)
        check_output_folder(self.output.parent)
        nodes = RecordedNodes(inputs, namespace, self.policy_node)
        console = answers()
        with Live(_counts({}), console=console, transient=True) as live:
            counts, problems = record(
                self.output,
                self.storage,
                nodes,
                self.seconds,
                lambda counts: live.update(_counts(counts)),
            )
        console.print(_counts(counts))
        for problem in problems.values():
            console.print(f"not recorded: {problem}")
        console.print(f"bag: {self.output}", soft_wrap=True)


def _counts(counts: Mapping[str, int]) -> Table:
    from rich.table import Table

    table = Table("topic", "messages", box=None)
    for topic, count in sorted(counts.items()):
        table.add_row(topic, str(count))
    table.add_row("all", str(sum(counts.values())))
    return table
