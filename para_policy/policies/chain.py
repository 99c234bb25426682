"""Chain: one process of one policy, from observations to chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from para_policy.arguments import check_kind
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.errors import InputError, NonFiniteError
from para_policy.inference.config import Precision
from para_policy.inference.precision import tensor_cores
from para_policy.policies.config import PolicyConfig
from para_policy.policies.encoder import Encoder, Observation
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.policies.previous import Overlap, PreviousChunk
from para_policy.policies.result import ActionResult, Meaning, statistics
from para_policy.policies.solvers import Solvers
from para_policy.samplers import Callback, Poll, Sampler
from para_policy.samplers.checks import check_default_device


@dataclass(frozen=True, eq=False)
class Chain(Solvers):
    """A policy with a scheduler and a number of steps: it makes samplers, and samples.

    Attributes:
        config, encoder, normalizer: of the policy; the normalizer is that of actions.
    """

    config: PolicyConfig
    encoder: Encoder
    normalizer: LinearNormalizer

    @property
    def shape(self) -> tuple[int, int]:
        """(horizon, action_dim) of a sample."""
        return self.runtime.shapes.horizon, self.runtime.shapes.action_dim

    def denoiser(self, obs: Observation) -> Denoiser:
        """Bind batched observations {name: (B, To, *shape)} to the network, once for a whole solve."""
        return self.runtime.denoiser(self._encoded(self.encoder.check(obs, batched=True)))

    def sample(
        self,
        obs: Observation,
        *,
        sampler: str | Sampler = "sequential",
        seed: int | Sequence[int] = 0,
        previous: ActionResult | Sequence[ActionResult] | None = None,
        executed: int | Sequence[int] | None = None,
        shift_noise: bool = False,
        frozen: int | Sequence[int] | None = None,
        overlap: Overlap = "hard",
        pulled: Sequence[bool] | None = None,
        deadline_s: float | None = None,
        callback: Callback | None = None,
        poll: Poll | None = None,
    ) -> ActionResult:
        """Predict a chunk; arguments and errors as for `DiffusionPolicy.sample`."""
        start = time.perf_counter()
        check_default_device()
        check_kind("callback", callback, Callable, NoneType)
        check_kind("poll", poll, Callable, NoneType)
        deadline = None if deadline_s is None else self.deadline(deadline_s)
        solver = self.solver(sampler, deadline_s)
        batched = isinstance(seed, Sequence) or (isinstance(seed, np.ndarray) and seed.ndim > 0)
        seeds: list[Any] = list(seed) if batched else [seed]  # type: ignore[arg-type]
        values = self.encoder.check(obs, batched=batched)
        for name, value in values.items():
            if len(value) != len(seeds):
                raise InputError(f"{len(seeds)} seeds for {len(value)} observations {name!r}")
        noise = Noise.from_seeds(seeds, self.shape, self.process.num_steps, device=self.device)
        before, guess, known = None, None, None
        if previous is not None:
            before = PreviousChunk.of(previous, executed, self.config, len(seeds), self.meaning)
            guess = before.guess(self.device)
            if shift_noise:
                noise = before.noise.shifted(before.executed, noise)
        if frozen is not None:
            if before is None:
                raise InputError(f"frozen is {frozen} without a previous chunk; give both")
            known = before.known(frozen, overlap, self.config, self.device, pulled)
        encoding = time.perf_counter()
        denoiser = self.runtime.denoiser(self._encoded(values), known)
        if self.encoder.has_cameras and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the encoder's time is reported apart
        encode_s = time.perf_counter() - encoding
        with self._exact():  # around the network, which has its own precision
            result = solver(
                denoiser,
                self.process,
                noise,
                guess=guess,
                deadline=deadline,
                callback=callback,
                poll=poll,
            )
        sample = result.sample.cpu()
        prediction, actions = self.physical(sample)
        if not np.isfinite(prediction).all():
            raise NonFiniteError(
                "the sampled actions are beyond float32 in physical units and must not be executed; "
                "check the statistics of the checkpoint's actions"
            )
        unit = 1 / self.normalizer.on_host.scale.abs()
        stats = statistics(result, unit, encode_s, time.perf_counter() - start, batched)
        if not batched:
            actions, prediction, sample = actions[0], prediction[0], sample[0]
        return ActionResult(actions, prediction, sample.numpy(), noise, stats, self.meaning)

    @cached_property
    def meaning(self) -> Meaning:
        """Of the numbers in its samples."""
        return Meaning.of(self.config, self.normalizer)

    def _encoded(self, values: Mapping[str, np.ndarray]) -> Tensor:
        """Conditions (B, C) in the arithmetic of the network."""
        with self._exact(self.runtime.engine.precision):
            return self.encoder.encode(values, self.device)

    @contextmanager
    def _exact(self, precision: Precision = "float32") -> Iterator[None]:
        """Arithmetic as the engine's precision says, whatever autocast the host program is in."""
        with torch.autocast(self.device.type, enabled=False), tensor_cores(precision):
            yield

    def physical(self, sample: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The whole prediction (B, Tp, A) and its actions (B, Ta, A) in physical units.

        Args:
            sample: (B, Tp, A), normalised, on the CPU.
        """
        prediction = self.normalizer.on_host.unnormalize(sample).numpy()
        first = self.config.first_action
        return prediction, prediction[:, first : first + self.config.n_action_steps]
