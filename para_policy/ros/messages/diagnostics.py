"""Diagnostic messages: what a node does, or why it does nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from para_policy.planning.chunks import PlannedChunk

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def make_status(
    name: str, level: bytes, message: str, values: Mapping[str, Any], hardware_id: str = ""
) -> DiagnosticStatus:
    """A status with `values` as text; floats to six digits."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id=hardware_id, values=pairs
    )


def make_array(stamp: Time, *statuses: DiagnosticStatus) -> DiagnosticArray:
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message


def status_values(status: DiagnosticStatus) -> dict[str, str]:
    """The key-value pairs of a status; the inverse of `make_status` up to text."""
    return {pair.key: pair.value for pair in status.values}


def describe_plan(plan: PlannedChunk, now_ns: int) -> dict[str, Any]:
    """The values of `~/chunk_info`; `stamp_ns` tells which chunk message they belong to.

    `error_bound` is the largest over the action coordinates, physical units; nan where the sampler is
    not calibrated, and after a warm start. `margin_ms` is what was left of the deadline, nan without
    one. `encode_ms` is the part of `latency_ms` that the observation took, camera encoders included.
    `observation_spacing_ms/INPUT` is nan at the start of an episode.
    `executed` is "none" after a cold start, `frozen` where no committed action was taken over.
    """
    deadline_s = plan.settings.deadline_s
    margin_s = deadline_s - plan.latency_s if deadline_s else math.nan
    spacings = {
        f"observation_spacing_ms/{name}": plan.spacing_ns.get(name, math.nan) / 1e6
        for name in sorted(plan.settings.streams({n: v.shape[1:] for n, v in plan.seen.items()}))
    }
    return {
        "chunk": plan.chunk.id,
        "stamp_ns": plan.chunk.stamp_ns,
        "sampler": plan.settings.sampler_name,
        "rounds": int(plan.stats.rounds),
        "evals": int(plan.stats.evals),
        "residual": float(plan.stats.residual),
        "error_bound": float(plan.stats.error_bound.max()),
        "converged": bool(plan.stats.converged),
        "latency_ms": 1e3 * plan.latency_s,
        "encode_ms": 1e3 * plan.stats.encode_s,
        "status": str(plan.stats.status),
        "due_ns": "none" if plan.due_ns is None else plan.due_ns,
        "margin_ms": 1e3 * margin_s,
        "deadline_misses": plan.deadline_misses,
        "overruns_in_a_row": plan.overruns,
        "unconverged_in_a_row": plan.unconverged,
        "executed": "none" if plan.executed is None else plan.executed,
        "frozen": "none" if plan.committed is None else plan.committed,
        "batch": plan.batch,
        "seed": plan.seed,
        "observation": plan.observation,
        "settings": plan.settings.id,
        "observation_age_ms": (now_ns - plan.chunk.stamp_ns) / 1e6,
        **spacings,
    }
