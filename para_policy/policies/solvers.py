"""Samplers for one process of one network, with all that was measured and trained for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from para_policy import samplers
from para_policy.arguments import check_kind
from para_policy.calibration import Calibration
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.inference.runtime import Runtime
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.samplers import Sampler, as_sampler
from para_policy.samplers.deadline import Deadline

AUTO = "auto"
"""In place of a sampler's name: the one that is expected to be fastest."""

STAND_IN = "x0"
"""What solves where nothing is calibrated, and whose options "auto" takes."""

_RESERVE = 0.1
"""Of the time until a deadline: for rounds that are slower than measured, and to hand over the chunk.
With 0.05 one chunk in forty was late on a noisy machine."""

_FAR_ABOVE_ROUNDING = 1e-3
"""Normalised action units: float32 networks round far below, which need not be measured."""

_KEPT = 4
"""Samplers of the caller whose recordings are kept."""


@dataclass(frozen=True, eq=False)
class Solvers:
    """A scheduler with a number of steps, and a network on an engine: it makes samplers.

    The samplers that it makes know the process. What was measured or trained for another one is
    refused when it is made.

    Attributes:
        kind: of the scheduler, as in `diffusion.schedulers.SCHEDULERS`.
        process: the step table.
        runtime: the network on its engine.
        calibrations: of the network by kind and steps, from `para-policy calibrate`; that of this
            process is `calibration`.
        consistency_models: PCM weights of the network by kind, steps and splitting, from
            `para-policy distill`.

    Raises:
        InputError: if the calibration was measured on another process.
    """

    kind: str
    process: Process
    runtime: Runtime
    calibrations: Mapping[tuple[str, int], Calibration]
    consistency_models: Mapping[tuple[str, int, str], PicardConsistencyModel]
    _named: dict[tuple[object, ...], Sampler] = field(default_factory=dict, init=False, repr=False)
    _recorded: dict[Sampler, Sampler] = field(default_factory=dict, init=False, repr=False)

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
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.runtime.device

    def choose(
        self, name: str, deadline_s: float | None = None, tolerance: float | None = None
    ) -> tuple[str, Mapping[str, Any]]:
        """A sampler's name, and options that calibration has chosen: what "auto" stands for on this
        device.

        Args:
            deadline_s: solves may be cut off then.
            tolerance: that is asked for; None for the one that was measured.
        """
        check_kind("sampler", name, str)
        if name != AUTO or self.calibration is None:
            return name, {}
        latency = self.runtime.latency(self.calibration.steps)
        measured = self._recorded_calibration if self.runtime.records else self.calibration
        variant = measured.fastest(latency, deadline_s=deadline_s, tolerance=tolerance)
        return variant.sampler, variant.options

    @cached_property
    def _recorded_calibration(self) -> Calibration:
        """The calibration with the rows of recorded rounds."""
        assert self.calibration is not None
        made = self.calibration.sampler
        variants = (
            one.recorded(made(one.sampler, one.options).round_sizes(self.process))
            for one in self.calibration.variants
        )
        return replace(self.calibration, variants=tuple(variants))

    def sampler(self, name: str, *, deadline_s: float | None = None, **options: Any) -> Sampler:
        """Make a sampler by name, with what calibration and training have found for this process.

        Args:
            name: one of `samplers.names()`, or "auto" for the one that is expected to be fastest on
                this device.
            deadline_s: for "auto": solves may be cut off then.
            options: of the sampler, such as `tolerance`; see `samplers.options(name)`. "auto" takes
                those of `STAND_IN`; whichever sampler it stands for is given what it knows of them, and
                must have been as accurate as `tolerance` is small.

        Raises:
            InputError: for unknown names or options, or if a calibration is needed and missing.
        """
        name, options = self._chosen(name, deadline_s, options)
        if name == "pcm" and "consistency" not in options:
            options = {**self._trained(options), **options}
        if self.calibration is None and (name == AUTO or _lacks_matrices(name, options)):
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

    def _chosen(
        self, name: str, deadline_s: float | None, options: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """What is to be made: with "auto" of what it stands for, and as far as that knows the options."""
        if name == AUTO:  # they are checked, whichever it is
            known = samplers.options(STAND_IN)
            if unknown := sorted(set(options) - set(known)):
                raise InputError(
                    f"sampler {AUTO!r} has no option {unknown}; it takes {list(known)}"
                )
            samplers.get(STAND_IN, **options)
        found, chosen = self.choose(name, deadline_s, options.get("tolerance"))
        if name == AUTO and self.calibration is not None:
            options = self.calibration.understood(found, options)
        return found, {**chosen, **options}

    def _make(self, name: str, options: Mapping[str, Any]) -> Sampler:
        if self.calibration is None:
            return samplers.get(name, **options)
        return self.calibration.sampler(name, options)

    def _least_tolerance(self, tolerance: float | None) -> float | None:
        """What a tolerance must be raised to: no residual falls below the rounding of the network.

        None where it may stay. A tolerance of 0 means equal floats, which rounding does not hinder as
        long as all calls have the same size.
        """
        exact = self.runtime.arithmetic == "float32"
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

    def trained(self, options: Mapping[str, Any]) -> PicardConsistencyModel | None:
        """The PCM weights that `pcm` takes with these options; None where there are none."""
        return self.consistency_models.get((*self.key, _splitting(options)))

    def _trained(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What `pcm` takes from training: the network, and how it was trained to be used."""
        model, runtime = self.trained(options), self.runtime
        if model is None:
            raise InputError(
                f"sampler 'pcm' was not trained for {self} and splitting {_splitting(options)!r} "
                f"(there: {_listed(self.consistency_models)}); run para-policy distill"
            )
        consistency = model.on(runtime.module, runtime.shapes.whole_timesteps, runtime.in_use)
        return {"consistency": consistency, "stride": model.stride}

    def deadline(self, seconds: float) -> Deadline:
        """So many seconds from now, with a reserve for the way to the robot.

        Raises:
            InputError: unless they are a number above 0.
        """
        return Deadline.after(seconds, self.runtime.known_latency(), reserve=_RESERVE)

    def solver(self, sampler: str | Sampler, deadline_s: float | None = None) -> Sampler:
        """A sampler by name, prepared once for all chunks, or one of the caller.

        Args:
            deadline_s: as for `choose`.

        Raises:
            InputError: as `sampler`, and for what is no sampler.
        """
        if isinstance(sampler, str):
            return self._by_name(sampler, deadline_s)
        return self._by_hand(as_sampler(sampler))

    def _by_name(self, name: str, deadline_s: float | None) -> Sampler:
        """A sampler by name; chord matrices are prepared once, not for every chunk."""
        name, options = self.choose(name, deadline_s)
        key = (name, *options.items(), torch.get_num_threads())
        if key not in self._named:
            self._named[key] = self.sampler(name, **options)
        return self._named[key]

    def _by_hand(self, sampler: Sampler) -> Sampler:
        """A sampler of the caller, its rounds recorded where that is possible, once for all chunks."""
        self._check_calibrated_here(sampler)
        if sampler.recordings is not None or self.runtime.recorded(sampler) is sampler:
            return sampler
        if sampler not in self._recorded:
            if len(self._recorded) == _KEPT:
                self._recorded.pop(next(iter(self._recorded)))
            self._recorded[sampler] = self.runtime.recorded(sampler)
        return self._recorded[sampler]

    def _check_calibrated_here(self, sampler: Sampler) -> None:
        """Raise InputError for a sampler that was calibrated with other weights: its error bounds, and
        when `collocation` is done, would be those of another network."""
        certificate = sampler.certificate
        if certificate is None or certificate.calibration is None or certificate.exact:
            return
        if not sampler.fits(self.process):
            return  # which the sampler says itself
        if self.calibration is None or not self.calibration.is_that_of(certificate.calibration):
            raise InputError(
                f"sampler {sampler.name!r} was calibrated with other weights than these: what was "
                "measured for one network does not hold for another. Make it with this policy's "
                "policy.sampler(...)"
            )


def _listed(keys: Iterable[tuple[object, ...]]) -> str:
    return ", ".join(" ".join(map(str, key)) for key in keys) or "none"


def _lacks_matrices(name: str, options: Mapping[str, Any]) -> bool:
    takes_them = "matrices" in samplers.options(name)
    return takes_them and _splitting(options) == "chord" and "matrices" not in options


def _splitting(options: Mapping[str, Any]) -> Any:
    return options.get("splitting", "chord")
