"""Foreign samplers: callables that are no samplers of ours, taken as such."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from para_policy.errors import InputError
from para_policy.samplers.guess import Guess
from para_policy.samplers.result import Callback, Poll, RoundInfo, SampleResult, Status
from para_policy.samplers.sampler import Sampler, Solve, plain_fields

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process


def as_sampler(sampler: Any) -> Sampler:
    """A sampler as it is, or whatever is called like one as a sampler.

    An attribute `same_sample = False` of the callable says that it makes another sample than
    `sequential`.

    Raises:
        InputError: for what cannot be called.
    """
    if isinstance(sampler, Sampler):
        return sampler
    if not callable(sampler):
        raise InputError(f"sampler is {sampler!r}; expected a sampler, or its name")
    kind = Foreign if getattr(sampler, "same_sample", True) else ForeignDraw
    return kind(sampler, name=getattr(sampler, "__name__", type(sampler).__name__))


@dataclass(frozen=True)
class Foreign(Sampler):
    """Any callable with the arguments and the result of a sampler.

    Attributes:
        call: does all the work.
    """

    call: Callable[..., SampleResult]

    def __call__(
        self, *args: Any, poll: Poll | None = None, partial: bool = False, **options: Any
    ) -> SampleResult:
        """See `Sampler`; the callable, which knows no `poll`, polls after every round."""
        if poll is not None:
            options["callback"] = _polling(poll, options.get("callback"))
        result = self.call(*args, **options)
        finite = result.sample.isfinite().flatten(1).all(dim=1).tolist()
        status = tuple(
            told if whole else Status.NON_FINITE
            for told, whole in zip(result.status, finite, strict=True)
        )
        return dataclasses.replace(result, status=status).checked(partial=partial)

    def begin(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> Solve:
        """A callable has no state to begin with."""
        raise NotImplementedError(f"{self.name} solves as a whole")

    def options(self) -> Mapping[str, Any]:
        """Those of the callable, if it is a dataclass."""
        return dict(plain_fields(self.call, set()))


@dataclass(frozen=True)
class ForeignDraw(Foreign):
    """A callable that makes another sample than `sequential` of the same noise."""

    same_sample: ClassVar[bool] = False


def _polling(poll: Poll, callback: Callback | None) -> Callback:
    def both(info: RoundInfo) -> None:
        poll()
        if callback is not None:
            callback(info)

    return both
