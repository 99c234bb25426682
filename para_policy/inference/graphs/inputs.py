"""What differs from chunk to chunk, in tensors that stay."""

from __future__ import annotations

from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise


class Inputs:
    """Copies of the noise, the condition and the known sample of a solve.

    Attributes:
        noise: `initial` and `steps`; samplers with uniforms are not recorded.
    """

    def __init__(self, denoiser: Denoiser, noise: Noise) -> None:
        self.noise = Noise(noise.initial.clone(), noise.steps.clone())
        self._own = denoiser.with_copies()

    def fill(self, denoiser: Denoiser, noise: Noise) -> None:
        """Take over the values of another chunk of the same shapes."""
        for kept, value in (
            (self.noise.initial, noise.initial),
            (self.noise.steps, noise.steps),
            *zip(_tensors(self._own), _tensors(denoiser), strict=True),
        ):
            kept.copy_(value)

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
