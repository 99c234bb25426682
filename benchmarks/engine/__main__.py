"""Benchmark of the engines, all parts in one call: `python -m benchmarks.engine --help`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common import Common, Subject, circumstances, load, main
from benchmarks.engine import loop, roofline
from benchmarks.engine.chunks import DDIM_16, DDPM_100, Process, Turns, make_cases, measure_chunks
from benchmarks.engine.image import measure_image
from benchmarks.engine.large import Large
from benchmarks.engine.network import measure_calls
from benchmarks.engine.plan import Budget
from benchmarks.engine.policies import ON_CPU, ON_GPU, Engines, best_engine, load_engines
from benchmarks.engine.report import show
from benchmarks.engine.roofline import Roof
from benchmarks.engine.synthetic import PUBLISHED, round_rows
from para_policy.comparison import REFERENCE
from para_policy.errors import InputError


@dataclass(frozen=True)
class Options(Common):
    """Calls, chunks, deadlines and batches on every engine that works here, against the roofline.

    Needs a checkpoint that is calibrated for DDPM 100 and DDIM 16. Under ten minutes on two cores.
    """

    engines: tuple[str, ...] = ()
    """BACKEND or BACKEND:PRECISION, several; by default all that the device may have."""
    best: str | None = None
    """BACKEND or BACKEND:PRECISION for the parallel samplers; by default the fastest at 64 rows."""
    precision: str = "float32"
    """The fastest is looked for among engines of this precision."""
    samplers: tuple[str, ...] = (
        REFERENCE,
        "paradigms",
        "parataa:order=10,history=3,window=20",
        "pcm",
        "chord",
        "collocation",
    )
    """What takes turns, on the eager engine and on the best one."""
    chunks: int = 200
    """Chunks of each case; fewer where a chunk is dear and the time does not suffice."""
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 48, 64, 100, 128)
    """Sizes of network calls."""
    robots: tuple[int, ...] = (1, 4, 8, 16, 64)
    """Robots in a batch."""
    networks: tuple[str, ...] = tuple(PUBLISHED)
    """Published networks that are timed with random weights."""
    image: str | None = "config/training/pusht_image.yaml"
    """Configuration of an image policy, timed with random weights; None for nothing."""
    budget_s: float = 540.0
    """Seconds for everything but starting up; a part may take longer to have its least numbers."""


WEIGHTS: Mapping[str, float] = {
    "network": 9,
    DDPM_100.label: 44,
    DDIM_16.label: 15,
    "loop": 11,
    "robots": 5,
    "image": 2,
    "large": 14,
}
_SOLVES = 24
"""Chunks whose rounds are replayed on other networks."""


@dataclass
class Run:
    """What is measured with, and what was found so far."""

    options: Options
    subject: Subject
    engines: Engines
    budget: Budget
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """Label of the engine of the parallel samplers."""
        return str(self.document["best"])

    @property
    def roof(self) -> Roof:
        """Of the device."""
        found = self.document["roofline"]
        rates = {name: 1e9 * rate for name, rate in found["gflop_per_s"].items()}
        return Roof(1e9 * found["gb_per_s"], rates)

    def turns(self, process: Process) -> Turns:
        """Observations that calibration did not use, with the noise seeds 0, 1, ..."""
        return Turns(self.subject.unseen(), process)


def measure(options: Options) -> dict[str, Any]:
    """All parts, one after the other; the plan is printed as it is made."""
    _check(options)
    start = time.monotonic()
    subject = load(options)
    wanted = options.engines or (ON_CPU if options.device == "cpu" else ON_GPU)
    if options.best is not None:
        wanted = (*wanted, options.best)
    budget = Budget(options.budget_s, WEIGHTS)
    engines = load_engines(subject, options, wanted)
    run = Run(options, subject, engines, budget)
    run.document |= {
        **circumstances(options, subject.policy),
        "budget_s": options.budget_s,
        "engines": list(engines.policies),
        "left_out": dict(engines.left_out),
    }
    for part in (_network, _chunks, _loop, _robots, _image, _large):
        run.document |= part(run)
    run.document["seconds"] = time.monotonic() - start
    show(run.document)
    return run.document


def _check(options: Options) -> None:
    if options.chunks < 1 or options.budget_s <= 0:
        raise InputError(
            f"--chunks is {options.chunks} and --budget-s {options.budget_s:g}; "
            "expected at least 1 and more than 0"
        )
    for name in ("rows", "robots"):
        if not getattr(options, name) or min(getattr(options, name)) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; expected numbers of 1 or more")
    unknown = sorted(set(options.networks) - set(PUBLISHED))
    if unknown:
        raise InputError(f"--networks {unknown} unknown; expected some of {list(PUBLISHED)}")


def _network(run: Run) -> dict[str, Any]:
    print(f"network calls of {min(run.options.rows)} to {max(run.options.rows)} rows")
    policies, configs = run.engines.policies, run.engines.configs()
    calls = measure_calls(
        policies, run.subject.some(0, 1), run.options.rows, run.budget.share("network")
    )
    best = best_engine(calls, configs, run.options.best, run.options.precision)
    precisions = list(dict.fromkeys(config.precision for config in configs.values()))
    roof = roofline.measure_roof(run.subject.policy.device, precisions)
    points = roofline.points("shipped", run.subject.policy.config, calls, configs, roof)
    return {
        "network": calls,
        "best": best,
        "roofline": {
            "gb_per_s": roof.bytes_per_s / 1e9,
            "gflop_per_s": {name: rate / 1e9 for name, rate in roof.flops_per_s.items()},
            "points": points,
        },
    }


def _chunks(run: Run) -> dict[str, Any]:
    """Everything on the eager engine and the best one, `sequential` on the others too."""
    run.engines.policies[run.best].warm_up()
    both = {
        name: policy for name, policy in run.engines.policies.items() if name in (run.best, "eager")
    }
    others = {name: p for name, p in run.engines.policies.items() if name not in both}
    found: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for process in (DDPM_100, DDIM_16):
        cases, missing = make_cases(both, run.options.samplers, process)
        cases += make_cases(others, (REFERENCE,), process)[0]
        seconds = run.budget.share(process.label)
        print(f"{process.label}: {len(cases)} cases in {seconds:.0f} s")
        found += measure_chunks(
            cases,
            run.turns(process),
            run.engines.reference,
            run.options.chunks,
            seconds,
            frozenset(others),
        )
        left_out |= {f"{process.label}, {name}": reason for name, reason in missing.items()}
    return {"chunks": found, "samplers_left_out": left_out}


def _loop(run: Run) -> dict[str, Any]:
    print(f"control loop with a deadline of {1e3 * loop.DEADLINE_S:g} ms")
    policy, seconds = run.engines.policies[run.best], run.budget.share("loop") / 2
    found: list[dict[str, Any]] = []
    for process in (DDPM_100, DDIM_16):
        cases, _ = make_cases({run.best: policy}, ("chord", "auto"), process)
        found += loop.control_loop(
            cases, run.turns(process), run.engines.reference, run.options.chunks, seconds
        )
    return {"loop": found}


def _robots(run: Run) -> dict[str, Any]:
    print(f"{', '.join(map(str, run.options.robots))} robots in a batch")
    policy = run.engines.policies[run.best]
    cases, _ = make_cases({run.best: policy}, (REFERENCE, "chord"), DDPM_100)
    seconds = run.budget.share("robots")
    turns, most = run.turns(DDPM_100), run.options.chunks // 4 or 1
    return {"robots": loop.robots(cases, turns, run.options.robots, most, seconds)}


def _image(run: Run) -> dict[str, Any]:
    seconds = run.budget.share("image")
    if run.options.image is None:
        return {"image": None}
    print("image policy with random weights")
    engine = run.engines.configs()[run.best]
    most = run.options.chunks
    return {"image": measure_image(run.options.image, run.options.device, engine, most, seconds)}


def _large(run: Run) -> dict[str, Any]:
    """The published networks, on all engines of a GPU, and on two of a CPU."""
    if not run.options.networks:
        return {"large": [], "synthetic": [], "cut_chunks": [], "rounds": []}
    configs, trained = run.engines.configs(), run.engines.policies[run.best]
    solved = min(_SOLVES, run.options.chunks)
    on_gpu = trained.device.type == "cuda"
    chosen = {n: c for n, c in configs.items() if on_gpu or n in ("eager", run.best)}
    solves = {
        (process.label, case.spec.label): round_rows(case, run.turns(process), solved)
        for process in (DDPM_100, DDIM_16)
        for case in make_cases({run.best: trained}, run.options.samplers, process)[0]
    }
    large = Large(trained, solves, run.options.device, chosen, run.roof, run.document)
    seconds = run.budget.share("large")
    print(f"networks of {' and '.join(run.options.networks)} random weights in {seconds:.0f} s")
    return large.measure(run.options.networks, seconds)


if __name__ == "__main__":
    main(Options, measure, roofline.figure)
