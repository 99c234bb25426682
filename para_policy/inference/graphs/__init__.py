"""Rounds recorded once and replayed: what a GPU needs, whose kernels are shorter than their launch."""

from para_policy.inference.graphs.recording import CudaGraphs, Recorder, Repeat
from para_policy.inference.graphs.replayed import Replayed
from para_policy.inference.graphs.replays import Replays

__all__ = ["CudaGraphs", "Recorder", "Repeat", "Replayed", "Replays"]
