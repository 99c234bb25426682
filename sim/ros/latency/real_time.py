"""Real-time play of PushT over ROS: three processes, one condition, several episodes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from para_policy.checkpoints.load import read_checkpoint
from para_policy.execution.chunk import ActionChunk
from para_policy.files import write_text
from para_policy.ros.messages.conversions import message_to_chunk
from para_policy.ros.parameters.templates import inputs_text
from sim.pusht.task import PUSHT
from sim.ros.client import LoopClient, Played
from sim.ros.latency.conditions import Playable, RunArguments
from sim.ros.latency.segments import segments
from sim.ros.processes import RosProcesses, start_runtime, start_simulator
from sim.ros.simulators import PUSHT_SIM
from sim.tasks.episode import Chunk, Episode


@dataclass
class Heard(Played):
    """An episode in real time: chunks in the order of their arrival, for they may have no stamp."""

    order: list[ActionChunk] = field(default_factory=list)

    def complete(self) -> bool:
        return bool(self.result)


class RealTimeClient(LoopClient):
    """Plays episodes that do not wait for anybody."""

    new_record = Heard

    def _on_chunk(self, message: JointTrajectory) -> None:
        assert isinstance(self._played, Heard)
        self._played.order.append(message_to_chunk(message, receive_ns=1))


def play_in_real_time(
    args: RunArguments,
    condition: Playable,
    domain_id: int,
    seeds: Sequence[int],
    check: Callable[[], None],
) -> list[Episode]:
    """Start the nodes, play one episode per seed, and end them.

    Args:
        domain_id: ROS domain of these nodes.
        check: called while waiting; raises to stop.
    Raises:
        ParaPolicyError: when a node cannot start, ends early, reports an error or stops answering.
    """
    # Discovery of this process itself; its children get the same from RosProcesses.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with (
        tempfile.TemporaryDirectory(prefix="para_policy_records_") as name,
        RosProcesses(domain_id, threads=1) as processes,
    ):
        _start(processes, args, condition, Path(name))

        def watch() -> None:
            check()
            processes.check()

        with RealTimeClient(domain_id, watch) as client:
            client.wait_until_ready()
            return [_play(client, seed) for seed in seeds]


def _start(processes: RosProcesses, args: RunArguments, condition: Playable, folder: Path) -> None:
    checkpoint = args.directory()
    inputs_file = folder / "inputs.yaml"
    write_text(inputs_file, inputs_text(read_checkpoint(checkpoint).config))
    policy = {
        "checkpoint": str(checkpoint.resolve()),
        "inputs_file": str(inputs_file),
        "engine": "eager",  # as in the process that it is compared with
        "sampler": args.sampler,
        "scheduler": args.scheduler or "",
        "steps": args.steps or 0,
        "torch_threads": 1,
        "autostart": True,
        **condition.policy,
    }
    offset = {"latency_offset_s": condition.latency_offset_s}  # both must know it
    start_runtime(processes, {**policy, **offset}, {"auto_enable": True, **offset})
    simulator = {
        "autostart": False,
        "episodes": 1,
        "max_steps": args.max_steps,
        "record_dir": str(folder),
        **condition.simulator,
    }
    start_simulator(processes, PUSHT_SIM, simulator)


def _play(client: RealTimeClient, seed: int) -> Episode:
    played = client.play(seed)
    assert isinstance(played, Heard)
    with np.load(played.record) as record:
        states, coverage, actions = record["states"], record["coverage"], record["actions"]
    infos = [played.infos[stamp] for stamp in sorted(played.infos)]
    chunks = [
        Chunk.from_info(infos[number], start, actions[start:end])
        for number, start, end in segments(actions, [chunk.actions for chunk in played.order])
        if number < len(infos)
    ]
    return Episode(PUSHT, seed, states, coverage, tuple(chunks), first_sample=np.empty((0, 2)))
