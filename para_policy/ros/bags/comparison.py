"""What a replay says of a recorded run: which chunks are equal, and why others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from para_policy.execution import seams
from para_policy.inference.device import device_description
from para_policy.ros.bags.chain import ABSENT_PREVIOUS, Solved
from para_policy.ros.bags.chunks import ChunkRecord, Run
from para_policy.ros.bags.replay import Replayed
from para_policy.ros.messages.settings import RecordedSettings, calibration_digest

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy

Verdict = Literal["equal", "close", "different", "not comparable"]
BATCH_TOLERANCE = 1e-3
"""Largest difference of a chunk that was solved together with others, normalised action units: how
kernels add up depends on the size of the batch."""


@dataclass(frozen=True)
class Outcome:
    """One chunk of the run.

    Attributes:
        verdict: "equal" to the bit; "close" within `BATCH_TOLERANCE`, where it was solved in a batch.
        difference: largest of its actions, physical units; NaN where there is nothing to compare.
        reason: why it is not equal, in words.
        other_difference: of another sampler; None where none was run.
    """

    record: ChunkRecord
    verdict: Verdict
    difference: float
    reason: str
    rounds: int
    latency_s: float
    other: Solved | None
    other_difference: float | None


def judge(replayed: Replayed, units: NDArray[Any], circumstances: Sequence[str]) -> Outcome:
    """Compare a chunk with the recorded one.

    Args:
        units: (A,) size of a normalised action unit in physical units.
        circumstances: what differs between this machine and the recording, for reasons.
    """
    record, again = replayed.record, replayed.again
    difference = _difference(record, again)
    verdict, reason = _verdict(replayed, units, circumstances)
    return Outcome(
        record=record,
        verdict=verdict,
        difference=float("nan") if difference is None else float(difference.max()),
        reason=reason,
        rounds=again.rounds,
        latency_s=again.latency_s,
        other=replayed.other,
        other_difference=_largest(record, replayed.other),
    )


def _verdict(
    replayed: Replayed, units: NDArray[Any], circumstances: Sequence[str]
) -> tuple[Verdict, str]:
    record, again, found = replayed.record, replayed.again, replayed.found
    if record.chunk is None:
        return "not comparable", "its action_chunk is not in the bag"
    difference = _difference(record, again)
    if difference is None:
        return "not comparable", again.reason or "the bag has a chunk of another size"
    if not difference.any() and found.equal:
        return "equal", ""
    if again.reason == ABSENT_PREVIOUS:
        return "not comparable", again.reason
    if not found.equal:
        return "different", f"observation differs: {found.reason}"
    reasons = [*circumstances, *([again.reason] if again.reason else [])]
    if record.batch > 1:
        reasons.insert(0, f"solved in a batch of {record.batch}, whose kernels may round otherwise")
        if (difference <= BATCH_TOLERANCE * units).all():
            return "close", reasons[0]
    return "different", "; ".join(reasons) or "no cause is known"


def circumstances(policy: DiffusionPolicy, sha256: str, recorded: RecordedSettings) -> list[str]:
    """What differs between the recording and this replay and may change bits or more."""
    found = []
    if sha256 != recorded.weights_sha256:
        found.append(f"other weights ({sha256[:12]}, recorded {recorded.weights_sha256[:12]})")
    values = recorded.values
    process = policy.process_key(values.get("scheduler") or None, values.get("steps") or None)
    calibration = policy.calibrations.get(process)
    if ("" if calibration is None else calibration_digest(calibration)) != recorded.calibration:
        found.append("the checkpoint's calibration is another one")
    if torch.__version__ != recorded.torch:
        found.append(f"torch {torch.__version__}, recorded {recorded.torch}")
    if torch.get_num_threads() != recorded.threads:
        found.append(f"{torch.get_num_threads()} threads, recorded {recorded.threads}")
    if device_description(policy.device) != recorded.device:
        found.append(f"on {device_description(policy.device)}, recorded on {recorded.device}")
    engine = policy.engine_in_use
    if engine.label != recorded.engine.label:
        found.append(f"engine {engine.label}, recorded {recorded.engine.label}")
    elif engine != recorded.engine:
        found.append(f"engine {engine.label} with other batch sizes or threads than recorded")
    return found


def summarise(run: Run, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The report of one robot's run, as it goes into JSON; see docs/recording.md."""
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    records = [outcome.record for outcome in outcomes]
    differing = [o for o in outcomes if o.verdict == "different"]
    return {
        "node": run.node,
        "chunks": len(run.chunks),
        "without_info": run.without_info,
        "episodes": sum(record.index == 0 for record in records) or min(len(records), 1),
        "replayed": sum(not np.isnan(outcome.latency_s) for outcome in outcomes),
        "equal": verdicts["equal"],
        "close": verdicts["close"],
        "different": verdicts["different"],
        "not_comparable": verdicts["not comparable"],
        "largest_difference": max((o.difference for o in differing), default=0.0),
        "latency_ms": percentiles([record.latency_ms for record in records]),
        "replay_latency_ms": percentiles([1e3 * outcome.latency_s for outcome in outcomes]),
        "rounds_mean": _mean([record.rounds for record in records]),
        "reasons": dict(Counter(o.reason for o in outcomes if o.reason)),
        "seams": seam_jumps(records),
        "other": _summarise_other(outcomes),
        "per_chunk": [_describe(outcome) for outcome in outcomes],
    }


