"""Inference: a network on an engine, static batch sizes behind interchangeable backends."""

from para_policy.inference.config import AUTO, BACKENDS, PRECISIONS, SIZES, EngineConfig, Size
from para_policy.inference.engine import Engine

__all__ = ["AUTO", "BACKENDS", "PRECISIONS", "SIZES", "Engine", "EngineConfig", "Size"]
