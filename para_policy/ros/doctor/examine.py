"""Examination: all checks, in their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from para_policy.ros.doctor import device, environment
from para_policy.ros.doctor.case import Case, Request
from para_policy.ros.doctor.report import Finding, Report, skipped

Check = Callable[[Case], Iterator[Finding]]


# Modules that import rclpy are imported by the check itself: without ROS the others still run.
def _parameters(case: Case) -> Iterator[Finding]:
    from para_policy.ros.doctor import parameters_file

    return parameters_file.check(case)


def _policy(case: Case) -> Iterator[Finding]:
    from para_policy.ros.doctor import policy

    return policy.check(case)


def _inputs(case: Case) -> Iterator[Finding]:
    from para_policy.ros.doctor import policy

    return policy.check_inputs(case)


def _dds(case: Case) -> Iterator[Finding]:
    from para_policy.ros.doctor import dds

    return dds.check(case)


def _graph(case: Case) -> Iterator[Finding]:
    from para_policy.ros.doctor import graph

    return graph.check(case)


@dataclass(frozen=True)
class Section:
    name: str
    check: Check
    needs_ros: bool = True


SECTIONS = (
    Section("environment", environment.check, needs_ros=False),
    Section("parameters", _parameters),
    Section("device", device.check, needs_ros=False),
    Section("inputs", _inputs),
    Section("policy", _policy),
    Section("DDS", _dds),
    Section("running graph", _graph),
)


def examine(request: Request, on_section: Callable[[str], None] = lambda name: None) -> Report:
    """Run all checks; none hides the others.

    Args:
        on_section: called with the name of each section when it begins.
    """
    report, case = Report(), Case(request)
    case.values |= request.overrides()
    has_ros = not environment.import_problem()
    for section in SECTIONS:
        on_section(section.name)
        if section.needs_ros and not has_ros:
            report.run(section.name, lambda: [skipped("ROS 2", "not available, see above")])
        else:
            report.run(section.name, functools.partial(section.check, case))
    return report
