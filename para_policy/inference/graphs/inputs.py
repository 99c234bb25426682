"""Inputs of a recorded solve: the tensors that tell it what to solve."""

from __future__ import annotations

from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise


class Inputs:
    """What differs from chunk to chunk, in tensors that stay: noise, condition, known sample.

    Attributes:
        noise: `initial` and `steps`; samplers with uniforms are not recorded.
    """

    def __init__(self, denoiser: Denoiser, noise: Noise) -> None:
        self.noise = Noise(noise.initial.clone(), noise.steps.clone())
        self._own = denoiser.with_copies()

    @property
    def condition(self) -> Tensor | None:
        """Of all samples."""
        return self._own.condition

    def fill(self, denoiser: Denoiser, noise: Noise) -> None:
        """Take over the values of another chunk of the same shapes."""
        for kept, value in (
            (self.noise.initial, noise.initial),
            (self.noise.steps, noise.steps),
            *zip(_tensors(self._own), _tensors(denoiser), strict=True),
        ):
            kept.copy_(value)

    def disturb(self) -> None:
        """Other values of the same kind: the noise, and what is observed, with the other sign."""
        self.noise.initial.neg_()
        self.noise.steps.neg_()
        condition = self._own.condition
        if condition is not None and condition.is_floating_point():
            condition.neg_()

    def denoiser(self) -> Denoiser:
        """A denoiser that has yet to bind the condition: bound by the work that uses it, so that
        the binding is recorded with it."""
        return self._own.unbound()


def _tensors(denoiser: Denoiser) -> list[Tensor]:
    condition, known = denoiser.condition, denoiser.known
    return [
        *([] if condition is None else [condition]),
        *([] if known is None else [known.sample, known.weight]),
    ]
