"""Previous chunk: the start, the noise and the decided actions that the next one takes over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from para_policy.arguments import check_kind
from para_policy.diffusion.inpainting import Inpainting, prefix_weights
from para_policy.diffusion.noise import Noise
from para_policy.errors import InputError
from para_policy.policies.config import PolicyConfig
from para_policy.policies.result import ActionResult, Meaning
from para_policy.samplers import FromCleanSample

Overlap = Literal["hard", "soft"]
Counts = int | Sequence[int]


class Layout(Protocol):
    """Numbers of a chunk, as a policy's configuration has them."""

    @property
    def action_dim(self) -> int:
        """A, coordinates of an action."""
        ...

    @property
    def first_action(self) -> int:
        """Entry of the horizon that is executed first."""
        ...


@dataclass(frozen=True)
class PreviousChunk:
    """The last chunks of the same robots, moved to the present.

    Attributes:
        sample: (batch, Tp, A) normalised; beyond the end of the old horizon its last action.
        noise: of the old chunks.
        executed: time steps from the old chunks to now, at most Tp.
    """

    sample: Tensor
    noise: Noise
    executed: tuple[int, ...]

    @classmethod
    def of(
        cls,
        previous: ActionResult | Sequence[ActionResult],
        executed: Counts | None,
        config: PolicyConfig,
        batch: int,
        meaning: Meaning,
    ) -> PreviousChunk:
        """Check and move the last chunks: a batch of them, or one result for each robot.

        Args:
            executed: of all robots, or of each; None for `n_action_steps`.
            config, meaning: of the policy.
        Raises:
            InputError: when these are not the chunks of `batch` robots with this policy, or with one
                whose numbers mean the same.
        """
        check_kind("previous", previous, ActionResult, Sequence)
        results = [previous] if isinstance(previous, ActionResult) else list(previous)
        for result in results:
            check_kind("a result in previous", result, ActionResult)
        shape = (config.horizon, config.action_dim)
        held = [r.sample.shape if r.sample.ndim == 3 else (1, *r.sample.shape) for r in results]
        if sum(h[0] for h in held) != batch or any(h[1:] != shape for h in held):
            raise InputError(
                f"previous holds chunks {', '.join(map(str, held))}, expected "
                f"{(batch, *shape)}; use ActionResult.select to keep some of a batch"
            )
        others = {name: None for r in results for name in meaning.differs_in(r.meaning)}
        if others:
            raise InputError(
                f"previous is of a policy with other {', '.join(others)}: its numbers are other actions "
                "here; begin without previous"
            )
        old = np.concatenate([r.sample.reshape(-1, *shape) for r in results])
        noise = results[0].noise if len(results) == 1 else Noise.cat([r.noise for r in results])
        counts = config.n_action_steps if executed is None else executed
        return cls.moved(torch.from_numpy(old), noise, counts)

    @classmethod
    def moved(cls, sample: Tensor, noise: Noise, executed: Counts) -> PreviousChunk:
        """Move chunks (batch, Tp, A), normalised, by so many time steps, or by so many of each.

        Raises:
            InputError: for what is no number of steps.
        """
        batch, horizon = sample.shape[:2]
        counts = tuple(min(count, horizon) for count in _counts("executed", executed, batch))
        index = torch.arange(horizon) + torch.tensor(counts)[:, None]
        rows = torch.arange(batch)[:, None]
        return cls(sample[rows, index.clamp(max=horizon - 1)], noise, counts)

    def guess(self, device: torch.device) -> FromCleanSample:
        """Where a solve starts."""
        return FromCleanSample(self.sample.to(device))

    def known(
        self,
        frozen: Counts,
        overlap: Overlap,
        layout: Layout,
        device: torch.device,
        pulled: Sequence[bool] | None = None,
    ) -> Inpainting:
        """What is decided already: everything before now, and the next `frozen` actions.

        Args:
            layout: of a chunk; that of the policy.
            overlap: "hard", or "soft": the later actions of the old chunk pull, too.
            pulled: (A,) coordinates that they pull; None: all.
        Raises:
            InputError: when the old chunk does not reach so far.
        """
        check_kind("overlap", overlap, str)
        if overlap not in ("hard", "soft"):
            raise InputError(f"overlap is {overlap!r}; expected 'hard' or 'soft'")
        batch, horizon = self.sample.shape[:2]
        decided = [layout.first_action + count for count in _counts("frozen", frozen, batch)]
        reach = [horizon - count for count in self.executed]
        if any(first > last for first, last in zip(decided, reach, strict=True)):
            most = min(reach) - layout.first_action
            raise InputError(
                f"frozen is {frozen}; {list(self.executed)} steps after the previous chunk only "
                f"{max(most, 0)} of its actions are left"
            )
        first, last = torch.tensor(decided), torch.tensor(reach)
        weight = prefix_weights(first, last, horizon, soft=overlap == "soft")
        check_kind("pulled", pulled, Sequence, np.ndarray, NoneType)
        if pulled is not None:
            pulls = np.asarray(pulled, dtype=object)
            if pulls.shape != (layout.action_dim,):
                raise InputError(
                    f"pulled has shape {pulls.shape}; expected one of true and false for each of the "
                    f"{layout.action_dim} action coordinates"
                )
            fixed = prefix_weights(first, last, horizon, soft=False)
            weight = torch.where(torch.as_tensor(pulls.astype(bool)), weight, fixed)
        return Inpainting(self.sample.to(device), weight.to(device))


def _counts(name: str, value: Counts, batch: int) -> tuple[int, ...]:
    several = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim > 0)
    counts: list[Any] = list(value) if several else [value] * batch  # type: ignore[arg-type]
    whole = all(
        isinstance(count, (int, np.integer)) and not isinstance(count, bool) and count >= 0
        for count in counts
    )
    if not whole or len(counts) != batch:
        raise InputError(
            f"{name} is {value!r}; expected a number of time steps, 0 or more"
            + (f", or one for each of {batch}" if batch > 1 else "")
        )
    return tuple(int(count) for count in counts)
