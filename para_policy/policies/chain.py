"""Chain: one process of one policy, with all that was measured and trained for it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from para_policy import samplers
from para_policy.arguments import check_kind
from para_policy.calibration import Calibration
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import InputError, NonFiniteError
from para_policy.inference.runtime import Runtime
from para_policy.policies.config import PolicyConfig
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.policies.encoder import Encoder, Observation
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.policies.previous import Overlap, PreviousChunk
from para_policy.policies.result import ActionResult, statistics
from para_policy.samplers import Callback, Sampler, as_sampler
from para_policy.samplers.deadline import Deadline

_RESERVE = 0.1
"""Of the time until a deadline: for rounds that are slower than measured, and to hand over the chunk.
With 0.05 one chunk in forty was late on a noisy machine."""

_FAR_ABOVE_ROUNDING = 1e-3
"""Normalised action units: float32 networks round far below, which need not be measured."""

_KEPT = 4
"""Samplers of the caller whose recordings are kept."""


@dataclass(frozen=True, eq=False)
class Chain:
    """A policy with a scheduler and a number of steps: it makes samplers, and samples.

    The samplers that it makes know the process. What was measured or trained for another one is
    refused when the chain is made.

    Attributes:
        kind: of the scheduler, as in `diffusion.schedulers.SCHEDULERS`.
        process: the step table.
        config, encoder, runtime, normalizer: of the policy; the normalizer is that of actions.
        calibrations: of the policy by kind and steps, from `para-policy calibrate`; that of this
            process is `calibration`.
        consistency_models: PCM weights of the policy by kind, steps and splitting, from
            `para-policy distill`.

    Raises:
        InputError: if the calibration was measured on another process.
    """

    kind: str
    process: Process
    config: PolicyConfig
    encoder: Encoder
    runtime: Runtime
    normalizer: LinearNormalizer
    calibrations: Mapping[tuple[str, int], Calibration]
    consistency_models: Mapping[tuple[str, int, str], PicardConsistencyModel]
    _named: dict[tuple[object, ...], Sampler] = field(default_factory=dict, repr=False)
    _recorded: dict[Sampler, Sampler] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        held = self.calibration
        if held is not None and not held.fits(self.process):
            raise InputError(
                f"the calibration for {held.scheduler} with {held.steps} steps was measured on "
                f"other steps than this process takes ({self}); run para-policy calibrate again"
            )

    def __str__(self) -> str:
        return f"{self.kind} with {self.process.num_steps} steps"

    @property
    def key(self) -> tuple[str, int]:
        """Kind and number of steps, by which calibrations are kept."""
        return self.kind, self.process.num_steps

    @property
    def calibration(self) -> Calibration | None:
        """What was measured for this process; None for nothing."""
        return self.calibrations.get(self.key)

    @property
    def shape(self) -> tuple[int, int]:
        """(horizon, action_dim) of a sample."""
        return self.runtime.shapes.horizon, self.runtime.shapes.action_dim

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.runtime.device

    def denoiser(self, obs: Observation) -> Denoiser:
        """Bind batched observations {name: (B, To, *shape)} to the network, once for a whole solve."""
        values = self.encoder.check(obs, batched=True)
        return self.runtime.denoiser(self.encoder.encode(values, self.device))

    def choose(self, name: str, deadline_s: float | None = None) -> tuple[str, Mapping[str, Any]]:
        """A sampler's name, and options that calibration has chosen: what "auto" stands for on this
        device.

        Args:
            deadline_s: solves may be cut off then.
        """
        check_kind("sampler", name, str)
        if name != "auto" or self.calibration is None:
            return name, {}
        latency = self.runtime.latency(self.calibration.steps)
        variant = self.calibration.fastest(latency, deadline_s=deadline_s)
        return variant.sampler, variant.options

    def sampler(self, name: str, *, deadline_s: float | None = None, **options: Any) -> Sampler:
        """Make a sampler by name, with what calibration and training have found for this process.

        Args:
            name: one of `samplers.names()`, or "auto" for the one that is expected to be fastest on
                this device.
            deadline_s: for "auto": solves may be cut off then.
            options: of the sampler, such as `tolerance`; see `samplers.options(name)`.

        Raises:
            InputError: for unknown names or options, or if a calibration is needed and missing.
        """
        name, chosen = self.choose(name, deadline_s)
        options = {**chosen, **options}
        if name == "pcm" and "consistency" not in options:
            options = {**self._trained(options), **options}
        if self.calibration is None and (name == "auto" or _lacks_matrices(name, options)):
            raise InputError(
                f"sampler {name!r} needs a calibration for {self} "
                f"(there: {_listed(self.calibrations)}); run para-policy calibrate --checkpoint DIR "
                f"--scheduler {self.kind} --steps {self.process.num_steps}"
            )
        made = self._make(name, options)
        least = self._least_tolerance(made.tolerance)
        if least is not None:
            made = self._make(name, {**options, "tolerance": least})
        return self.runtime.recorded(replace(made, made_for=self.process))

    def _make(self, name: str, options: Mapping[str, Any]) -> Sampler:
        if self.calibration is None:
            return samplers.get(name, **options)
        return self.calibration.sampler(name, options)

    def _least_tolerance(self, tolerance: float | None) -> float | None:
        """What a tolerance must be raised to: no residual falls below the rounding of the network.

        None where it may stay. A tolerance of 0 means equal floats, which rounding does not hinder as
        long as all calls have the same size.
        """
        exact = self.runtime.engine.config.precision == "float32"
        if not tolerance or (exact and tolerance >= _FAR_ABOVE_ROUNDING):
            return None
        floor = self.runtime.noise_floor(self.process)
        if tolerance >= floor:
            return None
        warnings.warn(
            f"tolerance is {tolerance:.1e}; rounding of the network ({self.runtime.device_key}) "
            f"changes a step by up to {floor:.1e}, so that is used instead",
            stacklevel=3,
        )
        return floor

    def _trained(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What `pcm` takes from training: the network, and how it was trained to be used."""
        splitting = options.get("splitting", "chord")
        model, runtime = self.consistency_models.get((*self.key, splitting)), self.runtime
        if model is None:
            raise InputError(
                f"sampler 'pcm' was not trained for {self} and splitting {splitting!r} "
                f"(there: {_listed(self.consistency_models)}); run para-policy distill"
            )
        count = runtime.shapes.num_train_timesteps
        consistency = model.on(runtime.module, count, runtime.in_use)
        return {"consistency": consistency, "stride": model.stride}

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
    ) -> ActionResult:
        """Predict a chunk; arguments and errors as for `DiffusionPolicy.sample`."""
        start = time.perf_counter()
        check_kind("callback", callback, Callable, NoneType)
        deadline = None
        if deadline_s is not None:
            latency = self.runtime.known_latency()
            deadline = Deadline.after(deadline_s, latency, reserve=_RESERVE)
        solver = (
            self._by_name(sampler, deadline_s)
            if isinstance(sampler, str)
            else self._by_hand(as_sampler(sampler))
        )
        batched = isinstance(seed, Sequence) or (isinstance(seed, np.ndarray) and seed.ndim > 0)
        seeds: list[Any] = list(seed) if batched else [seed]  # type: ignore[arg-type]
        values = self.encoder.check(obs, batched=batched)
        for name, value in values.items():
            if len(value) != len(seeds):
                raise InputError(f"{len(seeds)} seeds for {len(value)} observations {name!r}")
        noise = Noise.from_seeds(seeds, self.shape, self.process.num_steps, device=self.device)
        before, guess, known = None, None, None
        if previous is not None:
            before = PreviousChunk.of(previous, executed, self.config, len(seeds))
            guess = before.guess(self.device)
            if shift_noise:
                noise = before.noise.shifted(before.executed, noise)
        if frozen is not None:
            if before is None:
                raise InputError(f"frozen is {frozen} without a previous chunk; give both")
            known = before.known(frozen, overlap, self.config, self.device, pulled)
        encoding = time.perf_counter()
        denoiser = self.runtime.denoiser(self.encoder.encode(values, self.device), known)
        if self.encoder.has_cameras and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the encoder's time is reported apart
        encode_s = time.perf_counter() - encoding
        result = solver(
            denoiser, self.process, noise, guess=guess, deadline=deadline, callback=callback
        )
        prediction, actions = self.physical(result.sample)
        if not np.isfinite(prediction).all():
            raise NonFiniteError(
                "the sampled actions are beyond float32 in physical units and must not be executed; "
                "check the statistics of the checkpoint's actions"
            )
        sample = result.sample.cpu().numpy()
        unit = 1 / self.normalizer.scale.cpu().abs()
        stats = statistics(result, unit, encode_s, time.perf_counter() - start, batched)
        if batched:
            return ActionResult(actions, prediction, sample, noise, stats)
        return ActionResult(actions[0], prediction[0], sample[0], noise, stats)

    def physical(self, sample: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The whole prediction (B, Tp, A) and its actions (B, Ta, A) in physical units.

        Args:
            sample: (B, Tp, A), normalised.
        """
        prediction = self.normalizer.unnormalize(sample).cpu().numpy()
        first = self.config.first_action
        return prediction, prediction[:, first : first + self.config.n_action_steps]

    def _by_name(self, name: str, deadline_s: float | None) -> Sampler:
        """A sampler by name; chord matrices are prepared once, not for every chunk."""
        name, options = self.choose(name, deadline_s)
        key = (name, *options.items(), torch.get_num_threads())
        if key not in self._named:
            self._named[key] = self.sampler(name, **options)
        return self._named[key]

    def _by_hand(self, sampler: Sampler) -> Sampler:
        """A sampler of the caller, its rounds recorded where that is possible, once for all chunks."""
        if sampler.recordings is not None or self.runtime.recorded(sampler) is sampler:
            return sampler
        if sampler not in self._recorded:
            if len(self._recorded) == _KEPT:
                self._recorded.pop(next(iter(self._recorded)))
            self._recorded[sampler] = self.runtime.recorded(sampler)
        return self._recorded[sampler]


def _listed(keys: Iterable[tuple[object, ...]]) -> str:
    return ", ".join(" ".join(map(str, key)) for key in keys) or "none"


def _lacks_matrices(name: str, options: Mapping[str, Any]) -> bool:
    takes_them = "matrices" in samplers.options(name)
    return takes_them and options.get("splitting", "chord") == "chord" and "matrices" not in options
