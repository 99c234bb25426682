"""A task over real ROS 2 topics: simulator, policy and executor as processes in lockstep.

python -m sim.ros.closed_loop checkpoints/pusht_state --seeds 100000,100001
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from para_policy import samplers
from para_policy.checkpoints.load import read_checkpoint
from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import InputError
from para_policy.files import check_output_file, check_output_folder, write_text
from para_policy.inference.config import Precision
from para_policy.policies.config import PolicyConfig
from para_policy.policies.sampler_spec import AUTO
from para_policy.ros.domain import check_domain
from para_policy.ros.parameters.templates import inputs_text
from para_policy.stopping import keeping
from para_policy.terminal import notes, progress_bars, run
from sim.ros.processes import RosProcesses, start_runtime, start_simulator
from sim.ros.simulators import SIMULATORS, Simulator
from sim.tasks.choice import task_of
from sim.tasks.episode import Chunk, Episode
from sim.tasks.task import SimulatedTask

StepProgress = Callable[[int, int], None]
"""Called with the seed and the number of steps played."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings(OfCheckpoint):
    """How the policy samples, and where the run lives; None means what the checkpoint says."""

    sampler: str = "chord"
    """Sampler by name: chord (calibrated checkpoints), x0, sequential, auto ..."""
    sampler_options: str = "{}"
    """Its options as YAML: '{window: 60}'."""
    scheduler: str | None = None
    """Noise scheduler (default: the checkpoint's)."""
    steps: int | None = None
    """Sampling steps (default: the checkpoint's)."""
    device: str = "cpu"
    """Where the network runs: cpu, cuda, cuda:1."""
    engine: str = "eager"
    """How the network runs; auto: the fastest way that works here."""
    precision: Precision = "float32"
    """Of the network's arithmetic."""
    env: str | None = None
    """Task to play: pusht or aloha; by default the one that fits the checkpoint."""
    max_steps: int | None = None
    """Length of an episode that does not succeed, in actions; by default the task's."""
    threads: int | None = None
    """Threads that the network computes with."""
    domain_id: int = 77
    """ROS domain of the run; two runs at the same time need two. That of ROS_DOMAIN_ID is not taken: a
    robot may listen there to what the simulated one is told."""

    def simulator(self, config: PolicyConfig) -> Simulator:
        """What plays the task. Raises InputError where the policy fits none, or another."""
        return SIMULATORS[task_of(config, self.env).name]

    def steps_of(self, task: SimulatedTask) -> int:
        """Length of an episode that does not succeed, in actions."""
        return task.max_steps if self.max_steps is None else self.max_steps


