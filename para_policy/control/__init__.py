"""Pure runtime logic of a chunked policy on a clock: numpy and integer nanoseconds, no torch, no ROS."""

from __future__ import annotations

from para_policy.control.chunk import ActionChunk
from para_policy.control.executor import ChunkPlayer
from para_policy.control.history import ObservationHistory
from para_policy.control.seeding import chunk_seed

__all__ = ["ActionChunk", "ChunkPlayer", "ObservationHistory", "chunk_seed"]
