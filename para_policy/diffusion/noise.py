"""All randomness of a sample, drawn before the first network call."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from para_policy.arguments import check_kind
from para_policy.errors import InputError


@dataclass(frozen=True)
class Noise:
    """Initial state X_0 and the noise xi_s of every step.

    With the noise fixed, DDPM is a deterministic recursion, so parallel and sequential samplers
    can be compared element by element.

    Attributes:
        initial: (batch, *shape).
        steps: (batch, N, *shape).
        uniforms: (batch, N) in [0, 1), independent of the rest, for samplers that accept or reject
            a step at random; None if there are none.
    """

    initial: Tensor
    steps: Tensor
    uniforms: Tensor | None = None

    def __post_init__(self) -> None:
        batch, *shape = self.initial.shape
        if self.steps.ndim != self.initial.ndim + 1 or self.steps.shape[0] != batch:
            raise InputError(f"steps must be ({batch}, N, *{shape}), got {tuple(self.steps.shape)}")
        if list(self.steps.shape[2:]) != shape:
            raise InputError(f"steps must be ({batch}, N, *{shape}), got {tuple(self.steps.shape)}")
        if self.uniforms is not None and self.uniforms.shape != self.steps.shape[:2]:
            raise InputError(
                f"uniforms must be {tuple(self.steps.shape[:2])}, one for each step, "
                f"got {tuple(self.uniforms.shape)}"
            )

    @classmethod
    def from_seeds(
        cls,
        seeds: Sequence[int],
        shape: Sequence[int],
        num_steps: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Noise:
        """Draw one sample's noise from each seed.

        Sample i depends on `seeds[i]` alone, not on the rest of the batch. Numbers are drawn in
        float32 on the CPU, so every device and dtype sees the same noise. X_0 is drawn first, so it
        does not depend on `num_steps`; the uniforms last.

        >>> a = Noise.from_seeds([7, 8], (16, 2), 100)
        >>> b = Noise.from_seeds([8], (16, 2), 10)
        >>> a.steps.shape, bool((a.initial[1] == b.initial[0]).all())
        (torch.Size([2, 100, 16, 2]), True)
        """
        check_kind("shape", shape, Sequence)
        check_kind("device", device, str, torch.device)
        for name, size in (("num_steps", num_steps), *(("a size in shape", n) for n in shape)):
            check_kind(name, size, Integral)
            if isinstance(size, bool) or not 0 <= size < 2**31:
                raise InputError(f"{name} is {size}; expected an integer from 0 to 2**31 - 1")
        values = [_checked(seed) for seed in _listed(seeds)]
        if not values:
            raise InputError("seeds is empty; give one seed per sample")
        drawn, uniforms = [], []
        # Whatever the host program has set as torch's defaults.
        single: Any = {"dtype": torch.float32, "device": "cpu"}
        try:
            for value in values:
                generator = torch.Generator("cpu").manual_seed(value)
                initial = torch.randn(1, *shape, generator=generator, **single)
                steps = torch.randn(num_steps, *shape, generator=generator, **single)
                drawn.append(torch.cat([initial, steps]))
                uniforms.append(torch.rand(num_steps, generator=generator, **single))
            stacked = torch.stack(drawn).to(device=device, dtype=dtype)
            rest = torch.stack(uniforms).to(device=device, dtype=dtype)
        except (RuntimeError, AssertionError) as error:  # no such device, or no room on it
            raise InputError(
                f"noise for {len(values)} samples {tuple(shape)} with {num_steps} steps cannot be "
                f"on {device!r}: {error}"
            ) from error
        return cls(initial=stacked[:, 0], steps=stacked[:, 1:], uniforms=rest)

    @classmethod
    def cat(cls, parts: Sequence[Noise]) -> Noise:
        """One batch from several.

        Raises:
            InputError: if their samples or numbers of steps differ.
        """
        shapes = {tuple(part.steps.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise InputError(
                f"noise of steps {', '.join(map(str, sorted(shapes)))}, (N, *shape), cannot be one batch; "
                "expected the same of all"
            )
        uniforms = [part.uniforms for part in parts if part.uniforms is not None]
        return cls(
            initial=torch.cat([part.initial for part in parts]),
            steps=torch.cat([part.steps for part in parts]),
            uniforms=torch.cat(uniforms) if len(uniforms) == len(parts) else None,
        )

    @property
    def batch(self) -> int:
        return self.initial.shape[0]

    @property
    def num_steps(self) -> int:
        return self.steps.shape[1]

    def select(self, index: Sequence[int] | Tensor) -> Noise:
        """The noise of some samples of the batch."""
        uniforms = None if self.uniforms is None else self.uniforms[index]
        return dataclasses.replace(
            self, initial=self.initial[index], steps=self.steps[index], uniforms=uniforms
        )

    def shifted(self, count: int | Sequence[int], fresh: Noise) -> Noise:
        """This noise moved `count` entries along the horizon, the first axis of a sample.

        Action k of the new chunk meets the noise of action k + count of the old one, so chunks that
        overlap in time agree better; the end comes from `fresh`. Each chunk alone has the same
        distribution as before, but consecutive chunks are no longer independent given the
        observations.

        Args:
            count: of all samples, or of each.

        >>> old, fresh = (Noise.from_seeds([seed], (4, 1), 2) for seed in (0, 1))
        >>> new = old.shifted(3, fresh)
        >>> torch.equal(new.steps[:, :, 0], old.steps[:, :, 3])
        True
        """
        horizon = self.initial.shape[1]
        counts = [count] * self.batch if isinstance(count, int) else list(count)
        fits = len(counts) == self.batch and all(0 <= one <= horizon for one in counts)
        if self.steps.shape != fresh.steps.shape or not fits:
            raise InputError(
                f"cannot shift noise {tuple(self.steps.shape)} by {count} into "
                f"{tuple(fresh.steps.shape)}; expected equal shapes and a shift of 0 to {horizon}"
            )
        initial, steps = fresh.initial.clone(), fresh.steps.clone()
        for i, moved in enumerate(counts):
            initial[i, : horizon - moved] = self.initial[i, moved:]
            steps[i, :, : horizon - moved] = self.steps[i, :, moved:]
        return dataclasses.replace(fresh, initial=initial, steps=steps)


def _listed(seeds: Sequence[int]) -> list[int]:
    try:
        return list(seeds)
    except TypeError as error:
        raise InputError(f"seeds is {seeds!r}; expected one integer per sample") from error


def _checked(seed: int) -> int:
    try:
        value = operator.index(seed)
    except TypeError as error:
        raise InputError(f"seed is {seed!r}; expected an integer") from error
    if not -(2**63) <= value < 2**64:
        raise InputError(f"seed is {value}; expected -2**63 to 2**64 - 1")
    return value
