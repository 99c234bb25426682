"""Patch of another project's policy object, so that it samples in parallel: `accelerate`."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions import recognise
from para_policy.adapters.measure import JACOBIANS, measure, read, weights_hash
from para_policy.adapters.observe import calls_for
from para_policy.adapters.plan import Measured, Plan, Settings, make_sampler
from para_policy.adapters.solve import Mixed, draw_steps, solve
from para_policy.calibration import Calibration
from para_policy.checkpoints.calibration import save_calibration
from para_policy.errors import InputError
from para_policy.samplers import Sampler, SampleResult

PolicyT = TypeVar("PolicyT")

_HANDLE = "para_policy"
_REMEMBERED = 64
_TOLERANCE = 1e-2


def accelerate(
    policy: PolicyT,
    sampler: str | Sampler = "x0",
    *,
    steps: int | None = None,
    scheduler: str | None = None,
    observations: Iterable[Mapping[str, Any]] | None = None,
    calibration: str | Path | None = None,
    **options: Any,
) -> PolicyT:
    """Make a live policy object sample in parallel: same public methods, same noise, same actions.

    Its sampling method is replaced in place; weights, `state_dict` and everything else stay as
    they are. `policy.para_policy` is the `Acceleration`: statistics, and the way back (`undo`).
    Called again it changes the settings. Gradients do not flow through sampling.

    Args:
        policy: LeRobot's `DiffusionPolicy`, `PI0Policy`, `PI05Policy`, `SmolVLAPolicy`, `EO1Policy`
            or `Evo1Policy`, or a U-Net or transformer policy of the original diffusion_policy
            project with global conditioning. Neither project is imported.
        sampler: a name from `samplers.names()`, or a sampler. "x0" needs nothing. "chord" takes
            fewer rounds, "collocation" fewer rows, and both are calibrated once, with
            `observations`, with the file in `calibration`, or with what the policy has seen since it
            was accelerated; until then "x0" stands in for them, with a warning.
        steps: denoising steps; None for the policy's own `num_inference_steps`.
        scheduler: "ddpm", "ddim" or "dpmsolver++" on the policy's noise schedule; None for its own.
        observations: to calibrate with, now: recorded observations one after the other, each as the
            policy's `select_action` or `predict_action` takes it. The policy is `reset` before and
            after.
        calibration: directory that the calibration is read from if it is there (`observations` are
            not needed then), and written to if not. It is bound to weights and noise schedule.
        options: of the sampler, such as `tolerance`; see `samplers.options(name)`.

    Returns:
        The same object.

    Raises:
        InputError: for objects of another kind, schedulers, samplers or options that do not fit.
            The policy is then as before.
        CheckpointError: for a calibration of other weights, or a broken one.
    """
    held = getattr(policy, _HANDLE, None)
    acceleration = held if isinstance(held, Acceleration) else Acceleration(policy)
    settings = Settings(sampler, options, steps, scheduler)
    acceleration._configure(settings, observations, calibration)
    return policy


@dataclass(eq=False, repr=False)
class Acceleration:
    """What `accelerate` leaves at `policy.para_policy`.

    Copies (`copy.deepcopy`, pickle) of an accelerated policy are accelerated, each with a handle of
    its own; a pickle of it needs this package to be read. Call `undo` first where that matters.

    Attributes:
        policy: the object that was given.
        last: result of the last chunk: `rounds`, `evals`, `converged`, `residual` and
            `error_bound`, each (batch,), and `status`; None before the first.
        seen: the last calls of the sampling method, with one row of their conditions each.
    """

    policy: Any
    last: SampleResult | None = None
    seen: deque[Call] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def __post_init__(self) -> None:
        self._convention = recognise(self.policy)
        self._settings = Settings()
        self._measured: Measured | None = None
        self._prepared: tuple[Plan, torch.device, Sampler] | None = None
        method, held = self._convention.method, vars(self._convention.owner)
        self._before = {method: held[method]} if method in held else {}

    def __repr__(self) -> str:
        return f"Acceleration({type(self.policy).__name__}, {self._settings})"

    @property
    def original(self) -> Callable[..., Any]:
        """The policy's own sampling method, which is replaced."""
        owner, method = self._convention.owner, self._convention.method
        own: Callable[..., Any] = getattr(type(owner), method).__get__(owner)
        return self._before.get(method, own)

    @property
    def calibration(self) -> Calibration | None:
        """What `chord` uses; None if there is none."""
        return None if self._measured is None else self._measured.calibration

    def undo(self) -> None:
        """Give the policy its own sampling method back."""
        owner = vars(self._convention.owner)
        owner.pop(self._convention.method, None)
        owner.update(self._before)
        vars(self.policy).pop(_HANDLE, None)

    def _configure(
        self,
        settings: Settings,
        observations: Iterable[Mapping[str, Any]] | None,
        directory: str | Path | None,
    ) -> None:
        """Change the settings and patch the object; or raise, and leave all as it was."""
        plan = self._convention.plan(settings, {})
        measured = self._measured if self._measured and self._measured.fits(plan) else None
        given = observations is not None or directory is not None
        if (given or settings.needs_calibration) and not self._convention.calibrates:
            raise InputError(
                f"{self._convention.title} cannot be calibrated; use sampler 'x0', without "
                "observations or calibration"
            )
        if given or (settings.needs_calibration and measured is None and self._has_seen_enough):
            measured = self._calibrated(plan, settings, observations, directory)
        if settings.needs_calibration and measured is None:
            warnings.warn(self._uncalibrated(plan), stacklevel=3)
        device = torch.device("cpu")
        self._prepared = plan, device, make_sampler(settings, plan, measured, device)
        self._settings, self._measured = settings, measured
        vars(self._convention.owner)[self._convention.method] = self._sample
        vars(self.policy)[_HANDLE] = self

    def _calibrated(
        self,
        plan: Plan,
        settings: Settings,
        observations: Iterable[Mapping[str, Any]] | None,
        directory: str | Path | None,
    ) -> Measured:
        """Read from a file, or measured now."""
        bound_to = "" if directory is None else weights_hash(self._convention.weights())
        if directory is not None:
            found = read(directory, bound_to, plan.schedule, *plan.key)
            if found is not None:
                return Measured(found, plan.schedule)
        if observations is not None:
            calls = calls_for(self._convention, observations)
        elif self._has_seen_enough:
            calls = list(self.seen)
        else:
            raise InputError(f"'{directory}' holds no calibration. {self._uncalibrated(plan)}")
        network = self._convention.network()
        tolerance = settings.options.get("tolerance", _TOLERANCE)
        found = measure(network, calls, plan.process, plan.kind, tolerance).to("cpu")
        if directory is not None:
            save_calibration(directory, found, bound_to, plan.schedule)
        return Measured(found, plan.schedule)

    @property
    def _has_seen_enough(self) -> bool:
        return len(self.seen) >= JACOBIANS

    def _uncalibrated(self, plan: Plan) -> str:
        return (
            f"chord is not calibrated for {plan.kind} with {plan.process.num_steps} steps; until it "
            "is, x0 stands in for it: the same answer in more rounds. Give observations=[...], "
            f"recorded ones as {self._convention.entry} takes them; or calibration=DIRECTORY, where "
            f"one was saved; or call accelerate again after {JACOBIANS} chunks (so far "
            f"{len(self.seen)}), and it is calibrated with what the policy saw"
        )

    @torch.no_grad()
    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        """In place of the policy's sampling method, with its arguments."""
        return self._convention.sample(self._solve, self.original, *args, **kwargs)

    def _solve(self, call: Call) -> Tensor:
        plan, sampler = self._prepare(call)
        network = Mixed.here(call.network or self._convention.network(), call.dtype, call.device)
        initial = call.initial()
        steps = draw_steps(plan.process, initial, eta=plan.eta, generator=call.generator)
        result = solve(
            sampler, network, call.condition, plan.process, initial, steps, call.generator
        )
        self.last = result
        if call.condition is not None and self._convention.calibrates:
            self.seen.append(call.without_noise(1))
        # The caller may write into what it gets.
        return result.sample.to(call.dtype, copy=True)

    def _prepare(self, call: Call) -> tuple[Plan, Sampler]:
        """The last plan, if the policy is still as it was, or a new one."""
        options = call.loop_options
        if self._prepared is not None:
            plan, device, sampler = self._prepared
            if device == call.device and plan.source == self._convention.source(options):
                return plan, sampler
        plan = self._convention.plan(self._settings, options)
        sampler = make_sampler(self._settings, plan, self._measured, call.device)
        self._prepared = plan, call.device, sampler
        return plan, sampler
