"""Sampler: what every sampler says of itself, and the one loop that drives all of them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from para_policy.errors import InputError
from para_policy.samplers.certificate import Certificate
from para_policy.samplers.checks import check_default_device
from para_policy.samplers.deadline import Deadline, Pace
from para_policy.samplers.guess import Guess
from para_policy.samplers.result import Callback, Poll, RoundInfo, SampleResult, Status

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process


@dataclass(frozen=True)
class Launch:
    """One round that is ready to run, or several that are launched at once.

    Attributes:
        rows: of its largest network call.
        calls: batched network calls.
        run: does it.
    """

    rows: int
    calls: int
    run: Callable[[], None]


class Solve(Protocol):
    """The state of one solve.

    Attributes:
        limit: network calls that it may take; None for no limit.
    """

    limit: int | None

    def launches(self, denoiser: Denoiser) -> Iterator[Launch]:
        """What is to be run, one after the other, until all samples are done."""
        ...

    def info(self, rounds: int) -> RoundInfo:
        """What a callback sees after so many rounds."""
        ...

    def result(self, unfinished: Status) -> SampleResult:
        """`unfinished` is the status of samples that are still in flight."""
        ...


class Recordings(Protocol):
    """Solves whose rounds were recorded and are replayed, such as CUDA graphs.

    Attributes:
        left_out: solves for which there was no recording, nor room for one.
        full: there is no room.
        memory_bytes: what the recordings take, as far as it can be known.
    """

    left_out: int

    @property
    def full(self) -> bool: ...

    @property
    def memory_bytes(self) -> int: ...

    def __len__(self) -> int:
        """Recordings that are kept."""
        ...

    def find(
        self,
        sampler: Sampler,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        guess: Guess | None,
        *,
        waits: bool,
    ) -> Solve | None:
        """A recorded solve of these shapes, begun; None to solve as usual.

        Args:
            waits: every round is waited for.
        """
        ...

    def prepared(self) -> AbstractContextManager[None]:
        """Record what is solved meanwhile, as far as there is room, and nothing more afterwards."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """Noise to samples: a frozen configuration that is called.

    Attributes:
        name: in reports and messages.
        made_for: the process that it was made for; with another one it refuses to run, because what
            was measured and trained for one process is wrong for another. None fits every process.
        certificate: bounds the error; None where nothing was measured.
        recordings: where its rounds are recorded; None launches one kernel after the other.
        stops_early: it has an answer before its last round, for deadlines and round budgets.
        same_sample: it solves for the sample of `sequential`, so that a difference is an error.
        uses_uniforms: it needs `Noise.uniforms`.
        recordable: its rounds can be recorded.
    """

    name: str = field(default="sampler", compare=False)
    made_for: Process | None = field(default=None, compare=False, repr=False)
    certificate: Certificate | None = None
    recordings: Recordings | None = field(default=None, compare=False, repr=False)

    stops_early: ClassVar[bool] = False
    same_sample: ClassVar[bool] = True
    uses_uniforms: ClassVar[bool] = False
    recordable: ClassVar[bool] = False

    @abstractmethod
    def begin(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> Solve:
        """The state of a new solve; arguments and errors as for a call."""

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        *,
        guess: Guess | None = None,
        deadline: Deadline | None = None,
        callback: Callback | None = None,
        poll: Poll | None = None,
        partial: bool = False,
    ) -> SampleResult:
        """Solve for all samples of `noise`.

        Args:
            denoiser, process: the network with its condition, and the step table.
            noise: X_0 and every xi, which fix the answer.
            guess: where to start, instead of the sampler's own guess. It moves the start, never the
                solution; `sequential` has no use for it.
            deadline: stop at the last round that fits and return its iterate, which is the closest in
                practice and never NaN.
            callback: called with a `RoundInfo` after every round, which a GPU is waited for.
            poll: called before every launch, and costs nothing else; what it raises ends the solve.
            partial: see `SampleResult.checked`.

        Raises:
            InputError: if the arguments do not fit each other, the sampler was made for another
                process, or it cannot stop early; for a network that returns no tensor, or one of
                another shape, type or device.
            NonFiniteError: if a sample is not finite, unless `partial`.
        """
        self.check(denoiser, process, noise, deadline)
        solve = None
        if self.recordings is not None:
            waits = deadline is not None or callback is not None
            solve = self.recordings.find(self, denoiser, process, noise, guess, waits=waits)
        if solve is None:
            solve = self.begin(denoiser, process, noise, guess)
        ended = _drive(solve, denoiser, deadline, callback, poll)
        result = solve.result(ended).checked(partial=partial)
        if self.certificate is None:
            return result
        bound = self.certificate.bound(result, own_start=guess is None)
        return dataclasses.replace(result, error_bound=bound)

    def fits(self, process: Process) -> bool:
        """Whether it was made for this process, or for none."""
        return self.made_for is None or self.made_for.agrees_with(process.fingerprint)

    def check(
        self, denoiser: Denoiser, process: Process, noise: Noise, deadline: Deadline | None
    ) -> None:
        """Raise InputError unless the sampler can solve this problem."""
        check_noise(denoiser, process, noise)
        if not self.fits(process):
            raise InputError(
                f"sampler {self.name!r} was made for {self.made_for}, and this is {process}: what "
                "was measured for one does not hold for the other. Make it for this process with "
                "policy.sampler(..., scheduler=, steps=), or give sample the scheduler and steps "
                "that it was made for"
            )
        if deadline is not None and not self.stops_early:
            raise InputError(
                f"{self.name} has no answer before its last step: use no deadline with it"
            )

    @property
    def tolerance(self) -> float | None:
        """Largest residual that it lets pass, normalised action units; None where it has no such."""
        return None

    def limited(self, max_rounds: int) -> Sampler:
        """The same, stopped after so many rounds; one that cannot stop stays as it is."""
        return self

    def rows(self, batch: int, num_steps: int) -> int:
        """The most rows of a network call."""
        return batch * num_steps

    def round_sizes(self, process: Process) -> tuple[int, ...]:
        """Rows of one sample that a recorded round can have, increasing: it evaluates them all,
        whether they are needed or not."""
        return (self.rows(1, process.num_steps),)

    def starting_at(self, guess: Guess) -> Sampler:
        """The same with a better guess than the prior, if it starts there."""
        return self

    def told_apart(self, guess: Guess | None) -> Hashable:
        """What of a caller's guess the rounds depend on: a recording serves all that agree in it."""
        return None

    def options(self) -> Mapping[str, Any]:
        """Numbers and words of the sampler and its parts, for reports."""
        return dict(plain_fields(self, {item.name for item in dataclasses.fields(Sampler)}))


