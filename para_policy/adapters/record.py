"""Record of what was sampled: each chunk, and all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from para_policy.samplers import SampleResult


@dataclass(frozen=True)
class Chunk(SampleResult):
    """A batch of chunks, see `SampleResult`.

    Attributes:
        seconds: from the call of the sampling method to its answer; the observation was encoded before.
        steps: network calls that the policy's own loop makes, one after the other.
    """

    seconds: float = 0.0
    steps: int = 0

    @classmethod
    def of(cls, result: SampleResult, seconds: float, steps: int) -> Chunk:
        """The record of a solve."""
        parts = {part.name: getattr(result, part.name) for part in dataclasses.fields(result)}
        return cls(**{**parts, "seconds": seconds, "steps": steps})

    @property
    def calls(self) -> int:
        """Network calls one after the other, of the whole batch."""
        return int(self.rounds.max())


@dataclass(frozen=True)
class Summary:
    """All chunks since the settings were last changed; totals.

    Attributes:
        chunks, samples: solves, and robots in them.
        calls: network calls one after the other.
        steps: those that the policy's own loop would have made.
        evals: network rows.
        converged: samples that passed the acceptance test.
        seconds: in the sampling method.
        call_s: seconds of one call of the policy's own network with the rows of the last batch,
            measured when the summary was asked for; None if it could not be.
    """

    chunks: int = 0
    samples: int = 0
    calls: int = 0
    steps: int = 0
    evals: int = 0
    converged: int = 0
    seconds: float = 0.0
    call_s: float | None = None

    def plus(self, chunk: Chunk) -> Summary:
        """With one more."""
        return dataclasses.replace(
            self,
            chunks=self.chunks + 1,
            samples=self.samples + len(chunk.rounds),
            calls=self.calls + chunk.calls,
            steps=self.steps + chunk.steps,
            evals=self.evals + int(chunk.evals.sum()),
            converged=self.converged + int(chunk.converged.sum()),
            seconds=self.seconds + chunk.seconds,
        )

    @property
    def seconds_before(self) -> float | None:
        """What the loop would have taken at least: its steps times one call."""
        return None if self.call_s is None else self.steps * self.call_s

    def __str__(self) -> str:
        """
        >>> print(Summary(chunks=2, samples=2, calls=10, steps=200, converged=2, seconds=0.1, call_s=0.002))
        2 chunks: 5.0 network calls one after the other instead of 100 each; 50 ms instead of at least 200
        ms (100 calls of 2.0 ms); 100 % converged
        """
        if not self.chunks:
            return "no chunks yet"
        calls, steps = self.calls / self.chunks, self.steps / self.chunks
        time = f"{1e3 * self.seconds / self.chunks:.0f} ms"
        if self.call_s is not None:
            before = 1e3 * steps * self.call_s
            time += f" instead of at least {before:.0f} ms ({steps:.0f} calls of {1e3 * self.call_s:.1f} ms)"
        return (
            f"{self.chunks} chunks: {calls:.1f} network calls one after the other instead of "
            f"{steps:.0f} each; {time}; {self.converged / self.samples:.0%} converged".replace(
                "%", " %"
            )
        )
