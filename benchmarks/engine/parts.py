"""Parts of the engine benchmark, in the order of their importance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.common import Document, Subject
from benchmarks.engine import loop, roofline
from benchmarks.engine.chunks import (
    DDIM_16,
    DDPM_100,
    Case,
    Process,
    Turns,
    make_cases,
    measure_chunks,
)
from benchmarks.engine.image import measure_image
from benchmarks.engine.large import Large, Solves
from benchmarks.engine.network import in_order, measure_calls
from benchmarks.engine.options import Options
from benchmarks.engine.plan import Clock
from benchmarks.engine.policies import Engines
from benchmarks.engine.roofline import Roof
from benchmarks.engine.synthetic import round_rows
from para_policy.comparison import REFERENCE

_SOLVES = 24
"""Chunks whose rounds are replayed on other networks."""
_ASIDE = 20
"""Chunks on engines that are neither eager nor the best."""
_NO_TIME = "no time left"


@dataclass
class Run:
    """What is measured with, and what was found so far.

    Attributes:
        best: label of the engine of the parallel samplers.
        document: what was found; each part adds to it.
    """

    options: Options
    subject: Subject
    engines: Engines
    best: str
    document: dict[str, Any]
    _solves: Solves = field(default_factory=dict)

    @property
    def first(self) -> list[str]:
        """Labels of the engines that everything is measured on."""
        return list(dict.fromkeys((next(iter(self.engines.policies)), self.best)))

    @property
    def roof(self) -> Roof:
        """Of the device, in the precisions so far."""
        found = self.document["roofline"]
        rates = {name: 1e9 * rate for name, rate in found["gflop_per_s"].items()}
        return Roof(1e9 * found["gb_per_s"], rates)

    def leave_out(self, process: Process, reasons: Mapping[str, str]) -> None:
        """Say why some cases of a process were not measured."""
        self.document["samplers_left_out"] |= {
            f"{process.label}, {name}": reason for name, reason in reasons.items()
        }

    def turns(self, process: Process) -> Turns:
        """Observations that calibration did not use, with the noise seeds 0, 1, ..."""
        return Turns(self.subject.unseen(), process)

    def solves(self, clock: Clock) -> Solves:
        """Rows of the rounds of all samplers, by process and sampler; solved once."""
        if not self._solves:
            trained = {self.best: self.engines.policies[self.best]}
            most = min(_SOLVES, self.options.chunks)
            self._solves = {
                (process.label, case.spec.label): round_rows(case, self.turns(process), most, clock)
                for process in (DDPM_100, DDIM_16)
                for case in make_cases(trained, self.options.samplers, process)[0]
            }
        return self._solves


@dataclass(frozen=True)
class Part:
    """A part, its share of the time, and what it does: nothing new when the clock has run down."""

    name: str
    weight: float
    measure: Callable[[Run, Clock], None]


def parts(options: Options) -> Iterator[Part]:
    """All of them, the most important first."""
    yield Part(DDPM_100.label, 40, partial(_chunks, DDPM_100))
    yield Part(DDIM_16.label, 14, partial(_chunks, DDIM_16))
    yield Part("network", 6, lambda run, clock: _network(run, run.first, clock))
    for name in options.networks[:1]:
        yield Part(name, 12, partial(_first_large, name))
    yield Part("other engines", 12, _others)
    yield Part("robots", 10, _robots)
    yield Part("loop", 9, _loop)
    if options.image is not None:
        yield Part("image", 2, partial(_image, options.image))
    for name in options.networks[1:]:
        yield Part(name, 8, partial(_whole_large, name))


def _chunks(process: Process, run: Run, clock: Clock) -> None:
    """All samplers on the eager engine and the best one."""
    best = run.engines.policies[run.best]
    if best.device.type == "cpu":  # there the rows of a call change from round to round
        best.warm_up()
    first = {name: run.engines.policies[name] for name in run.first}
    cases, missing = make_cases(first, run.options.samplers, process)
    reference, most = run.engines.reference, run.options.chunks
    found = measure_chunks(cases, run.turns(process), reference, most, clock)
    run.document["chunks"] += found
    run.leave_out(process, missing)
    run.leave_out(process, _not_begun(cases, found))


def _not_begun(cases: Sequence[Case], found: Sequence[Document]) -> dict[str, str]:
    """Cases at the end that were not measured."""
    return {f"{case.spec.label} on {case.engine}": _NO_TIME for case in cases[len(found) :]}


def _network(run: Run, engines: Iterable[str], clock: Clock) -> None:
    """Calls of the network of all sizes, against the roofline."""
    policies = {name: run.engines.policies[name] for name in engines}
    calls = measure_calls(policies, run.subject.some(0, 1), run.options.rows, clock)
    everything = list(run.engines.policies)
    run.document["network"] = in_order([*run.document["network"], *calls], everything)
    config, configs = run.subject.policy.config, run.engines.configs()
    run.document["roofline"]["points"] += roofline.points(
        "shipped", config, calls, configs, run.roof
    )


def _others(run: Run, clock: Clock) -> None:
    """The other engines and precisions: calls, `sequential`, and on a GPU the first large network."""
    others = [name for name in run.engines.load(run.options.wanted()) if name not in run.first]
    policies = {name: run.engines.policies[name] for name in others}
    precisions = [policy.runtime.engine.config.precision for policy in policies.values()]
    measure_roof(run, [name for name in precisions if name not in run.roof.flops_per_s])
    _network(run, others, Clock(clock.left / 3))
    for process in (DDPM_100, DDIM_16):
        cases, _ = make_cases(policies, (REFERENCE,), process)
        most = min(_ASIDE, run.options.chunks)
        time_each = Clock(clock.left / 4)
        found = measure_chunks(cases, run.turns(process), run.engines.reference, most, time_each)
        run.document["chunks"] += found
        run.leave_out(process, _not_begun(cases, found))
    if run.subject.policy.device.type == "cuda":
        for name in run.options.networks[:1]:
            _large(run, name, others, clock)


def measure_roof(run: Run, precisions: list[Any]) -> None:
    """Add rates of the device in these precisions to the document."""
    roof = roofline.measure_roof(run.subject.policy.device, precisions)
    found = run.document.setdefault("roofline", {"gflop_per_s": {}, "points": []})
    found["gb_per_s"] = roof.bytes_per_s / 1e9
    found["gflop_per_s"] |= {name: rate / 1e9 for name, rate in roof.flops_per_s.items()}


def _robots(run: Run, clock: Clock) -> None:
    """Batches of robots on the best engine."""
    best = {run.best: run.engines.policies[run.best]}
    cases, _ = make_cases(best, (REFERENCE, "chord", "collocation"), DDPM_100)
    turns, most = run.turns(DDPM_100), run.options.chunks // 4 or 1
    found = loop.robots(cases, turns, run.options.robots, most, clock)
    run.document["robots"] += found
    jobs = [f"{case.spec.label}, robots: {count}" for count in run.options.robots for case in cases]
    run.leave_out(DDPM_100, dict.fromkeys(jobs[len(found) :], _NO_TIME))


def _loop(run: Run, clock: Clock) -> None:
    """Chunks within a deadline, on the best engine."""
    best = {run.best: run.engines.policies[run.best]}
    reference, most = run.engines.reference, run.options.chunks
    half = Clock(clock.left / 2)
    for process, time_each in ((DDPM_100, half), (DDIM_16, clock)):
        cases, _ = make_cases(best, ("chord", "auto"), process)
        run.document["loop"] += loop.control_loop(
            cases, run.turns(process), reference, most, time_each
        )


def _image(training: str, run: Run, clock: Clock) -> None:
    """An image policy with random weights."""
    options, engine = run.options, run.engines.configs()[run.best]
    run.document["image"] = measure_image(training, options.device, engine, options.chunks, clock)


def _first_large(name: str, run: Run, clock: Clock) -> None:
    """A published network on the engines that everything is measured on."""
    _large(run, name, run.first, clock)


def _whole_large(name: str, run: Run, clock: Clock) -> None:
    """A published network on all engines of a GPU, and on two of a CPU."""
    on_gpu = run.subject.policy.device.type == "cuda"
    _large(run, name, list(run.engines.policies) if on_gpu else run.first, clock)


def _large(run: Run, name: str, engines: Iterable[str], clock: Clock) -> None:
    configs, trained = run.engines.configs(), run.engines.policies[run.best]
    large = Large(trained, run.solves, run.options.device, run.roof, run.document)
    for key, entries in large.measure(name, {e: configs[e] for e in engines}, clock).items():
        run.document[key] += entries
