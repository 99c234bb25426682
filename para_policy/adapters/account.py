"""Account of what became of a policy that proves itself: for the log, and as a record in JSON."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from para_policy import __version__
from para_policy.adapters.proof import Proof
from para_policy.errors import ParaPolicyError
from para_policy.files import write_text
from para_policy.inference.circumstances import describe_software
from para_policy.samplers import SampleResult

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
        batch, first_rounds, first_rows: samples of that call, and what was needed for it.
        chunks, samples, converged: later calls, samples in them, and those within tolerance.
        rounds, rows: sums over `chunks`, and over `samples`.
        saved_s: time that later calls of the same batch size took less than the first one before.
    """

    policy: str
    record: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""
    proof: Proof | None = None
    batch: int = 0
    first_rounds: int = 0
    first_rows: int = 0
    chunks: int = 0
    samples: int = 0
    converged: int = 0
    rounds: int = 0
    rows: int = 0
    saved_s: float = 0.0

    def leave(self, reason: str) -> None:
        """Note, and say, that the policy samples as it did before."""
        self.refusal = reason
        _LOG.warning("para_policy: %s is left as it was: %s", self.policy, " ".join(reason.split()))

    def begin(self, proof: Proof, result: SampleResult) -> None:
        """Note, and say, that the policy is accelerated from now on."""
        self.batch, self.first_rounds = len(result.sample), int(result.rounds.max())
        self.first_rows = int(result.evals.sum())
        steps = result.trajectory.shape[1] - 1
        _LOG.info(
            "para_policy: %s is accelerated: %.1f ms a chunk, %.1f before (%.1f times as fast); %d rounds "
            "for %d steps, %d rows for %d; error %.2g, allowed %.2g",
            *(self.policy, proof.after_s * 1e3, proof.before_s * 1e3),
            *(proof.before_s / proof.after_s, self.first_rounds, steps),
            *(self.first_rows, steps * self.batch, proof.error, proof.allowed),
        )

    def count(self, result: SampleResult, seconds: float) -> None:
        """Note a call."""
        self.chunks += 1
        self.samples += len(result.sample)
        self.converged += int(result.converged.sum())
        self.rounds += int(result.rounds.max())
        self.rows += int(result.evals.sum())
        if self.proof is not None and len(result.sample) == self.batch:
            self.saved_s += self.proof.before_s - seconds

    @property
    def summary(self) -> str:
        """One line for the end of a program."""
        if not self.chunks:
            return f"{self.policy}: no chunk after the first observation was accelerated"
        return (
            f"{self.policy}: {self.chunks} chunks after the first one, {self.rounds / self.chunks:.1f} "
            f"rounds each, {self.rows / self.samples:.0f} rows a sample, "
            f"{self.converged / self.samples:.1%} within tolerance, {self.saved_s:.1f} s saved"
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
    software["versions"] |= {"para_policy": __version__, **_versions(packages)}
    record = {
        "format_version": FORMAT_VERSION,
        **software,
        "policies": [account.as_json() for account in accounts],
    }
    write_text(path, json.dumps(record, indent=2, default=str, allow_nan=False) + "\n")


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
