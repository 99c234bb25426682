"""Comparison of a replayed chunk with the recorded one: the verdict, and its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from para_policy.inference.device import device_description
from para_policy.ros.bags.records import ChunkRecord
from para_policy.ros.bags.replay import Replayed
from para_policy.ros.bags.rerun import ABSENT_PREVIOUS, Solved
from para_policy.ros.messages.settings import (
    RecordedSettings,
    calibration_digest,
    consistency_digest,
)
from para_policy.ros.parameters.policy import sampler_options

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
    differences = difference(record, again)
    verdict, reason = _verdict(replayed, units, circumstances)
    return Outcome(
        record=record,
        verdict=verdict,
        difference=float("nan") if differences is None else float(differences.max()),
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
    differences = difference(record, again)
    if differences is None:
        return "not comparable", again.reason or "the bag has a chunk of another size"
    if not differences.any() and found.equal:
        return "equal", ""
    if again.reason == ABSENT_PREVIOUS:
        return "not comparable", again.reason
    if not found.equal:
        return "different", f"observation differs: {found.reason}"
    reasons = [*circumstances, *([again.reason] if again.reason else [])]
    if record.batch > 1:
        reasons.insert(0, f"solved in a batch of {record.batch}, whose kernels may round otherwise")
        if (differences <= BATCH_TOLERANCE * units).all():
            return "close", reasons[0]
    return "different", "; ".join(reasons) or "no cause is known"


def circumstances(policy: DiffusionPolicy, sha256: str, recorded: RecordedSettings) -> list[str]:
    """Differences between the recording and this replay that may change bits or more."""
    found = []
    if sha256 != recorded.weights_sha256:
        found.append(f"other weights ({sha256[:12]}, recorded {recorded.weights_sha256[:12]})")
    absent = {"scheduler": "", "steps": 0, "sampler": "", "sampler_options": "{}", "tolerance": 0.0}
    values = {**absent, **recorded.values}
    chain = policy.chain(values["scheduler"] or None, values["steps"] or None)
    calibration = chain.calibration
    if ("" if calibration is None else calibration_digest(calibration)) != recorded.calibration:
        found.append("the checkpoint's calibration is another one")
    now = consistency_digest(chain, values["sampler"], sampler_options(values))
    if recorded.consistency not in (None, now):
        found.append("the checkpoint's PCM weights are other ones")
    if torch.__version__ != recorded.torch:
        found.append(f"torch {torch.__version__}, recorded {recorded.torch}")
    if torch.get_num_threads() != recorded.threads:
        found.append(f"{torch.get_num_threads()} threads, recorded {recorded.threads}")
    if device_description(policy.device) != recorded.device:
        found.append(f"on {device_description(policy.device)}, recorded on {recorded.device}")
    engine = policy.runtime.in_use
    if engine.label != recorded.engine.label:
        found.append(f"engine {engine.label}, recorded {recorded.engine.label}")
    elif engine != recorded.engine:
        found.append(f"engine {engine.label} with other batch sizes or threads than recorded")
    return found


def difference(record: ChunkRecord, solved: Solved) -> NDArray[Any] | None:
    """Distances between the actions of a recorded chunk and of a solved one; None: not of one shape."""
    if record.chunk is None or solved.chunk is None:
        return None
    if record.chunk.actions.shape != solved.chunk.actions.shape:
        return None
    return np.abs(record.chunk.actions - solved.chunk.actions)


def _largest(record: ChunkRecord, solved: Solved | None) -> float | None:
    differences = None if solved is None else difference(record, solved)
    return None if differences is None else float(differences.max())
