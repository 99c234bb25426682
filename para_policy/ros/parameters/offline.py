"""Parameter files, read as ROS itself does, by nodes that nobody else gets to see."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from para_policy.errors import InputError
from para_policy.ros.messages.input_files import InputForms, read_inputs
from para_policy.strict_yaml import read_yaml

_QUOTES = "\"'"
_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_SUBSTITUTION = re.compile(r"\$\((?P<verb>[\w-]+)\s*(?P<argument>[^)]*?)\s*\)")


@dataclass(frozen=True)
class ResolvedFile:
    """A parameter file without substitutions, which ROS itself does not know.

    Attributes:
        path: of a copy.
        problems: substitutions that stand there unchanged, and why.
    """

    path: Path
    document: Any
    problems: tuple[str, ...]


@contextmanager
def resolved_file(path: Path) -> Iterator[ResolvedFile]:
    """A copy of a parameter file in which `$(find-pkg-share PACKAGE)` is replaced.

    Raises:
        InputError: when the file cannot be read, or is not YAML.
    """
    problems: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if match["verb"] != "find-pkg-share":
            problems.append(f"{match[0]} is left to `ros2 launch`")
            return match[0]
        try:
            return str(get_package_share_directory(match["argument"]))
        except (LookupError, OSError, ValueError) as error:
            problems.append(f"{match[0]}: {str(error).strip(_QUOTES).splitlines()[0]}")
            return match[0]

    try:
        text = _SUBSTITUTION.sub(replace, path.read_text(encoding="utf-8"))
        document = read_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read parameter file '{path}': {error}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"parameter file '{path}' is not valid YAML: {reason}") from error
    with tempfile.TemporaryDirectory(prefix="para_policy_parameters_") as folder:
        copy = Path(folder) / path.name
        copy.write_text(text, encoding="utf-8")
        yield ResolvedFile(copy, document, tuple(problems))


@contextmanager
def offline_node(name: str, namespace: str, file: Path, *, given: bool = False) -> Iterator[Node]:
    """A node that reads the parameters in `file`, without being discovered.

    Args:
        given: declare all parameters that the file gives to the node, whatever they are.
    Raises:
        InputError: when ROS cannot read the file.
    """
    context = Context()
    reach = os.environ.get(_RANGE)
    os.environ[_RANGE] = "OFF"  # a second policy_node must not appear in a running graph
    try:
        rclpy.init(args=[], context=context, domain_id=0)  # that of the environment may be none
        node = Node(
            name,
            namespace=namespace,
            context=context,
            cli_args=["--ros-args", "--params-file", str(file)],
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
            automatically_declare_parameters_from_overrides=given,
        )
    except RuntimeError as error:  # base of what rcl says about files
        rclpy.try_shutdown(context=context)
        reason = str(error).split("Error: ")[-1].split(", at /")[0].strip()
        raise InputError(f"ROS cannot read the parameter file: {reason}") from error
    finally:
        if reach is None:
            del os.environ[_RANGE]
        else:
            os.environ[_RANGE] = reach
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def inputs_of_parameters(path: Path, namespace: str, policy_node: str) -> InputForms:
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
