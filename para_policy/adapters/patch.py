"""Patch of another project's policy object, so that it samples in parallel: `accelerate`."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions import recognise
from para_policy.adapters.live import Kind
from para_policy.adapters.measure import JACOBIANS, measure, read, save
from para_policy.adapters.observe import calls_for
from para_policy.adapters.plan import Measured, Plan, Settings, choose, versions_of
from para_policy.adapters.record import Chunk, Summary
from para_policy.adapters.sampling import Following, Prepared, Sampled
from para_policy.adapters.solve import Mixed
from para_policy.arguments import check_kind
from para_policy.calibration import Calibration
from para_policy.checkpoints.files import weights_sha256
from para_policy.errors import InputError
from para_policy.inference import EngineConfig
from para_policy.inference.config import Precision
from para_policy.inference.device import PLAIN_ENGINE
from para_policy.policies.previous import Counts, Overlap
from para_policy.policies.solvers import AUTO
from para_policy.samplers import Sampler
from para_policy.samplers.checks import check_default_device

PolicyT = TypeVar("PolicyT")

HANDLE = "para_policy"
"""Attribute of an accelerated policy."""

_REMEMBERED = 64
_TOLERANCE = 1e-2
_OTHER_WEIGHTS = (
    "the weights of the policy are others than it was calibrated with: there is no error_bound, and x0 "
    f"stands in for chord and collocation, until accelerate is called again, after {JACOBIANS} chunks or "
    "with observations=[...]"
)


def accelerate(
    policy: PolicyT,
    sampler: str | Sampler = "x0",
    *,
    steps: int | None = None,
    scheduler: str | None = None,
    observations: Iterable[Mapping[str, Any]] | None = None,
    calibration: str | Path | None = None,
    engine: str | EngineConfig = "eager",
    precision: Precision = "float32",
    deadline_s: float | None = None,
    warm_start: bool = False,
    **options: Any,
) -> PolicyT:
    """Make a live policy object sample in parallel: same public methods, same noise, same actions.

    Its sampling method is replaced in place; weights, `state_dict` and everything else stay as
    they are. `policy.para_policy` is the `Acceleration`: statistics, and the way back (`undo`).
    Called again it changes the settings. Gradients do not flow through sampling.

    Args:
        policy: LeRobot's `DiffusionPolicy`, `MultiTaskDiTPolicy`, `PI0Policy`, `PI05Policy`,
            `SmolVLAPolicy`, `EO1Policy` or `Evo1Policy`, or a U-Net or transformer policy of the
            original diffusion_policy project with global conditioning. Neither project is imported.
        sampler: a name from `samplers.names()`, or a sampler. "x0" needs nothing. "chord" takes
            fewer rounds, "collocation" fewer rows, and both are calibrated once, with
            `observations`, with the file in `calibration`, or with what the policy has seen since it
            was accelerated; until then "x0" stands in for them, with a warning. "auto" is the one
            that is expected to be fastest on this device, and "x0" where nothing is calibrated.
        steps: denoising steps; None for the policy's own `num_inference_steps`.
        scheduler: another one on the policy's noise schedule, such as "ddim"; None for its own.
        observations: to calibrate with, now: recorded observations one after the other, each as the
            policy's `select_action` or `predict_action` takes it. The policy is `reset` before and
            after.
        calibration: directory that the calibration is read from if it is there (`observations` are
            not needed then), and written to if not. It is bound to weights and noise schedule; what
            `para-policy calibrate` writes is one. When the weights change it is forgotten, with a
            warning.
        engine: how the network runs: "eager" leaves it as it is; others copy its weights, anew when
            those change. Changes through `.data`, as of averaged weights, are not seen: call
            `accelerate` again after them. See `EngineConfig`.
        precision: of the network's arithmetic, where `engine` is a name of another one.
        deadline_s: a chunk is returned at the last round that ends before so many seconds from the
            call of the sampling method, with `last.converged` False if it was cut off.
        warm_start: solves start from the last chunk, moved to the present: fewer rounds while a plan
            goes on, the same answer. Also after `reset`, where it costs rounds.
        options: of the sampler, such as `tolerance`; see `samplers.options(name)`.

    Returns:
        The same object.

    Raises:
        InputError: for objects of another kind, schedulers, samplers or options that do not fit.
            The policy is then as before.
        CheckpointError: for a calibration of other weights, or a broken one.
    """
    held = getattr(policy, HANDLE, None)
    acceleration = held if isinstance(held, Acceleration) else Acceleration(policy)
    runs = EngineConfig(engine, precision) if isinstance(engine, str) else engine
    check_kind("engine", runs, EngineConfig)
    settings = Settings(sampler, options, steps, scheduler, runs, deadline_s, warm_start)
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
            `error_bound`, each (batch,), `status`, `seconds`, and `steps` of the policy's own loop;
            None before the first.
        seen: the last calls of the sampling method, with one row of their conditions each.
    """

    policy: Any
    last: Chunk | None = None
    seen: deque[Call] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def __post_init__(self) -> None:
        self._convention = recognise(self.policy)
        self._settings = Settings()
        self._measured: Measured | None = None
        self._prepared: Prepared | None = None
        self._example: Call | None = None
        self._sampled: Sampled | None = None
        self._following: Following | None = None
        self._summary = Summary()
        method, held = self._convention.method, vars(self._convention.owner)
        self._undone = False
        self._before = {method: held[method]} if method in held else {}

    def __repr__(self) -> str:
        return f"Acceleration({type(self.policy).__name__}, {self._settings})"

    def __getstate__(self) -> dict[str, Any]:
        """Without what is prepared, which a copy prepares for itself."""
        return {**vars(self), "_prepared": None}

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

    def summary(self) -> Summary:
        """Chunks, network calls and seconds since the settings were last changed, and before.

        Times one call of the policy's own network (a fraction of a second), between two chunks.
        """
        runtime = None if self._prepared is None else self._prepared.runtime
        if runtime is None or self.last is None:
            return self._summary
        with torch.no_grad(), torch.autocast(runtime.device.type, enabled=False):
            return replace(self._summary, call_s=runtime.seconds(len(self.last.rounds)))

    def follow(
        self,
        executed: Counts | None = None,
        *,
        frozen: Counts | None = None,
        overlap: Overlap = "hard",
        shift_noise: bool = False,
        pulled: Sequence[bool] | None = None,
    ) -> None:
        """Let the next chunk go on from the last one; arguments as for `DiffusionPolicy.sample`.

        Args:
            executed: time steps from the call of the last chunk to that of the next; None for the
                policy's `n_action_steps`.
            frozen, overlap, pulled: real-time chunking: so many actions from then on are decided,
                and are taken over.
            shift_noise: of the last chunk, moved likewise.

        Raises:
            InputError: without a last chunk, or if the policy does not say how many are executed. What
                does not fit otherwise is found when the next chunk is sampled.
        """
        if self._sampled is None:
            raise InputError("there is no chunk yet to follow; sample one first")
        if executed is None:
            told = self._convention.layout()
            if told is None:
                raise InputError(
                    "executed is None, and this policy has no n_action_steps; give a number"
                )
            executed = told[0]
        self._following = Following(executed, frozen, overlap, shift_noise, pulled)

    def undo(self) -> None:
        """Give the policy its own sampling method back.

        A wrapper that others have put around ours since stays, and calls the policy's own from now on.
        """
        owner, method = vars(self._convention.owner), self._convention.method
        if owner.get(method) == self._sample:
            del owner[method]
            owner.update(self._before)
        self._undone = True
        vars(self.policy).pop(HANDLE, None)

    def _configure(
        self,
        settings: Settings,
        observations: Iterable[Mapping[str, Any]] | None,
        directory: str | Path | None,
    ) -> None:
        """Change the settings and patch the object; or raise, and leave all as it was."""
        check_default_device()
        plan = self._convention.plan(settings, {})
        self._forget_other_weights()
        measured = self._measured if self._measured and self._measured.fits(plan) else None
        wanted = settings.needs_calibration or settings.sampler == AUTO
        given = observations is not None or directory is not None
        if (given or settings.needs_calibration) and not self._convention.calibrates:
            raise InputError(
                f"{self._convention.title} cannot be calibrated; use sampler 'x0', without "
                "observations or calibration"
            )
        if given or (wanted and measured is None and self._has_seen_enough):
            measured = self._calibrated(plan, settings, observations, directory)
        if settings.needs_calibration and measured is None:
            warnings.warn(self._uncalibrated(plan), stacklevel=3)
        choose(settings, plan, measured)
        prepared = None
        slow = settings.sampler == AUTO or settings.engine.backend != PLAIN_ENGINE
        if self._example is not None and slow:  # no chunk has to wait for it
            example = self._example
            network = Mixed.here(self._convention.network(), example.dtype, example.device)
            prepared = Prepared.make(settings, plan, measured, network, example)
        self._settings, self._measured, self._prepared = settings, measured, prepared
        self._following, self._summary = None, Summary()
        if vars(self.policy).get(HANDLE) is not self:
            vars(self._convention.owner)[self._convention.method] = self._sample
            vars(self.policy)[HANDLE] = self

    def _calibrated(
        self,
        plan: Plan,
        settings: Settings,
        observations: Iterable[Mapping[str, Any]] | None,
        directory: str | Path | None,
    ) -> Measured | None:
        """Read from a file, or measured now; None for "auto" that has nothing of either."""
        if directory is not None:
            found = read(directory, self._convention, plan)
            if found is not None:
                return self._bound(found, plan)
        if observations is not None:
            calls = calls_for(self._convention, observations)
            self._example = calls[0]
        elif self._has_seen_enough:
            calls = list(self.seen)
        elif settings.sampler == AUTO:
            return None
        else:
            raise InputError(f"'{directory}' holds no calibration. {self._uncalibrated(plan)}")
        network = self._convention.network()
        tolerance = settings.options.get("tolerance", _TOLERANCE)
        found = measure(network, calls, plan.process, plan.kind, tolerance).to("cpu")
        if directory is not None:
            save(directory, self._convention, plan, found)
        return self._bound(found, plan)

    def _bound(self, calibration: Calibration, plan: Plan) -> Measured:
        """To the weights as they are now."""
        digest = weights_sha256(self._convention.weights())
        return Measured(calibration, plan.schedule, digest, versions_of(self._convention.holder))

    def _forget_other_weights(self) -> bool:
        """Forget what was measured, and seen, with other weights than those of now; whether that was so."""
        held = self._measured
        if held is None:
            return False
        now = versions_of(self._convention.holder)
        if now == held.versions:
            return False
        if weights_sha256(self._convention.weights()) == held.weights_sha256:
            self._measured = replace(held, versions=now)
            return False
        self._measured = self._prepared = None
        self.seen.clear()
        return True

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

    # A compiled policy calls it as it is: tracing rounds, whose number depends on data, gains nothing.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        """In place of the policy's sampling method, with its arguments."""
        if self._undone:
            return self.original(*args, **kwargs)
        return self._convention.sample(self._solve, self.original, *args, **kwargs)

    def _solve(self, call: Call) -> Tensor:
        started = time.perf_counter()
        check_default_device()
        if self._forget_other_weights():
            warnings.warn(_OTHER_WEIGHTS, stacklevel=5)
        network = Mixed.here(call.network or self._convention.network(), call.dtype, call.device)
        prepared = self._prepare(network, call)
        told = self._convention.layout()
        following, self._following = self._following, None
        if following is None and self._settings.warm_start and told is not None:
            same = self._sampled is not None and self._sampled.noise.initial.shape == call.shape
            following = Following(told[0]) if same else None
        self._sampled = prepared.solve(
            call,
            network,
            self._settings.deadline_s,
            self._sampled,
            following,
            None if told is None else told[1],
        )
        result = self._sampled.result
        # The caller may write into what it gets.
        answer = result.sample.to(call.dtype, copy=True)
        self.last = Chunk.of(result, time.perf_counter() - started, prepared.plan.process.num_steps)
        self._summary = self._summary.plus(self.last)
        if call.condition is not None and self._convention.calibrates:
            if self.seen and self.seen[-1].place != call.place:
                self.seen.clear()  # the policy was moved, and what it saw was not
            self._example = call.without_noise(1)
            self.seen.append(self._example)
        return answer

    def _prepare(self, network: Mixed, call: Call) -> Prepared:
        """What was prepared, if the policy is still as it was, or anew."""
        held, options = self._prepared, call.loop_options
        if held is not None and held.plan.source == self._convention.source(options):
            if held.kind == Kind.of(network, call, self._settings.engine):
                return held
            plan = held.plan
        else:
            plan = self._convention.plan(self._settings, options)
        self._prepared = Prepared.make(self._settings, plan, self._measured, network, call)
        return self._prepared
