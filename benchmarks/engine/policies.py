"""Policies under test: the same one on every engine that works here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, cast

from benchmarks.common import Common, Subject
from benchmarks.engine.network import fastest, measure_calls, network_call
from benchmarks.engine.plan import Clock
from para_policy import load_policy
from para_policy.errors import InputError
from para_policy.inference import EngineConfig, Size
from para_policy.inference.config import Precision
from para_policy.policies.policy import DiffusionPolicy

REFERENCE = EngineConfig()
"""Eager float32: what all samples are compared with."""

ON_CPU = ("eager", "compile", "onnxruntime", "openvino", "openvino:bfloat16")
ON_GPU = (
    *("eager", "cuda-graph"),
    *(f"cuda-graph:{precision}" for precision in ("tf32", "bfloat16", "float16")),
    "compile",
)
GRAPH = "cuda-graph"
"""The best engine of a GPU, without a measurement: nothing else leaves out the launches."""

COMPILED = (1, 16, 26, 64, 100, 128)
"""Sizes of engines that take long to prepare one: 16 and 100 steps at once, and around them the rows
of samplers that need fewer."""


def parse(text: str) -> EngineConfig:
    """Read `BACKEND` or `BACKEND:PRECISION`.

    Raises:
        InputError: for unknown words.

    >>> parse("openvino:bfloat16").precision
    'bfloat16'
    """
    backend, _, precision = text.partition(":")
    return EngineConfig(backend, cast(Precision, precision or "float32"))


def compiles_long(engine: EngineConfig) -> bool:
    """Whether to prepare a size takes many seconds."""
    return engine.backend in ("compile", GRAPH)


class Engines:
    """Policies with equal weights, each on an engine of its own, which is loaded when it is needed.

    Args:
        subject: its policy is the eager one.
        options: name the checkpoint and the device.

    Attributes:
        policies: by the label of their engine; eager float32 is always there, as the first.
        left_out: why an engine that was asked for cannot be used, by label.
    """

    def __init__(self, subject: Subject, options: Common) -> None:
        self._subject, self._options = subject, options
        self.policies: dict[str, DiffusionPolicy] = {REFERENCE.label: subject.policy}
        self.left_out: dict[str, str] = {}

    @property
    def reference(self) -> DiffusionPolicy:
        return self.policies[REFERENCE.label]

    def configs(self) -> dict[str, EngineConfig]:
        """Of the engines that were loaded, by label."""
        return {label: policy.runtime.engine.config for label, policy in self.policies.items()}

    def report(self) -> dict[str, Any]:
        """What works, and why others do not."""
        return {"engines": list(self.policies), "left_out": dict(self.left_out)}

    def load(self, wanted: Iterable[EngineConfig]) -> dict[str, DiffusionPolicy]:
        """The policies on those of the engines that work here: each is tried on one row."""
        found = {}
        for config in wanted:
            if config.label not in (*self.policies, *self.left_out):
                self._load(config)
            if config.label in self.policies:
                found[config.label] = self.policies[config.label]
        return found

    def _load(self, config: EngineConfig) -> None:
        # By name an engine takes the sizes that calibration has measured here.
        engine: EngineConfig | str = config.backend
        if compiles_long(config):
            engine = dataclasses.replace(config, sizes=tuple(map(Size, COMPILED)))
        try:
            policy = load_policy(
                self._options.directory,
                device=self._options.device,
                engine=engine,
                precision=config.precision,
            )
            network_call(policy, self._subject.some(0, 1), 1)()
        except InputError as error:
            self.left_out[config.label] = str(error)
        else:
            self.policies[config.label] = policy

    def best(self, wanted: Iterable[EngineConfig], name: str | None, precision: str) -> str:
        """Label of the engine of the parallel samplers.

        Args:
            wanted: engines to choose from.
            name: BACKEND or BACKEND:PRECISION to take; None for `GRAPH` if it works and is wanted,
                else the fastest of this precision at 64 rows; one that compiles for long is no
                candidate beside others.

        Raises:
            InputError: if the one that was asked for cannot be used, or none has this precision.
        """
        if name is not None:
            config = parse(name)
            if config.label not in self.load([config]):
                raise InputError(
                    f"--best {name} cannot be used: {self.left_out[config.label]}; expected another "
                    f"one, such as {REFERENCE.label}"
                )
            return config.label
        among = [config for config in wanted if config.precision == precision]
        if graph := self.load(config for config in among if config.backend == GRAPH):
            return next(iter(graph))
        loaded = self.load([c for c in among if not compiles_long(c)] or among)
        if not loaded:
            raise InputError(
                f"--precision {precision}: no engine has it; there are {list(self.policies)}"
            )
        if len(loaded) == 1:
            return next(iter(loaded))
        calls = measure_calls(loaded, self._subject.some(0, 1), (1, 64), Clock(0), 9)
        return fastest(calls, list(loaded))


def alone(config: EngineConfig, rows: int, limit_mib: int) -> EngineConfig:
    """The engine with a single size: of a large network each one takes gigabytes."""
    return dataclasses.replace(config, sizes=(Size(rows),), memory_limit_mib=limit_mib)
