"""Solves of a live policy's calls, with what is prepared once for calls of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.live import Kind, LiveRuntime
from para_policy.adapters.plan import Measured, Plan, Settings, choose, make_sampler
from para_policy.adapters.solve import Mixed, draw_steps, gather
from para_policy.diffusion.noise import Noise
from para_policy.errors import InputError
from para_policy.policies.previous import Counts, Overlap, PreviousChunk
from para_policy.policies.solvers import Solvers
from para_policy.samplers import Sampler, SampleResult


@dataclass(frozen=True)
class Following:
    """How a chunk goes on from the last one; see `DiffusionPolicy.sample`."""

    executed: Counts
    frozen: Counts | None = None
    overlap: Overlap = "hard"
    shift_noise: bool = False
    pulled: Sequence[bool] | None = None


@dataclass(frozen=True)
class Sampled:
    """A solve with the noise that it was made from."""

    result: SampleResult
    noise: Noise


@dataclass(frozen=True)
class _Layout:
    action_dim: int
    first_action: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """What calls of one kind need, as long as the policy stays as it is.

    Attributes:
        plan, kind: what it was made for.
        runtime: the policy's network.
        solvers, sampler: on it.
        noise_dtype: see `Mixed.step_noise_dtype`.
    """

    plan: Plan
    kind: Kind
    runtime: LiveRuntime
    solvers: Solvers
    sampler: Sampler
    noise_dtype: torch.dtype

    @classmethod
    def make(
        cls, settings: Settings, plan: Plan, measured: Measured | None, network: Mixed, call: Call
    ) -> Prepared:
        """Prepare for a call and others like it: seconds where an engine compiles or time is measured.

        Raises:
            InputError: as `choose`, and for an engine that cannot be used.
        """
        kind = Kind.of(network, call, settings.engine)
        choice = choose(settings, plan, measured)
        runtime = LiveRuntime(network, kind, plan.process, settings.engine)
        held = {}
        if measured is not None and measured.fits(plan):
            held[plan.key] = measured.calibration.to(call.device)
        solvers = Solvers(plan.kind, plan.process, runtime, held, {})
        with torch.autocast(network.device, enabled=False):
            runtime.warm_up()
            sampler = make_sampler(settings, choice, solvers)
        dtype = call.dtype
        if (plan.process.c != 0).any():
            one = torch.zeros(1, *call.shape[1:], dtype=call.dtype, device=call.device)
            dtype = network.step_noise_dtype(plan.process, one, call.condition)
        return cls(plan, kind, runtime, solvers, sampler, dtype)

    def solve(
        self,
        call: Call,
        network: Mixed,
        deadline_s: float | None = None,
        last: Sampled | None = None,
        following: Following | None = None,
        first_action: int | None = None,
    ) -> Sampled:
        """Draw the noise of a call as its loop would, and solve.

        Args:
            network: of this call.
            last, following: the chunk that this one goes on from, and how.
            first_action: place in a chunk of the first action that is executed; None if unknown.

        Raises:
            InputError, NonFiniteError: as the sampler.
        """
        process = self.plan.process
        deadline = None if deadline_s is None else self.solvers.deadline(deadline_s)
        initial = call.initial()
        steps = draw_steps(
            process, initial, self.noise_dtype, eta=self.plan.eta, generator=call.generator
        )
        noise = gather(self.sampler, network, initial, steps, call.generator)
        guess = known = None
        if last is not None and following is not None:
            before = PreviousChunk.moved(last.result.sample.cpu(), last.noise, following.executed)
            guess = before.guess(call.device)
            if following.shift_noise:
                noise = before.noise.shifted(before.executed, noise)
            if following.frozen is not None:
                if first_action is None:
                    raise InputError(
                        "frozen needs the place of the first action, which is not known"
                    )
                layout = _Layout(call.shape[-1], first_action)
                known = before.known(
                    following.frozen, following.overlap, layout, call.device, following.pulled
                )
        self.runtime.use(network)
        try:
            with torch.autocast(network.device, enabled=False):
                denoiser = self.runtime.denoiser(_rows_of(call), known)
                result = self.sampler(denoiser, process, noise, guess=guess, deadline=deadline)
        finally:
            if call.network is not None:
                self.runtime.use(None)
        return Sampled(result, noise)


def _rows_of(call: Call) -> Tensor:
    """Conditions (batch, C); of no width for nothing."""
    if call.condition is None:
        return torch.empty(call.shape[0], 0, device=call.device)
    return call.condition.reshape(call.shape[0], -1)
