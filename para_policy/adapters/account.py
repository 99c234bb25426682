"""Account of what became of a policy that proves itself: for the log, and as a record in JSON."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from para_policy import __version__
from para_policy.adapters.proof import Proof
from para_policy.adapters.record import Chunk, Summary
from para_policy.errors import ParaPolicyError
from para_policy.files import write_text
from para_policy.inference.circumstances import describe_software
from para_policy.versions import NOT_INSTALLED, versions

FORMAT_VERSION = 1

_LOG = logging.getLogger("para_policy")


@dataclass(eq=False)
class Account:
    """What became of one policy, until now.

    Attributes:
        policy: its class, for messages.
        record: file for the record; None for none.
        facts: of the policy, its machine and the way it samples, for the record.
        refusal: why it samples as it did before; "" while it does not, or waits for its first call.
        proof: of the first call.
        first: that call, made the faster way.
        later: the calls after it.
        saved_s: time that later calls of the same batch size took less than the first one before.
    """

    policy: str
    record: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""
    proof: Proof | None = None
    first: Summary = field(default_factory=Summary)
    later: Summary = field(default_factory=Summary)
    saved_s: float = 0.0

    def leave(self, reason: str) -> None:
        """Note, and say, that the policy samples as it did before."""
        self.refusal = reason
        _LOG.warning("para_policy: %s is left as it was: %s", self.policy, " ".join(reason.split()))

    def begin(self, proof: Proof, chunk: Chunk) -> None:
        """Note, and say, that the policy is accelerated from now on."""
        self.first = Summary().plus(chunk)
        _LOG.info(
            "para_policy: %s is accelerated: %.1f ms a chunk, %.1f before (%.1f times as fast); %d rounds "
            "for %d steps, %d rows for %d; error %.2g, allowed %.2g",
            *(self.policy, proof.after_s * 1e3, proof.before_s * 1e3),
            *(proof.before_s / proof.after_s, self.first.calls, self.first.steps),
            *(self.first.evals, self.first.steps * self.first.samples, proof.error, proof.allowed),
        )

    def count(self, proof: Proof, chunk: Chunk) -> None:
        """Note a call."""
        self.later = self.later.plus(chunk)
        if len(chunk.rounds) == self.first.samples:
            self.saved_s += proof.before_s - chunk.seconds

    @property
    def summary(self) -> str:
        """One line for the end of a program."""
        done = self.later
        if not done.chunks:
            return f"{self.policy}: no chunk after the first observation was accelerated"
        return (
            f"{self.policy}: {done.chunks} chunks after the first one, {done.calls / done.chunks:.1f} "
            f"rounds each, {done.evals / done.samples:.0f} rows a sample, "
            f"{done.converged / done.samples:.1%} within tolerance, {self.saved_s:.1f} s saved"
        )

    def as_json(self) -> dict[str, Any]:
        """The account with numbers that JSON has: null for those that are not finite."""
        told = asdict(self) | {"accelerated": self.proof is not None and not self.refusal}
        if told["proof"] is not None:
            told["proof"] = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in told["proof"].items()
            }
        return told


def finish(accounts: Sequence[Account], packages: Sequence[str] = ()) -> None:
    """Say what became of the policies of a program, and write the records that were asked for.

    Args:
        packages: further distributions whose versions matter, if they are installed.
    """
    for account in accounts:
        _LOG.info("para_policy: %s", account.summary)
    for path in dict.fromkeys(account.record for account in accounts if account.record):
        try:
            write_record(path, [one for one in accounts if one.record == path], packages)
            _LOG.info("para_policy: the record is in %s", path)
        except (ParaPolicyError, OSError) as error:
            _LOG.warning("para_policy: no record: %s", error)


def write_record(path: Path, accounts: Sequence[Account], packages: Sequence[str] = ()) -> None:
    """Write accounts with all that their figures depend on; see `finish`.

    Raises:
        InputError: if it cannot be written.
    """
    software = describe_software()
    found = versions(*packages).items()
    software["versions"] |= {name: which for name, which in found if which != NOT_INSTALLED}
    software["versions"]["para_policy"] = __version__
    record = {
        "format_version": FORMAT_VERSION,
        **software,
        "policies": [account.as_json() for account in accounts],
    }
    write_text(path, json.dumps(record, indent=2, default=str, allow_nan=False) + "\n")
