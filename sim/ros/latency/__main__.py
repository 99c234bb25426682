"""Latency experiment: what latency costs a robot, and what helps: `python -m sim.ros.latency --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import tyro
from rich.console import Console

from para_policy import load_policy
from para_policy.errors import InputError
from para_policy.files import check_output_file, write_text
from para_policy.lock import sole_writer
from para_policy.policies.policy import DiffusionPolicy
from para_policy.terminal import notes
from sim import plots
from sim.evaluation.batches import Sampling
from sim.evaluation.partial import PartialResults, partial_path
from sim.evaluation.provenance import circumstances, sampling_identity
from sim.pusht.task import PUSHT
from sim.ros.latency.conditions import MODES, OFFSET_OF, Arguments, Condition
from sim.ros.latency.report import figure, summarize, table
from sim.ros.latency.runs import Runs, play_missing, run_resumable
from sim.tasks.episode import Episode
from sim.tasks.rollout import rollout

IN_PROCESS = "in_process"


def measure(args: Arguments, console: Console) -> dict[str, Any]:
    """Play what is missing, and return the JSON document."""
    _check(args)
    args = args.located()
    policy = load_policy(args.directory())
    PUSHT.check_policy(policy.config)
    identity = {
        **sampling_identity(
            policy, Sampling(args.directory(), scheduler=args.scheduler, steps=args.steps)
        ),
        "sampler": args.sampler,
        "max_steps": args.max_steps,
        **OFFSET_OF,
    }
    conditions = {
        f"{mode}, {latency_ms:g} ms": Condition(mode, latency_ms)
        for mode, latency_ms in product(args.modes, args.added_latency_ms)
    }
    names = (IN_PROCESS, *conditions)
    identities = {name: {**identity, "condition": name} for name in names}
    runs = Runs(PartialResults(partial_path(args.json), Episode.reader(PUSHT), identities), names)
    seeds = range(args.seed, args.seed + args.episodes)
    _play_in_process(args, policy, runs, seeds, console)
    load = play_missing(args, conditions, runs, seeds, console)
    return {
        **identity,
        **circumstances(policy, args.directory()),
        "episodes": args.episodes,
        "seed": args.seed,
        "jobs": args.jobs,
        "load_average": load,
        **summarize(runs.finished(seeds), conditions, IN_PROCESS, args.margin),
    }


def _check(args: Arguments) -> None:
    unknown = [mode for mode in args.modes if mode not in MODES]
    if unknown:
        raise InputError(f"unknown mode '{unknown[0]}'; expected some of {', '.join(MODES)}")
    args.check()
    plots.pyplot()


def _play_in_process(
    args: Arguments, policy: DiffusionPolicy, runs: Runs, seeds: Sequence[int], console: Console
) -> None:
    missing = runs.missing(IN_PROCESS, seeds)
    if not missing:
        return
    console.print(f"playing {len(missing)} episodes in this process")
    played = rollout(
        policy,
        missing,
        sampler=args.sampler,
        scheduler=args.scheduler,
        steps=args.steps,
        task=PUSHT,
        max_steps=args.max_steps,
    )
    for episode in played:
        runs.keep(IN_PROCESS, episode)


def main(argv: Sequence[str] | None = None) -> int:
    args = tyro.cli(Arguments, args=argv, prog="python -m sim.ros.latency")
    console = notes()

    def command() -> None:
        check_output_file(args.json)
        with sole_writer(args.json):
            arguments = {name: str(value) for name, value in asdict(args).items()}
            document = {"arguments": arguments, **measure(args, console)}
            print(table(document))
            write_text(args.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
            write_text(args.json.with_suffix(".md"), table(document))
            plots.save(figure, document, args.json.with_suffix(".png"))

    return run_resumable(command)


if __name__ == "__main__":
    sys.exit(main())
