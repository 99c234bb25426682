"""The measurement: samplers that take turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from para_policy import samplers
from para_policy.comparison.circumstances import describe_machine, describe_software
from para_policy.comparison.summary import summarise
from para_policy.errors import InputError
from para_policy.policies.policy import ActionResult, DiffusionPolicy
from para_policy.policies.sampler_spec import ANOTHER_SAMPLE, SamplerSpec
from para_policy.samplers import Sampler
from para_policy.terminal import progress_bars

REFERENCE = "sequential"

_WARM_UP_CHUNKS = 2


@dataclass(frozen=True)
class Benchmark:
    """What to compare.

    Attributes:
        samplers: as for `SamplerSpec.parse`; the reference is always measured, whether listed or not.
        scheduler, steps: as in `DiffusionPolicy.sample`.
        observations: how many of the checkpoint's observations; observation i has noise seed i.
        first: index of the first of them.
    """

    samplers: tuple[str, ...]
    scheduler: str | None = None
    steps: int | None = None
    observations: int = 24
    first: int = 0

    def __post_init__(self) -> None:
        for name, least in (("observations", 1), ("first", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if not self.samplers:
            raise InputError(f"no samplers given; expected some of {', '.join(samplers.names())}")
        self.specs()

    def specs(self) -> tuple[SamplerSpec, ...]:
        """The reference, then the others in their order, each once."""
        parsed = {spec.label: spec for spec in map(SamplerSpec.parse, self.samplers)}
        return tuple({REFERENCE: SamplerSpec(REFERENCE, REFERENCE), **parsed}.values())


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
    available = len(next(iter(observations.values())))
    if benchmark.first + benchmark.observations > available:
        raise InputError(
            f"{benchmark.observations} observations from {benchmark.first} on asked for, "
            f"the checkpoint holds {available}"
        )
    specs = benchmark.specs()
    made = [spec.make(policy, benchmark.scheduler, benchmark.steps) for spec in specs]
    results: list[list[ActionResult]] = [[] for _ in specs]
    policy.warm_up()
    with progress_bars() as progress:
        total = len(specs) * (benchmark.observations + _WARM_UP_CHUNKS)
        bar = progress.add_task("benchmark", total=total)
        for turn in range(-_WARM_UP_CHUNKS, benchmark.observations):
            index = benchmark.first + max(turn, 0)
            obs = {name: values[index] for name, values in observations.items()}
            for k in range(len(specs)):
                which = (k + turn) % len(specs)
                progress.update(bar, description=specs[which].label)
                result = policy.sample(
                    obs,
                    sampler=made[which],
                    seed=index,
                    scheduler=benchmark.scheduler,
                    steps=benchmark.steps,
                )
                if turn >= 0:
                    results[which].append(result)
                progress.advance(bar)
    return {
        spec.label: {
            **_describe(spec, sampler),
            **summarise(chunks, results[0], solves=sampler.same_sample),
        }
        for spec, sampler, chunks in zip(specs, made, results, strict=True)
    }


def make_report(
    benchmark: Benchmark, policy: DiffusionPolicy, observations: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Run the benchmark and say what it was run on; see `run` for arguments and errors."""
    kind, steps = policy.chain(benchmark.scheduler, benchmark.steps).key
    return {
        **describe_machine(policy),
        **describe_software(),
        "scheduler": kind,
        "steps": steps,
        "observations": benchmark.observations,
        "cameras": list(policy.config.cameras),
        "seeds": [benchmark.first, benchmark.first + benchmark.observations - 1],
        "samplers": run(benchmark, policy, observations),
    }


def _describe(spec: SamplerSpec, sampler: Sampler) -> dict[str, Any]:
    """What ran, with every option that has a value of its own."""
    note = None if sampler.same_sample else ANOTHER_SAMPLE
    # `auto` stands for another one.
    return {"sampler": sampler.name, "options": sampler.options(), "note": note}
