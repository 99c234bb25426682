"""Benchmark of the engines, all parts in one call: `python -m benchmarks.engine --help`."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.common import circumstances, load, main
from benchmarks.engine import roofline
from benchmarks.engine.options import Options
from benchmarks.engine.parts import Part, Run, measure_roof, parts
from benchmarks.engine.plan import Budget, Clock
from benchmarks.engine.policies import Engines
from benchmarks.engine.report import show
from para_policy.errors import ParaPolicyError
from para_policy.files import write_text

_NOT_FINISHED = "not finished"


def measure(options: Options) -> dict[str, Any]:
    """All parts, one after the other; what was found so far is written after each.

    Raises:
        InputError: for options that cannot be used.
        ParaPolicyError: at the end, if a part has failed.
    """
    begun, run = time.monotonic(), start(options)
    planned = list(parts(options))
    budget = Budget(
        options.budget_s - (time.monotonic() - begun),
        {part.name: part.weight for part in planned},
    )
    entries: list[dict[str, Any]] = []
    for part in planned:
        entries.append(_measure(part, run, budget.share(part.name)))
        # Whoever ends this before its end, `timeout` say, reads which parts that has cost.
        ahead = [{"part": each.name, "left_out": _NOT_FINISHED} for each in planned[len(entries) :]]
        run.document |= run.engines.report() | {"seconds": time.monotonic() - begun}
        run.document["parts"] = entries + ahead
        write_text(options.json, json.dumps(run.document, indent=1) + "\n")
    show(run.document)
    failed = [entry for entry in run.document["parts"] if "failure" in entry]
    if failed:
        reasons = "; ".join(f"{entry['part']} ({entry['failure']})" for entry in failed)
        raise ParaPolicyError(f"some parts failed: {reasons}")
    return run.document


def start(options: Options) -> Run:
    """Load what is measured, and choose the best engine.

    Raises:
        InputError: for options that cannot be used.
    """
    options.check()
    subject = load(options)
    engines = Engines(subject, options)
    best = engines.best(options.wanted(), options.best, options.precision)
    lists = ("network", "chunks", "loop", "robots", "large", "synthetic", "cut_chunks", "rounds")
    document = {
        **circumstances(options, subject.policy),
        **{"budget_s": options.budget_s, "best": best, "parts": [], "samplers_left_out": {}},
        **{name: [] for name in lists},
        "image": None,
    }
    run = Run(options, subject, engines, best, document)
    measure_roof(run, [engines.configs()[best].precision])
    return run


def _measure(part: Part, run: Run, clock: Clock) -> dict[str, Any]:
    """How it went: its seconds, and why it failed or was left out."""
    entry: dict[str, Any] = {"part": part.name, "share_s": clock.left}
    if not clock.left:
        print(f"{part.name}: no time left", flush=True)
        return {**entry, "left_out": "no time left"}
    print(f"{part.name}: {clock.left:.0f} s", flush=True)
    start = time.monotonic()
    try:
        part.measure(run, clock)
    # The device may be out of memory or out of order; what was measured before is kept.
    except (ParaPolicyError, RuntimeError, MemoryError) as error:
        print(f"{part.name} failed: {error}", flush=True)
        entry["failure"] = str(error)
    return {**entry, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    main(Options, measure, roofline.figure)
