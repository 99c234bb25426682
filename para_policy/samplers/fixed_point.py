"""The one engine behind every parallel sampler: fixed-point sweeps over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers.acceptance import Acceptance
from para_policy.samplers.anderson import TriangularAnderson
from para_policy.samplers.checks import check_optional_count
from para_policy.samplers.deadline import Deadline
from para_policy.samplers.guess import Guess
from para_policy.samplers.pace import Pace
from para_policy.samplers.rows import Rows
from para_policy.samplers.sampler import Callback, SampleResult, Status, check_noise
from para_policy.samplers.solve import Solve
from para_policy.samplers.splitting import Splitting
from para_policy.samplers.switching import Switching


@dataclass(frozen=True)
class FixedPoint:
    """Solve X_{s+1} = S_s(X_s) + c_s xi_s for all s at once, a few batched network calls in all.

    A sampler is a choice of parts. Each sample of a batch has a window of its own, so its result
    and its number of rounds do not depend on the others, and it leaves the batch when it is done.

    At least one row becomes final in each round: the first row of a window follows from a final
    state. So N rounds always suffice, whatever the parts. With a tolerance of 0 the first m states
    are exact after m rounds, because only values that the step formula wrote from final parents are
    kept, and the result is the sequential one to the bit wherever the network is independent of its
    batch.

    Attributes:
        splitting: the linear part that each sweep solves exactly.
        acceptance: when a row is final.
        guess: where the iteration starts.
        acceleration: of the rows that are not final yet; None for plain sweeps.
        window: rows in flight, at least 1; None for all N.
        lookahead: beyond the window every so-many-th row is evaluated too, up to the end, and the
            defects between are interpolated; None for nothing beyond the window. Multistep
            schedulers (H != 0) need both neighbours of a row: there the window is all N instead.
        max_rounds: give up after so many rounds, at least 1; None for no limit.
        switching: another network for the first rounds (PCM), which reach all rows and freeze none.
    """

    same_sample: ClassVar[bool] = True

    splitting: Splitting
    acceptance: Acceptance
    guess: Guess
    acceleration: TriangularAnderson | None = None
    window: int | None = None
    lookahead: int | None = None
    max_rounds: int | None = None
    switching: Switching | None = None

    def __post_init__(self) -> None:
        for name in ("window", "lookahead", "max_rounds"):
            check_optional_count(name, getattr(self, name))

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        *,
        guess: Guess | None = None,
        deadline: Deadline | None = None,
        callback: Callback | None = None,
    ) -> SampleResult:
        """Return X_N; see `Sampler` and `SampleResult`."""
        check_noise(process, noise)
        solve = Solve(self, process, noise, guess or self.guess)
        pace = Pace(deadline)
        sweeps = calls = 0
        while len((rows := solve.rows(sweeps, Rows.compact)).live):
            count, networks = len(rows.at), len(rows.networks)
            if self.max_rounds and calls + networks > self.max_rounds:
                return solve.result(Status.ROUND_BUDGET)
            if not pace.fits(count, networks):
                return solve.result(Status.DEADLINE)
            pace.start()
            solve.sweep(denoiser, rows)
            pace.stop(count, networks)
            sweeps, calls = sweeps + 1, calls + networks
            if callback is not None:
                callback(solve.info(calls))
        return solve.result(Status.CONVERGED)
