"""Results that survive a stop: the finished tasks of an unfinished run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from para_policy.files import append_text
from sim.evaluation.batches import Task
from sim.tasks.episode import Episode
from sim.tasks.task import SimulatedTask


class PartialResults:
    """Finished tasks of a run, one JSON line each, so that an interrupted run can go on.

    Lines carry a key made of everything that the episodes depend on; lines of another key, and
    a line that was cut off by a crash, are passed over.
    """

    def __init__(
        self, path: Path, task: SimulatedTask, identities: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """`identities`: for each sampler, everything that its episodes of the task depend on."""
        self.path = path
        self._task = task
        self._keys = {name: _hash(identity) for name, identity in identities.items()}

    def load(self) -> dict[Task, list[Episode]]:
        """All finished tasks of this run."""
        if not self.path.exists():
            return {}
        finished = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            record = _parse_line(line)
            if record is not None and record["key"] == self._keys.get(record["sampler"]):
                task = Task(record["sampler"], tuple(record["seeds"]))
                finished[task] = [
                    Episode.from_json(episode, self._task) for episode in record["episodes"]
                ]
        return finished

    def add(self, task: Task, episodes: Sequence[Episode]) -> None:
        """Keep one finished task."""
        record = {
            "key": self._keys[task.sampler],
            "sampler": task.sampler,
            "seeds": task.seeds,
            "episodes": [episode.to_json() for episode in episodes],
        }
        # A line of its own, even after one that a crash has cut off.
        append_text(self.path, "\n" + json.dumps(record) + "\n")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def partial_path(json_path: Path) -> Path:
    """Where finished tasks are kept beside the results that they are for."""
    return json_path.with_suffix(".partial.jsonl")


def _hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return record