def seam_jumps(records: Sequence[ChunkRecord]) -> dict[str, Any]:
    """Jumps of velocity and acceleration as executed, at the seams and inside chunks."""
    found: dict[str, Any] = {}
    for name, order in (("velocity", seams.VELOCITY), ("acceleration", seams.ACCELERATION)):
        parts = [
            seams.jumps(chunks, order, dt_ns / 1e9) for dt_ns, chunks in _played(records) if chunks
        ]
        found[name] = {
            "seam": [float(x) for at_seams, _ in parts for x in at_seams],
            "inside": [float(x) for _, inside in parts for x in inside],
        }
    return found


def _played(records: Sequence[ChunkRecord]) -> list[tuple[int, list[NDArray[Any]]]]:
    """Runs of executed chunks with their dt; an episode ends a run."""
    episodes: list[list[ChunkRecord]] = []
    for record in records:
        if record.chunk is None:
            continue
        last = episodes[-1][-1].chunk if episodes else None
        if last is None or record.index == 0 or last.dt_ns != record.chunk.dt_ns:
            episodes.append([])
        episodes[-1].append(record)
    return [
        (part[0].chunk.dt_ns, run)
        for part in episodes
        if part[0].chunk is not None
        for run in seams.executed([(r.chunk, r.out_ns) for r in part if r.chunk is not None])
    ]


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return dict.fromkeys(("p50", "p95", "p99"))
    return {f"p{p}": float(np.percentile(finite, p)) for p in (50, 95, 99)}


def _summarise_other(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    solved = [o.other for o in outcomes if o.other is not None and o.other.chunk is not None]
    pairs = [(o.record, o.other) for o in outcomes if o.other is not None]
    differences = [d.ravel() for pair in pairs if (d := _difference(*pair)) is not None]
    if not differences:
        return None
    return {
        "chunks": len(differences),
        "largest_difference": float(np.concatenate(differences).max()),
        "p95_difference": float(np.percentile(np.concatenate(differences), 95)),
        "rounds_mean": _mean([s.rounds for s in solved]),
        "latency_ms": percentiles([1e3 * s.latency_s for s in solved]),
    }


def _describe(outcome: Outcome) -> dict[str, Any]:
    record = outcome.record
    return {
        "chunk": record.index,
        "stamp_ns": record.stamp_ns,
        "verdict": outcome.verdict,
        "difference": None if np.isnan(outcome.difference) else outcome.difference,
        "reason": outcome.reason,
        "latency_ms": record.latency_ms,
        "rounds": record.rounds,
        "replayed_rounds": outcome.rounds,
        "other_difference": outcome.other_difference,
    }


def _difference(record: ChunkRecord, solved: Solved) -> NDArray[Any] | None:
    if record.chunk is None or solved.chunk is None:
        return None
    if record.chunk.actions.shape != solved.chunk.actions.shape:
        return None
    return np.abs(record.chunk.actions - solved.chunk.actions)


def _largest(record: ChunkRecord, solved: Solved | None) -> float | None:
    difference = None if solved is None else _difference(record, solved)
    return None if difference is None else float(difference.max())


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
