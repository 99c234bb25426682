"""The measurement: samplers that take turns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from para_policy import samplers
from para_policy.arguments import check_kind
from para_policy.comparison.summary import summarise
from para_policy.errors import InputError
from para_policy.inference.circumstances import describe_machine, describe_software
from para_policy.policies.policy import ActionResult, DiffusionPolicy
from para_policy.policies.sampler_spec import ANOTHER_SAMPLE, SamplerSpec
from para_policy.samplers import Sampler
from para_policy.stopping import Stop
from para_policy.terminal import progress_bars, waiting

REFERENCE = "sequential"

_WARM_UP_CHUNKS = 2


@dataclass(frozen=True)
class Benchmark:
    """What to compare.

    Attributes:
        samplers: as for `SamplerSpec.parse`; the reference is always measured, whether listed or not.
        scheduler, steps: as in `DiffusionPolicy.sample`.
        observations: how many; observation i has noise seed i.
        first: index of the first of them.
    """

    samplers: tuple[str, ...]
    scheduler: str | None = None
    steps: int | None = None
    observations: int = 24
    first: int = 0

    def __post_init__(self) -> None:
        check_kind("samplers", self.samplers, Sequence)
        for name, least in (("observations", 1), ("first", 0)):
            check_kind(name, getattr(self, name), Integral)
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if not self.samplers:
            raise InputError(f"no samplers given; expected some of {', '.join(samplers.names())}")
        self.specs()

    def specs(self) -> tuple[SamplerSpec, ...]:
        """The reference, then the others in their order, each once."""
        parsed = {spec.label: spec for spec in map(SamplerSpec.parse, self.samplers)}
        return tuple({REFERENCE: SamplerSpec(REFERENCE, REFERENCE), **parsed}.values())

    def make(
        self, policy: DiffusionPolicy, observations: Mapping[str, np.ndarray]
    ) -> list[Sampler]:
        """The samplers for a policy; raises InputError if they or the observations do not fit."""
        available = len(next(iter(observations.values())))
        if self.first + self.observations > available:
            raise InputError(
                f"{self.observations} observations from {self.first} on asked for, there are {available}: "
                f"ask for at most {max(available - self.first, 0)} (--observations), or take them from "
                "demonstrations (--data)"
            )
        return [spec.make(policy, self.scheduler, self.steps) for spec in self.specs()]


def run(
    benchmark: Benchmark, policy: DiffusionPolicy, observations: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Measure one chunk at a time, as a robot would ask for it.

    The samplers take turns on each observation, each time in another order, so that a disturbance
    of the machine meets all of them alike.

    Args:
        observations: {name: (n, To, *shape)}, physical units.

    Returns:
        for each sampler the entries of the `bench` JSON contract.
    """
    made = benchmark.make(policy, observations)
    return _entries(benchmark, made, _measure(benchmark, made, policy, observations, Stop()))


def make_report(
    benchmark: Benchmark,
    policy: DiffusionPolicy,
    observations: Mapping[str, np.ndarray],
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Run the benchmark and say what it was run on; see `run` for arguments and errors.

    Args:
        stop: ends the benchmark between two chunks; the report is then `partial`, about the
            observations that all samplers were measured on.

    Raises:
        Stopped: if there are none.
    """
    kind, steps = policy.chain(benchmark.scheduler, benchmark.steps).key
    stop = stop or Stop()
    made = benchmark.make(policy, observations)
    results = _measure(benchmark, made, policy, observations, stop)
    done = len(results[0])
    if not done:
        stop.end("nothing was measured yet")
    return {
        **describe_machine(policy.network, policy.runtime.in_use),
        **describe_software(),
        "scheduler": kind,
        "steps": steps,
        "partial": done < benchmark.observations,
        "observations": done,
        "cameras": list(policy.config.cameras),
        "seeds": [benchmark.first, benchmark.first + done - 1],
        "samplers": _entries(benchmark, made, results),
    }


def _measure(
    benchmark: Benchmark,
    made: Sequence[Sampler],
    policy: DiffusionPolicy,
    observations: Mapping[str, np.ndarray],
    stop: Stop,
) -> list[list[ActionResult]]:
    """Chunks of each sampler, on as many observations for one as for the other."""
    specs = benchmark.specs()
    results: list[list[ActionResult]] = [[] for _ in specs]
    with waiting("warming up"):
        policy.warm_up()
    turns = range(-_WARM_UP_CHUNKS, benchmark.observations)
    with progress_bars() as progress:
        bar = progress.add_task("benchmark", total=len(specs) * len(turns))
        for turn, k in itertools.product(turns, range(len(specs))):
            if stop.requested:
                break
            index = benchmark.first + max(turn, 0)
            which = (k + turn) % len(specs)
            progress.update(bar, description=specs[which].label)
            result = policy.sample(
                {name: values[index] for name, values in observations.items()},
                sampler=made[which],
                seed=index,
                scheduler=benchmark.scheduler,
                steps=benchmark.steps,
            )
            if turn >= 0:
                results[which].append(result)
            progress.advance(bar)
    done = min(map(len, results))
    return [chunks[:done] for chunks in results]


def _entries(
    benchmark: Benchmark, made: Sequence[Sampler], results: Sequence[Sequence[ActionResult]]
) -> dict[str, dict[str, Any]]:
    """What the benchmark says about each sampler."""
    with waiting("computing intervals"):
        return {
            spec.label: {
                **_describe(spec, sampler),
                **summarise(chunks, results[0], solves=sampler.same_sample),
            }
            for spec, sampler, chunks in zip(benchmark.specs(), made, results, strict=True)
        }


def _describe(spec: SamplerSpec, sampler: Sampler) -> dict[str, Any]:
    """What ran, with every option that has a value of its own."""
    note = None if sampler.same_sample else ANOTHER_SAMPLE
    # `auto` stands for another one.
    return {"sampler": sampler.name, "options": sampler.options(), "note": note}
