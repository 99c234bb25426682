"""Check of the running graph: nodes, their connections, and what they hear."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.parameter import Parameter

from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.connections import (
    check_agreement,
    check_chunks,
    check_commands,
    check_state,
)
from para_policy.ros.doctor.controllers import check_controllers
from para_policy.ros.doctor.listener import Listener
from para_policy.ros.doctor.report import Finding, Level, fail, ok, skipped, warn
from para_policy.ros.doctor.running import (
    EXECUTOR_NODE,
    POLICY_NODE,
    Names,
    make_streams,
    running_values,
    told_topics,
)
from para_policy.ros.doctor.streams import Stream
from para_policy.ros.parameters.policy import robot_names

_DISCOVERY_S = 5.0
_LAUNCH = "ros2 launch para_policy policy.launch.py"
_LEVELS = {
    DiagnosticStatus.OK: Level.OK,
    DiagnosticStatus.WARN: Level.WARN,
    DiagnosticStatus.ERROR: Level.FAIL,
    DiagnosticStatus.STALE: Level.WARN,
}


def check(case: Case) -> Iterator[Finding]:
    """Find the nodes, listen for a while, and say what was heard."""
    names = Names(case.request.full_namespace)
    with Listener() as listener:
        listener.wait(lambda: not _missing(listener, names.all()), _DISCOVERY_S)
        values = {
            **case.values,
            **running_values(listener, names.policy),
            **case.request.overrides(),
        }
        names = Names(case.request.full_namespace, robot_names(values))
        if simulated := bool(values.get("use_sim_time")):
            listener.node.set_parameters([Parameter("use_sim_time", value=True)])
        told = told_topics(listener, names.policy)
        unreadable, streams = make_streams(listener.node, names, case, values, told)
        said: dict[str, DiagnosticStatus] = {}
        listener.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda message: _remember(said, message), 10
        )
        listener.listen(case.request.seconds)
        if not _present(listener, names) and not any(stream.exists() for stream in streams):
            yield _nothing(listener)
            return
        yield from unreadable
        actions = case.config.action_names if case.config else ()
        yield from _findings(listener, names, values, actions, streams, said, simulated=simulated)


def _findings(
    listener: Listener,
    names: Names,
    values: Mapping[str, Any],
    actions: Sequence[str],
    streams: list[Stream],
    said: dict[str, DiagnosticStatus],
    *,
    simulated: bool,
) -> Iterator[Finding]:
    present = _present(listener, names)
    for name in present:
        if (count := _running(listener).count(name)) > 1:
            found = f"{count} nodes are called {name}: services and parameters reach either"
            yield fail("nodes", found, "end the others (of an earlier launch?), or use --namespace")
    if names.policy in present:
        yield _lifecycle(listener, names.policy)
    else:
        yield skipped(POLICY_NODE, f"{names.policy} is not running", _LAUNCH)
    if simulated and not listener.node.count_publishers("/clock"):
        found = "use_sim_time is true and nobody publishes /clock: time stands still"
        yield fail("clock", found, "start the simulation or bag, or set use_sim_time to false")
    for stream in streams:
        yield from stream.findings()
    executors = [name for name in names.executors if name in present]
    if names.policy in present:
        yield from check_chunks(listener.node, names.policy, executors)
    for name in names.executors:
        if name in executors:
            yield from check_commands(listener.node, name)
            yield from check_state(listener.node, name)
            if names.policy in present:
                yield from check_agreement(values, running_values(listener, name), actions)
            yield from check_controllers(listener, name)
        else:
            found = f"{name} is not running"
            yield skipped(EXECUTOR_NODE, found, "fine where a controller plays the chunks itself")
    for name in (names.policy, *executors):
        if name in present:
            yield from _diagnosis(name, said)


def _missing(listener: Listener, wanted: list[str]) -> list[str]:
    running = _running(listener)
    return [name for name in wanted if name not in running]


def _present(listener: Listener, names: Names) -> list[str]:
    running = _running(listener)
    return [name for name in names.all() if name in running]


def _running(listener: Listener) -> list[str]:
    pairs = listener.node.get_node_names_and_namespaces()
    return [f"{namespace.rstrip('/')}/{name}" for name, namespace in pairs]


def _nothing(listener: Listener) -> Finding:
    ours = (POLICY_NODE, EXECUTOR_NODE)
    elsewhere = sorted(n for n in _running(listener) if n.rsplit("/", 1)[-1] in ours)
    if elsewhere:
        namespace = elsewhere[0].rsplit("/", 1)[0]
        advice = f"give --namespace {namespace or '/'}"
        return skipped("nodes", f"not here; running are {', '.join(elsewhere)}", advice)
    return skipped("nodes", "neither policy_node nor chunk_executor is running", f"`{_LAUNCH}`")


def _lifecycle(listener: Listener, policy: str) -> Finding:
    answer = listener.call(GetState, f"{policy}/get_state", GetState.Request())
    if answer is None:
        found = f"{policy} does not answer ~/get_state"
        return fail(POLICY_NODE, found, "it hangs or has just ended: look at its output")
    label = str(answer.current_state.label)
    if label == "active":
        return ok(POLICY_NODE, f"{policy} is active")
    verb = "activate" if label == "inactive" else "configure"
    return warn(POLICY_NODE, f"{policy} is {label}", f"`ros2 lifecycle set {policy} {verb}`")


def _remember(said: dict[str, DiagnosticStatus], message: Any) -> None:
    said.update({status.name: status for status in message.status})


def _diagnosis(name: str, said: dict[str, DiagnosticStatus]) -> Iterator[Finding]:
    """Last words of a node about itself."""
    subject = f"{name} says"
    statuses = [s for n, s in said.items() if n.startswith(f"{name.lstrip('/')}: ")]
    if not statuses:
        found = "nothing on /diagnostics, where it reports every second"
        yield fail(subject, found, "it hangs, or simulated and real time are mixed up")
    for status in statuses:
        level = _LEVELS.get(status.level, Level.WARN)
        advice = "" if level == Level.OK else "`ros2 topic echo /diagnostics` shows all values"
        yield Finding(subject, level, str(status.message), advice)
