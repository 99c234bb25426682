"""Records of the chunks of a run: what was published, and what was said of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from para_policy.errors import DataError
from para_policy.execution.chunk import ActionChunk
from para_policy.ros.bags.reader import Bag
from para_policy.ros.bags.topics import CHUNK, CHUNK_TYPE, INFO, INFO_TYPE, settings_topics
from para_policy.ros.messages.conversions import message_to_chunk, stamp_to_ns
from para_policy.ros.messages.diagnostics import status_values
from para_policy.ros.messages.settings import RecordedSettings, read_settings

_NEEDED = ("chunk", "stamp_ns", "seed", "settings", "observation", "executed", "rounds")


@dataclass(frozen=True, eq=False)
class ChunkRecord:
    """One chunk and its `~/chunk_info`.

    Attributes:
        index: in its episode.
        stamp_ns: time of its observations.
        out_ns: when it came out, on the node's clock.
        received_ns: when its info was received, on the recorder's clock.
        seed: of its noise.
        settings: id of the settings in force.
        observation: digest of what the policy saw.
        executed: steps by which the chunk before it was moved to start from it; None: cold start.
        committed: actions that real-time chunking held fixed.
        batch: chunks that were solved in the same call.
        rounds: of the solver.
        converged: false for a solve that was cut short.
        latency_ms: from the look at the observations to the chunk.
        chunk: its actions; None where the bag lacks the message.
    """

    index: int
    stamp_ns: int
    out_ns: int
    received_ns: int
    seed: int
    settings: str
    observation: str
    executed: int | None
    committed: int
    batch: int
    rounds: int
    converged: bool
    latency_ms: float
    chunk: ActionChunk | None


@dataclass(frozen=True)
class Run:
    """The record of one robot's policy.

    Attributes:
        node: full name under which its chunks came out.
        chunks: in the order in which they came out.
        without_info: chunks whose info is not in the bag.
    """

    node: str
    chunks: list[ChunkRecord]
    without_info: int


def read_all_settings(bag: Bag) -> dict[str, RecordedSettings]:
    """All settings in the bag by id.

    Raises:
        DataError: when there are none, or one is no settings message.
    """
    found = [
        read_settings(recorded.message.data)
        for recorded in bag.messages(settings_topics(bag.topics))
    ]
    if not found:
        raise DataError(
            "the bag holds no settings message; record the topic ~/settings of the policy node "
            f"too, as `para-policy record` does (there: {', '.join(sorted(bag.topics)) or 'nothing'})"
        )
    return {settings.id: settings for settings in found}


def read_run(bag: Bag, node: str) -> Run:
    """Chunks of one policy, paired with their infos.

    Raises:
        DataError: when a message is damaged, or an info lacks what replaying needs.
    """
    waiting: list[ActionChunk] = []
    chunks: list[ChunkRecord] = []
    infos: list[tuple[dict[str, str], int]] = []
    for recorded in bag.messages({f"{node}/{CHUNK}": CHUNK_TYPE, f"{node}/{INFO}": INFO_TYPE}):
        if recorded.topic.endswith(INFO):
            infos.append((status_values(recorded.message), recorded.time_ns))
        else:
            waiting.append(_chunk(recorded.message, recorded.time_ns))
        # A chunk and its info come from two topics: either may be received first.
        while infos and (match := _match(infos[0][0], waiting)) is not None:
            chunks.append(_record(*infos.pop(0), waiting.pop(match)))
        if len(infos) > _REORDERED:
            chunks.append(_record(*infos.pop(0), None))
    chunks += [_record(values, time_ns, None) for values, time_ns in infos]
    return Run(node, chunks, len(waiting))


_REORDERED = 3
"""So many infos may be received before the chunk of the first of them."""


def _chunk(message: Any, received_ns: int) -> ActionChunk:
    chunk = message_to_chunk(message, received_ns)
    if stamp_to_ns(message.header.stamp):
        return chunk
    return ActionChunk(0, chunk.dt_ns, chunk.actions)  # stamp_mode zero: see _match


def _match(values: Mapping[str, str], waiting: Iterable[ActionChunk]) -> int | None:
    """Index of the chunk that an info speaks of: the one with its stamp, or the first without any."""
    stamp = values.get("stamp_ns", "")
    for index, chunk in enumerate(waiting):
        if str(chunk.stamp_ns) == stamp or chunk.stamp_ns == 0:
            return index
    return None


def _record(values: Mapping[str, str], received_ns: int, chunk: ActionChunk | None) -> ChunkRecord:
    absent = [key for key in _NEEDED if key not in values]
    if absent:
        raise DataError(
            f"chunk_info of chunk {values.get('chunk', '?')} lacks {', '.join(absent)}; it was "
            "recorded with an older policy_node, whose chunks cannot be replayed"
        )
    try:
        stamp_ns = int(values["stamp_ns"])
        age_ms = values.get("observation_age_ms")
        actions = None if chunk is None else ActionChunk(stamp_ns, chunk.dt_ns, chunk.actions)
        return ChunkRecord(
            index=int(values["chunk"]),
            stamp_ns=stamp_ns,
            out_ns=received_ns if age_ms is None else stamp_ns + round(1e6 * float(age_ms)),
            received_ns=received_ns,
            seed=int(values["seed"]),
            settings=values["settings"],
            observation=values["observation"],
            executed=_count(values["executed"]),
            committed=_count(values.get("frozen", "none")) or 0,
            batch=int(values.get("batch", 1)),
            rounds=int(values["rounds"]),
            converged=values.get("converged", "true") == "true",
            latency_ms=float(values.get("latency_ms", "nan")),
            chunk=actions,
        )
    except ValueError as error:
        raise DataError(f"chunk_info of chunk {values['chunk']} is damaged: {error}") from error


def _count(text: str) -> int | None:
    return None if text == "none" else int(text)
