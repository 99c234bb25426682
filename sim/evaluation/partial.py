"""Results that survive a stop: the finished tasks of an unfinished run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from para_policy.errors import InputError, shown
from para_policy.files import append_text, write_text
from sim.evaluation.batches import Task


class Kept(Protocol):
    """What is kept of an episode."""

    def to_json(self) -> Any:
        """Plain lists and numbers."""


AnyKept = TypeVar("AnyKept", bound=Kept)

_PARTS = ["key", "sampler", "seeds", "episodes"]
_BEGIN = '{"key": "'
"""Of the line of a record."""


class PartialResults(Generic[AnyKept]):
    """Finished tasks of a run, one JSON line each, so that an interrupted run can go on.

    Lines carry a key made of everything that the episodes depend on; lines of another key, and
    a line that was cut off by a crash, are passed over.

    Args:
        read: undoes `to_json`.
        identities: for each sampler, everything that its episodes depend on besides their seeds.
        tasks: those of the run; others are of other runs, too. None: whatever has its key.

    Attributes:
        others: how many lines of other runs `load` has found.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Any], AnyKept],
        identities: Mapping[str, Mapping[str, Any]],
        tasks: Collection[Task] | None = None,
    ) -> None:
        self.path = path
        self._read = read
        self._keys = {name: _hash(identity) for name, identity in identities.items()}
        self._tasks = tasks
        self.others = 0

    def load(self) -> dict[Task, list[AnyKept]]:
        """All finished tasks of this run.

        Raises:
            InputError: for a file that holds something else, which must not be written into.
        """
        finished = {}
        self.others = 0
        for record in self._records():
            if not self._is_ours(record):
                self.others += 1
                continue
            finished[_task(record)] = [self._read(episode) for episode in record["episodes"]]
        return finished

    def add(self, task: Task, episodes: Sequence[AnyKept]) -> None:
        """Keep one finished task."""
        record = {
            "key": self._keys[task.sampler],
            "sampler": task.sampler,
            "seeds": task.seeds,
            "episodes": [episode.to_json() for episode in episodes],
        }
        append_text(self.path, _line(record))

    def remove(self) -> None:
        """Keep what other runs have left, if there is any."""
        others = [record for record in self._records() if not self._is_ours(record)]
        if others:
            write_text(self.path, "".join(map(_line, others)))
        else:
            self.path.unlink(missing_ok=True)

    def _records(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            return [record for line in lines if (record := _parse_line(line)) is not None]
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"'{self.path}' is no file of finished tasks ({error}); move it elsewhere, or choose "
                "another output"
            ) from error

    def _is_ours(self, record: Mapping[str, Any]) -> bool:
        if record["key"] != self._keys.get(record["sampler"]):
            return False
        return self._tasks is None or _task(record) in self._tasks


def partial_path(json_path: Path) -> Path:
    """Where finished tasks are kept beside the results that they are for."""
    return json_path.with_name(json_path.name.removesuffix(".json") + ".partial.jsonl")


def _task(record: Mapping[str, Any]) -> Task:
    return Task(record["sampler"], tuple(record["seeds"]))


def _line(record: Mapping[str, Any]) -> str:
    # A line of its own, even after one that a crash has cut off.
    return "\n" + json.dumps(record) + "\n"


def _hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _parse_line(line: str) -> dict[str, Any] | None:
    """The record; None for a line that is empty or was cut off. Raises ValueError for another one."""
    try:
        record: Any = json.loads(line)
    except ValueError:
        if line.startswith(_BEGIN) or _BEGIN.startswith(line):
            return None
        raise
    if not isinstance(record, dict) or list(record) != _PARTS:
        raise ValueError(f"line {shown(line)}")
    return record
