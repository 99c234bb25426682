"""Check of the parameter file, as the nodes would read it: silently ignored or refused values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as Given

from para_policy.errors import ParaPolicyError
from para_policy.execution.guards import Limits
from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.connections import check_agreement
from para_policy.ros.doctor.parameter_sections import check_sections
from para_policy.ros.doctor.report import Finding, Level, fail, ok, skipped, warn
from para_policy.ros.parameters.declare import Parameter, declare, names, unknown_names
from para_policy.ros.parameters.executor import PARAMETERS as EXECUTOR
from para_policy.ros.parameters.offline import offline_node, resolved_file
from para_policy.ros.parameters.policy import PARAMETERS as POLICY
from para_policy.ros.playing.setup import load_setup, unmixed_warning

_LIMITS = Limits()
_WORDS = {
    Given.Type.NOT_SET: "nothing",
    Given.Type.BOOL: "true or false",
    Given.Type.INTEGER: "a whole number",
    Given.Type.DOUBLE: "a number with a decimal point",
    Given.Type.STRING: "text",
    Given.Type.BYTE_ARRAY: "an empty list",
    Given.Type.BOOL_ARRAY: "a list of true and false",
    Given.Type.INTEGER_ARRAY: "a list of whole numbers",
    Given.Type.DOUBLE_ARRAY: "a list of numbers with a decimal point",
    Given.Type.STRING_ARRAY: "a list of texts",
}


def check(case: Case) -> Iterator[Finding]:
    """Fills in `case.values`: what is given beside the file wins, as in the launch file."""
    defaults = {parameter.name: parameter.default for parameter in POLICY}
    case.values = defaults | case.request.overrides()
    file = case.request.params_file
    if file is None:
        yield skipped("parameter file", "none given: defaults are used", "give --params-file FILE")
        return
    with resolved_file(file) as resolved:
        for problem in resolved.problems:
            yield warn("substitutions", problem, "checked here as the text stands in the file")
        sections = list(check_sections(resolved.document, case.request.full_namespace))
        yield from sections
        if not any(section.subject == "parameter file" for section in sections):
            yield from _check_policy_node(case, resolved.path)
            yield from _check_executor(case, resolved.path)


def _check_policy_node(case: Case, path: Path) -> Iterator[Finding]:
    namespace = case.request.full_namespace
    given = _given("policy_node", namespace, path)
    with offline_node("policy_node", namespace, path) as node:
        findings = list(_declare(node, given, POLICY))
        declared = {name: parameter.value for name, parameter in _all(node).items()}
    yield from findings or [_fine("policy_node", given)]
    names = (case.values.keys() | {"use_sim_time"}) & declared.keys()
    case.values |= {name: declared[name] for name in names} | case.request.overrides()


def _check_executor(case: Case, path: Path) -> Iterator[Finding]:
    namespace = case.request.full_namespace
    given = _given("chunk_executor", namespace, path)
    with offline_node("chunk_executor", namespace, path) as node:
        findings = list(_declare(node, given, EXECUTOR))
        yield from findings
        if any(finding.level == Level.FAIL for finding in findings):
            return
        try:
            setup = load_setup(node)
        except ParaPolicyError as error:
            yield fail("chunk_executor", str(error), "the node refuses to start with these values")
            return
        yield _fine("chunk_executor", given)
        if setup.unmixed:
            advice = "see Coordinates in docs/ros2.md"
            yield warn("coordinates", unmixed_warning(setup.unmixed), advice)
        played = {name: parameter.value for name, parameter in _all(node).items()}
        yield from check_agreement(case.values, played)
        yield from _check_guards(node)


def _fine(node_name: str, given: dict[str, Given]) -> Finding:
    return ok(node_name, f"{len(given)} parameters given, all known and in range")


def _given(name: str, namespace: str, path: Path) -> dict[str, Given]:
    """Parameters that the file gives to a node."""
    with offline_node(name, namespace, path, given=True) as node:
        found = _all(node)
    with offline_node(name, namespace, path) as node:
        own = _all(node)  # use_sim_time and others that every node has
    return {n: p for n, p in found.items() if n not in own or p.value != own[n].value}


def _all(node: Node) -> dict[str, Given]:
    return {name: node.get_parameter(name) for name in node.get_parameters_by_prefix("")}


def _declare(
    node: Node, given: dict[str, Given], parameters: Sequence[Parameter]
) -> Iterator[Finding]:
    """Declare `parameters` as the node does, and see what the file gives beside them."""
    for parameter in parameters:
        try:
            declare(node, [parameter])
        except ParameterException:
            yield _refused(node.get_name(), parameter, given[parameter.name])
    known = set(_all(node)) | {parameter.name for parameter in parameters}
    for name, advice in unknown_names(given, known):
        yield fail(node.get_name(), f"{name} is no parameter of this node", advice)


def _refused(node_name: str, parameter: Parameter, given: Given) -> Finding:
    """The node would end at start: the value is of another type or out of range."""
    value, wanted = given.value, Given(parameter.name, value=parameter.default).type_
    if given.type_ != wanted:
        found = f"{parameter.name} is {value!r}, {_WORDS[given.type_]}; expected {_WORDS[wanted]}"
        return fail(node_name, found, _as_type(parameter.name, value, wanted))
    low, high = parameter.limits or (-math.inf, math.inf)
    found = f"{parameter.name} is {value!r}, out of range"
    return fail(node_name, found, f"expected {low:g} to {high:g}: {parameter.description}")


def _as_type(name: str, value: Any, wanted: Given.Type) -> str:
    if wanted == Given.Type.DOUBLE and type(value) is int:
        return f"write {name}: {float(value)}"
    if wanted == Given.Type.DOUBLE_ARRAY and type(value) is not str:
        numbers = value if hasattr(value, "__len__") else [value]
        if all(isinstance(number, (int, float)) for number in numbers):
            return f"write {name}: {[float(number) for number in numbers]}"
    if wanted == Given.Type.STRING:
        return f'write {name}: "{value}"'
    return f"write {_WORDS[wanted]}"


def _check_guards(node: Node) -> Iterator[Finding]:
    """Allowed, but not wise."""
    values = {name: node.get_parameter(name).value for name in vars(_LIMITS)}
    given = Limits(**{name: tuple(value) for name, value in values.items()}).given()
    missing = [name for name in values if name not in given]
    # In lockstep there is no robot, and limits are refused; positions mean nothing in a twist.
    kinds = names(node, "command_outputs") or [node.get_parameter("output").value]
    if "twist_stamped" in kinds:
        missing = [name for name in missing if not name.startswith(("position", "max_jump"))]
    if missing and not node.get_parameter("lockstep").value:
        found = f"not set: {', '.join(missing)}; nothing limits the commands that way"
        yield warn("guards", found, "set them before a real robot moves; see docs/ros2.md, Guards")
