"""Health of chunk_executor, as it tells on /diagnostics."""

from __future__ import annotations

from typing import Any, Literal

from para_policy.execution.commander import Commander
from para_policy.execution.player import ChunkPlayer
from para_policy.execution.timing import CommandTiming
from para_policy.ros.messages import diagnostics


class Health:
    """Reasons for which the robot holds, and numbers of how well it is commanded."""

    def __init__(
        self,
        commander: Commander,
        player: ChunkPlayer,
        timing: CommandTiming,
        max_future_ns: int,
    ) -> None:
        self._commander = commander
        self._player = player
        self._timing = timing
        self._refusal = ""
        self._refused = 0
        self._rivals = {"commands": "", "chunks": ""}
        self._max_future_ns = max_future_ns
        self._ahead: dict[str, str] = {}
        self._seen_violations = 0

    def refuse(self, reason: str) -> bool:
        """Count a chunk that was refused; whether the reason is another than the last time."""
        is_new = reason != self._refusal
        self._refused += 1
        self._refusal = reason
        return is_new

    def accept(self) -> None:
        """A chunk is in force."""
        self._refusal = ""

    def compare_clocks(self, what: str, ahead_ns: int) -> None:
        """The newest message of a kind was stamped so far ahead of the clock on arrival.

        Args:
            what: in words, the same for each message of the kind.
        """
        self._ahead[what] = ""
        if ahead_ns > self._max_future_ns:
            self._ahead[what] = (
                f"{what} was stamped {ahead_ns / 1e9:.3f} s ahead of the clock, max_future_s is "
                f"{self._max_future_ns / 1e9:g}: synchronise the clocks (chrony)"
            )

    def find_rivals(self, of: Literal["commands", "chunks"], problem: str) -> bool:
        """Remember that two nodes send commands or chunks, or '' that they do not; whether it is new."""
        is_new = bool(problem) and problem != self._rivals[of]
        self._rivals[of] = problem
        return is_new

    def has_new_violation(self) -> bool:
        """True where a guard was broken since the last call."""
        is_new = self._commander.violations > self._seen_violations
        self._seen_violations = self._commander.violations
        return is_new

    def state(self) -> tuple[bytes, str]:
        """Level and message."""
        commander = self._commander
        for rivals in self._rivals.values():
            if rivals:
                return diagnostics.ERROR, f"holding: {rivals}"
        if not commander.enabled:
            return diagnostics.OK, "disabled: call ~/enable"
        if commander.latched_by:
            then = "call ~/enable when it is safe"
            return diagnostics.ERROR, f"holding since {commander.latched_by}; {then}"
        if commander.violation is not None:
            then = "call ~/enable when it is safe" if commander.latched else "until the next chunk"
            return diagnostics.ERROR, f"holding: {commander.violation}; {then}"
        if commander.waiting:
            return diagnostics.WARN, f"holding: {commander.waiting}"
        if self._refusal:
            return diagnostics.WARN, f"chunk refused: {self._refusal}"
        if self._player.chunk is None:
            return diagnostics.WARN, "holding: no chunk yet"
        if ahead := "; ".join(filter(None, self._ahead.values())):
            doing = "playing" if commander.moving else "holding"
            return diagnostics.WARN, f"{doing}: {ahead}"
        if commander.approaching:
            return diagnostics.OK, "approaching the actions that are due"
        if commander.moving:
            return diagnostics.OK, "playing"
        return diagnostics.WARN, "holding: chunk ran out"

    def values(self, now_ns: int) -> dict[str, Any]:
        age_ns = self._player.age_ns(now_ns)
        violation = self._commander.violation
        return {
            "refused_chunks": self._refused,
            "over_budget_chunks": self._player.caught_up,
            "chunk_age_ms": float("nan") if age_ns is None else age_ns / 1e6,
            "guard_violations": self._commander.violations,
            "guard": violation.guard if violation else "",
            "guard_joint": violation.joint if violation else "",
            "guard_value": violation.value if violation else float("nan"),
            "guard_limit": violation.limit if violation else float("nan"),
            **self._timing.values(),
        }
