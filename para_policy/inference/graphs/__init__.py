"""CUDA graphs of whole rounds: what a GPU needs, whose kernels are shorter than their launch."""

from para_policy.inference.graphs.recorded import Recorded
from para_policy.inference.graphs.recording import CudaGraphs, Recorder, Repeat

__all__ = ["CudaGraphs", "Recorded", "Recorder", "Repeat"]
