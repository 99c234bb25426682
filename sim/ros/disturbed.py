"""What real sensors, clocks and networks cost a closed loop: `python -m sim.ros.disturbed --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import tyro
from rich.console import Console

from para_policy import load_policy
from para_policy.errors import InputError
from para_policy.files import check_output_file, write_text
from para_policy.lock import sole_writer
from para_policy.terminal import notes
from sim.evaluation.batches import Sampling
from sim.evaluation.partial import PartialResults, partial_path
from sim.evaluation.provenance import circumstances, sampling_identity
from sim.pusht.task import PUSHT
from sim.ros.disturbance import Disturbance
from sim.ros.latency.conditions import OFFSET_OF, ON_TIME_S, RunArguments
from sim.ros.latency.report import summarize, table
from sim.ros.latency.runs import Runs, play_missing, run_resumable
from sim.tasks.episode import Episode

_LOST: Mapping[str, float] = {"drop": 0.05, "duplicate": 0.05, "reorder": 0.05}
DISTURBANCES: Mapping[str, Disturbance] = {
    "clean": Disturbance(),
    "jitter": Disturbance(stamp_jitter_ms=5.0),
    "network": Disturbance(**_LOST),
    "ahead": Disturbance(stamp_skew_ms=20.0),
    "behind": Disturbance(stamp_skew_ms=-20.0),
    "all": Disturbance(stamp_jitter_ms=5.0, stamp_skew_ms=20.0, **_LOST),
}
CLEAN = "clean, 10 Hz"


@dataclass(frozen=True)
class Condition:
    """Observations at a multiple of the control rate, disturbed on their way."""

    observations_per_step: int
    disturbance: Disturbance

    @property
    def policy(self) -> Mapping[str, object]:
        return {}

    @property
    def simulator(self) -> Mapping[str, object]:
        return {
            "observations_per_step": self.observations_per_step,
            **asdict(self.disturbance),
        }

    @property
    def latency_offset_s(self) -> float:
        return ON_TIME_S


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Play PushT over ROS in real time with disturbed observations; compare with the clean loop.

    jitter: stamps 5 ms off, either way. network: 5 % of the messages are lost, 5 % sent twice, 5 %
    overtaken by the next. ahead, behind: the sensors' clock differs by 20 ms. all: jitter, network
    and ahead together. All conditions play the same start states and are compared with "clean,
    10 Hz". The checkpoint is by default checkpoints/pusht_state. An interrupted run goes on where it
    stopped, also with more episodes.
    """

    disturbances: tuple[str, ...] = tuple(DISTURBANCES)
    """Of those above, and clean."""
    per_step: tuple[int, ...] = (1, 2, 3)
    """Observations for each action: 10, 20 and 30 Hz."""


def conditions(args: Arguments) -> dict[str, Condition]:
    """By name; the clean loop at 10 Hz, with which the others are compared, is always there.

    Raises:
        InputError: for a disturbance that is not known.
    """
    unknown = [name for name in args.disturbances if name not in DISTURBANCES]
    if unknown:
        known = ", ".join(DISTURBANCES)
        raise InputError(f"unknown disturbance '{unknown[0]}'; expected some of {known}")
    chosen = {
        f"{name}, {10 * rate} Hz": Condition(rate, DISTURBANCES[name])
        for rate, name in product(args.per_step, args.disturbances)
    }
    return {CLEAN: Condition(1, DISTURBANCES["clean"]), **chosen}


def measure(args: Arguments, console: Console) -> dict[str, Any]:
    """Play what is missing, and return the JSON document."""
    chosen = conditions(args)
    if min(args.per_step, default=1) < 1:
        raise InputError(f"--per-step is {min(args.per_step)}; expected 1 or more")
    args.check()
    args = args.located()
    policy = load_policy(args.directory())
    PUSHT.check_policy(policy.config)
    policy.sampler(args.sampler, scheduler=args.scheduler, steps=args.steps)
    sampling = Sampling(args.directory(), scheduler=args.scheduler, steps=args.steps)
    identity = {
        **sampling_identity(policy, sampling),
        "sampler": args.sampler,
        "max_steps": args.max_steps,
        **OFFSET_OF,
    }
    identities = {name: {**identity, "condition": asdict(chosen[name])} for name in chosen}
    runs = Runs(
        PartialResults(partial_path(args.json), Episode.reader(PUSHT), identities), list(chosen)
    )
    seeds = range(args.seed, args.seed + args.episodes)
    load = play_missing(args, chosen, runs, seeds, console)
    return {
        **identity,
        **circumstances(policy, args.directory()),
        "episodes": args.episodes,
        "seed": args.seed,
        "jobs": args.jobs,
        "load_average": load,
        **summarize(runs.finished(seeds), chosen, CLEAN, args.margin),
    }


def main(argv: Sequence[str] | None = None) -> int:
    args = tyro.cli(Arguments, args=argv, prog="python -m sim.ros.disturbed")
    console = notes()

    def command() -> None:
        check_output_file(args.json)
        with sole_writer(args.json):
            document = measure(args, console)
            print(table(document))
            write_text(args.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
            write_text(args.json.with_suffix(".md"), table(document))

    return run_resumable(command)


if __name__ == "__main__":
    sys.exit(main())
