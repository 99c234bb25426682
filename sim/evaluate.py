"""Paired evaluation of samplers on PushT: `python -m sim.evaluate --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from para_policy.errors import InputError
from para_policy.files import check_output_file, check_output_folder, write_text
from para_policy.inference.config import Precision
from para_policy.policies.policy import DiffusionPolicy
from para_policy.policies.sampler_spec import split_samplers
from para_policy.stopping import Stopped
from para_policy.terminal import run
from sim import plots
from sim.evaluation.batches import (
    Sampling,
    Task,
    make_tasks,
    paired_runs,
    play,
    play_in_processes,
)
from sim.evaluation.partial import PartialResults, partial_path
from sim.evaluation.progress import EvaluationProgress, print_results
from sim.evaluation.provenance import circumstances, sampling_identity
from sim.evaluation.summary import Runs, summarize
from sim.evaluation.variants import Variant
from sim.pusht.env import MAX_STEPS, legacy_start_state, simulator
from sim.pusht.episode import Episode
from sim.pusht.rollout import Control, check_policy
from sim.report import write_html
from sim.video import encoder, write_videos

WARM_UP_CHUNKS = 3


@dataclass(frozen=True)
class Arguments:
    """Play PushT episodes with several samplers, paired by start state and noise, and compare.

    An interrupted run goes on where it stopped when the same command is given again.
    """

    checkpoint: Path
    """Checkpoint directory."""
    json: Path
    """Where the results go."""
    samplers: str = "sequential,x0"
    """Names, separated by commas, with options after a colon ("sequential,paradigms:window=10"), each
    as NAME, NAME+guess (starts from the last chunk: the same
    answer) or NAME+guess+noise (also shifts the last chunk's noise along the horizon: chunks that
    agree better); sequential and asd take no guess, so only +noise. At the end +redrawn (noise of another
    episode) or +perturbed1e-2 (so much is added to each chunk) make control arms: what a harmless change
    does. A run is compared with the sequential run of the same noise, if there is one, or with
    sequential, or the first."""
    episodes: int = 200
    """Episodes per sampler."""
    seed: int = 100000
    """Start state and noise of the first episode; episode i has seed + i."""
    scheduler: str | None = None
    """Noise scheduler: ddpm, ddim, dpmsolver++ (default: the checkpoint's)."""
    steps: int | None = None
    """Sampling steps (default: the checkpoint's)."""
    margin: float = 0.02
    """Equivalence margin of the mean max reward."""
    batch: int = 25
    """Episodes that share each call of the network."""
    jobs: int = 1
    """Processes; the CPU threads are divided among them."""
    device: str = "cpu"
    """Torch device."""
    engine: str = "eager"
    """How the network runs: eager (PyTorch as it is), openvino, cuda-graph ...; auto: the fastest."""
    precision: Precision = "float32"
    """Of the network's arithmetic."""
    check_errors: bool = False
    """Solve every chunk again with `sequential` and report the errors; multiplies the run time."""
    latency_chunks: int = 50
    """Chunks for the latency of one robot (batch 1), measured after the episodes; 0: none."""
    report: Path | None = None
    """Self-contained HTML report."""
    video: Path | None = None
    """Folder for mp4 videos with the predicted chunk drawn over the scene."""
    video_episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Show the first N episodes of each sampler, and the samplers side by side."""

    @property
    def sampler_names(self) -> list[str]:
        return [Variant.parse(name).name for name in split_samplers(self.samplers)]

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            self.checkpoint,
            self.device,
            self.engine,
            self.precision,
            self.scheduler,
            self.steps,
            self.check_errors,
        )


def evaluate(args: Arguments, console: Console) -> dict[str, Any]:
    """Run the evaluation, print it, write all outputs and return the JSON document.

    Raises:
        Stopped: when what is finished by then is printed and written, marked as partial.
    """
    _check(args)
    policy = args.sampling.load()
    check_policy(policy)
    identity = sampling_identity(policy, args.sampling)
    tasks = make_tasks(args.sampler_names, args.seed, args.episodes, args.batch)
    partial = PartialResults(partial_path(args.json), _identities(args, policy, identity))
    finished = {task: found for task, found in partial.load().items() if task in tasks}
    latencies: dict[str, list[float]] = {name: [] for name in args.sampler_names}

    def document(runs: Runs, *, stopped: bool = False) -> dict[str, Any]:
        return {
            "partial": stopped,
            "episodes": len(runs[args.sampler_names[0]]),
            "seed": args.seed,
            **identity,
            **circumstances(policy),
            "jobs": args.jobs,
            "batch": args.batch,
            "margin": args.margin,
            **summarize(runs, latencies, args.margin),
        }

    try:
        _play_all(args, policy, tasks, finished, partial, console)
        console.print("Measuring the latency of one robot ...")
        for name in latencies:
            latencies[name] = _latencies_ms(policy, args, name)
    except KeyboardInterrupt as error:
        kept = "no batch was finished by all samplers"
        if runs := paired_runs(tasks, finished):
            part = document(runs, stopped=True)
            print_results(Console(), part)
            _write(args, part)
            kept = f"'{args.json}' is partial"
        if partial.path.exists():
            kept += f", finished batches are kept in '{partial.path}'"
        again = "give the same command again to go on"
        raise Stopped(Stopped.of(error).number, f"{kept}; {again}") from error
    runs = paired_runs(tasks, finished)
    results = document(runs)
    print_results(Console(), results)  # first: the disk may be full by now
    _write(args, results)
    if args.video is not None:
        write_videos(runs, args.video, args.video_episodes)
    partial.remove()
    return results


def _write(args: Arguments, document: Mapping[str, Any]) -> None:
    write_text(args.json, json.dumps(document, indent=1, allow_nan=False))
    if args.report is not None:
        write_html(document, args.report)


def _identities(
    args: Arguments, policy: DiffusionPolicy, identity: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """For each sampler, everything that its episodes depend on besides the seed."""
    identities = {}
    for name in args.sampler_names:
        variant = Variant.parse(name)
        sampler = variant.make(policy, args.scheduler, args.steps)
        # A sampler is a frozen dataclass: its repr lists all its options.
        identities[name] = {**identity, "sampler": repr(sampler), "start": variant.start}
        if variant.control != Control():
            identities[name]["control"] = repr(variant.control)
    return identities


def _check(args: Arguments) -> None:
    """Everything that can be wrong, before the long work begins."""
    for name, least in (
        ("episodes", 1),
        ("batch", 1),
        ("jobs", 1),
        ("latency_chunks", 0),
        ("video_episodes", 1),
    ):
        if getattr(args, name) < least:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {getattr(args, name)} must be at least {least}")
    if not args.margin > 0:
        raise InputError(f"--margin {args.margin} must be positive, for example 0.02")
    for seed in (args.seed, args.seed + args.episodes - 1):
        legacy_start_state(seed)
    names = args.sampler_names
    if not names or len(set(names)) < len(names):
        raise InputError(f"--samplers {args.samplers!r} must name one or more different samplers")
    for path in (args.json, args.report):
        if path is not None:
            check_output_file(path)
    simulator()
    if args.report is not None:
        plots.pyplot()
    if args.video is not None:
        check_output_folder(args.video)
        encoder()


def _play_all(
    args: Arguments,
    policy: DiffusionPolicy,
    tasks: Sequence[Task],
    finished: dict[Task, list[Episode]],
    partial: PartialResults,
    console: Console,
) -> None:
    """Add the tasks that are missing to `finished` and `partial`, as they are played."""
    if finished:
        console.print(f"Resuming: {len(finished)} of {len(tasks)} batches are already there.")
    todo = [task for task in tasks if task not in finished]
    with EvaluationProgress(console, tasks, finished) as progress:
        played: Iterator[tuple[Task, list[Episode]]]
        if args.jobs == 1:
            played = ((t, play(policy, args.sampling, t, progress.advance)) for t in todo)
        else:
            played = play_in_processes(args.sampling, todo, args.jobs, progress.advance)
        for task, episodes in played:
            partial.add(task, episodes)
            finished[task] = episodes
            progress.finish(task, episodes)


def _latencies_ms(policy: DiffusionPolicy, args: Arguments, sampler: str) -> list[float]:
    """Wall time per chunk of one robot in closed loop: observation in, actions out."""
    variant = Variant.parse(sampler)
    calls: list[float] = []
    wanted = args.latency_chunks + WARM_UP_CHUNKS if args.latency_chunks else 0
    seed = args.seed
    while len(calls) < wanted:
        limit = (wanted - len(calls)) * policy.config.n_action_steps
        (episode,) = variant.play(
            policy, [seed], args.scheduler, args.steps, max_steps=min(limit, MAX_STEPS)
        )
        calls += [1e3 * chunk.batch_wall_s for chunk in episode.chunks]
        seed += 1
    return calls[WARM_UP_CHUNKS:]


def main() -> None:
    """Command line."""
    args = tyro.cli(Arguments)
    console = Console(stderr=True)

    def command() -> None:
        evaluate(args, console)
        console.print(f"Results: {args.json}", soft_wrap=True)

    sys.exit(run(command))


if __name__ == "__main__":
    main()