def play_episodes(
    settings: LoopSettings,
    seeds: Sequence[int],
    *,
    records: Path | None = None,
    on_progress: StepProgress | None = None,
) -> Generator[Episode]:
    """One episode per seed, with the same start states and noise as `sim.tasks.rollout`, as each ends.

    Args:
        records: folder that keeps states, actions and rewards of each episode as .npz.
    Raises:
        ParaPolicyError: when a node cannot start, ends early or stops answering; says why.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ROS 2 is not available ({error}); source its setup.bash, or run `make demo`, "
            "which installs rclpy from wheels"
        ) from error
    from sim.ros.client import LoopClient

    # Discovery of this process itself; its children get the same from RosProcesses.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with (
        tempfile.TemporaryDirectory(prefix="para_policy_records_") as unkept,
        RosProcesses(settings.domain_id, settings.threads) as processes,
    ):
        folder = (records or Path(unkept)).resolve()
        simulator = start_nodes(processes, settings, folder)
        with LoopClient(settings.domain_id, processes.check, simulator) as client:
            client.wait_until_ready()
            for seed in seeds:
                yield _play(client, simulator.task, seed, on_progress)


def start_nodes(processes: RosProcesses, settings: LoopSettings, records: Path) -> Simulator:
    """Start the three nodes, connected as `policy.launch.py` connects them.

    Args:
        records: folder that receives the episodes, and the mapping of the policy's inputs.

    Returns:
        The simulator that is one of them.
    """
    checkpoint = settings.directory()
    config = read_checkpoint(checkpoint).config
    simulator = settings.simulator(config)
    inputs_file = records / "inputs.yaml"
    write_text(inputs_file, inputs_text(config, simulator.task.name))
    sizes = [config.inputs[name][1:] for name in config.cameras]
    policy = {
        **simulator.policy,
        "checkpoint": str(checkpoint.resolve()),
        "inputs_file": str(inputs_file),
        "device": settings.device,
        "engine": settings.engine,
        "precision": settings.precision,
        "sampler": settings.sampler,
        "sampler_options": settings.sampler_options,
        "scheduler": settings.scheduler or "",
        "steps": settings.steps or 0,
        "torch_threads": settings.threads or 0,
        "lockstep": True,
        "autostart": True,
    }
    executor = {**simulator.executor, "lockstep": True, "auto_enable": True}
    world = {
        "lockstep": True,
        "autostart": False,
        "episodes": 1,
        "max_steps": settings.steps_of(simulator.task),
        "record_dir": str(records),
        "publish_image": bool(sizes),
        **(dict(zip(simulator.image_parameters, max(sizes), strict=False)) if sizes else {}),
    }
    start_runtime(processes, policy, executor)
    start_simulator(processes, simulator, world)
    return simulator


def _play(client: Any, task: SimulatedTask, seed: int, on_progress: StepProgress | None) -> Episode:
    played = client.play(seed, None if on_progress is None else lambda n: on_progress(seed, n))
    with np.load(played.record) as record:
        states, scores = record["states"], record[task.score.name]
    first_stamp = min(played.chunks)
    chunks = [
        Chunk.from_info(
            played.infos[stamp_ns],
            round((stamp_ns - first_stamp) / chunk.dt_ns),
            chunk.actions,
        )
        for stamp_ns, chunk in sorted(played.chunks.items())
    ]
    nothing = np.empty((0, task.action_dim))
    return Episode(task, seed, states, scores, tuple(chunks), first_sample=nothing)


def summary(
    settings: LoopSettings, episodes: Sequence[Episode], *, partial: bool = False
) -> dict[str, Any]:
    """The run as a JSON document; `partial`: it was stopped, or failed, before its last episode."""
    return {
        "partial": partial,
        "checkpoint": settings.named(),
        "task": episodes[0].task.name,
        "sampler": settings.sampler,
        "engine": settings.engine,
        "precision": settings.precision,
        "episodes": [
            {
                "seed": episode.seed,
                **episode.outcome(),
                "rounds": [chunk.rounds for chunk in episode.chunks],
                "evals": [chunk.evals for chunk in episode.chunks],
                "latency_ms": [round(1e3 * chunk.batch_wall_s, 3) for chunk in episode.chunks],
                "encode_ms": [round(1e3 * (chunk.encode_s or 0), 3) for chunk in episode.chunks],
            }
            for episode in episodes
        ],
    }


@dataclass(frozen=True)
class Arguments:
    """Drive a simulated task over ROS 2 topics: three processes, real DDS, time in lockstep."""

    loop: Annotated[LoopSettings, tyro.conf.arg(name="")]
    seeds: str = "100000"
    """Comma-separated seeds, one episode each."""
    json: Path | None = None
    """Write results here."""
    record: Path | None = None
    """Folder for the trajectory of each episode."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="python -m sim.ros.closed_loop")
    return run(lambda: _main(arguments))


def checked(arguments: Arguments) -> tuple[list[int], SimulatedTask]:
    """Seeds and task of a run, with what can be told before its nodes have started, which takes seconds.

    Raises:
        InputError: for wrong options.
    """
    loop = arguments.loop
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError as error:
        raise InputError(f"--seeds {arguments.seeds!r}: expected integers like 1,2,3") from error
    for name in ("steps", "threads", "max_steps"):
        value = getattr(loop, name)
        if value is not None and value < 1:  # 0 stands for the default in parameters of nodes
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected at least 1")
    task = loop.simulator(read_checkpoint(loop.directory()).config).task
    task.require()
    for seed in seeds:
        task.start_state(seed)
    if loop.sampler != AUTO:
        samplers.options(loop.sampler)
    check_domain(loop.domain_id)
    if arguments.json is not None:
        check_output_file(arguments.json)
    if arguments.record is not None:
        check_output_folder(arguments.record)
    return seeds, task


def _main(arguments: Arguments) -> None:
    seeds, task = checked(arguments)
    console = notes()
    with progress_bars(console) as progress:
        bar = progress.add_task("starting nodes", total=arguments.loop.steps_of(task))

        def show(seed: int, steps: int) -> None:
            progress.update(bar, description=f"seed {seed}", completed=steps)

        played = play_episodes(arguments.loop, seeds, records=arguments.record, on_progress=show)
        episodes: list[Episode] = []

        def kept() -> str:
            done = f"{len(episodes)} of {len(seeds)} episodes are played"
            return f"{done}, '{arguments.json}' is partial" if arguments.json and episodes else done

        try:
            with keeping(kept), closing(played):
                for episode in played:
                    episodes.append(episode)
                    console.print(_line(episode))
        finally:
            if arguments.json is not None and episodes:
                document = summary(arguments.loop, episodes, partial=len(episodes) < len(seeds))
                write_text(arguments.json, json.dumps(document, indent=1) + "\n")


def _line(episode: Episode) -> str:
    return (
        f"seed {episode.seed}: max reward {episode.max_reward:.3f}, "
        f"{'success' if episode.success else 'no success'}, {episode.steps} steps, "
        f"{np.mean([chunk.rounds for chunk in episode.chunks]):.1f} rounds per chunk"
    )


if __name__ == "__main__":
    sys.exit(main())