def _drive(
    solve: Solve,
    denoiser: Denoiser,
    deadline: Deadline | None,
    callback: Callback | None,
    poll: Poll | None,
) -> Status:
    """Run launch after launch until all samples are done, or no further one is allowed."""
    pace = None if deadline is None else Pace(deadline)
    calls = 0
    for rounds, launch in enumerate(solve.launches(denoiser), start=1):
        if solve.limit is not None and calls + launch.calls > solve.limit:
            return Status.ROUND_BUDGET
        if poll is not None:
            poll()
        if pace is not None and not pace.admits(launch.rows, launch.calls):
            return Status.DEADLINE
        launch.run()
        calls += launch.calls
        if callback is not None:
            callback(solve.info(rounds))
    return Status.CONVERGED


def check_noise(denoiser: Denoiser, process: Process, noise: Noise) -> None:
    """Raise InputError if `noise` does not have one xi for each step of `process`, or not one sample
    for each row that `denoiser` is bound to; or as `check_default_device`."""
    check_default_device()
    if noise.num_steps != process.num_steps:
        raise InputError(
            f"noise has {noise.num_steps} steps, the process {process.num_steps}; "
            "draw it with num_steps=process.num_steps"
        )
    # In half precision tolerances are below the rounding of the solver itself.
    if noise.initial.dtype not in (torch.float32, torch.float64):
        raise InputError(f"noise has dtype {noise.initial.dtype}; expected float32 or float64")
    if noise.batch == 0:
        raise InputError("noise holds no sample; expected at least one")
    bound_to = {
        "condition": denoiser.condition,
        "known": None if denoiser.known is None else denoiser.known.sample,
    }
    for what, rows in bound_to.items():
        if rows is not None and len(rows) != noise.batch:
            raise InputError(
                f"noise holds {noise.batch} samples, and the denoiser's {what} {len(rows)} rows; "
                "expected as many: row i belongs to sample i"
            )


def plain_fields(part: Any, left_out: set[str]) -> Iterator[tuple[str, Any]]:
    """Numbers and words of a dataclass and its parts."""
    if not dataclasses.is_dataclass(part):
        return
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if item.name in left_out:
            continue
        if isinstance(value, Guess):
            yield from value.options().items()
        elif value is None or isinstance(value, (bool, int, float, str)):
            yield item.name, value
        elif dataclasses.is_dataclass(value):
            yield from plain_fields(value, left_out)
