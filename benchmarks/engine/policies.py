"""Policies under test: the same one on every engine that works here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from benchmarks.common import Common, Document, Subject
from benchmarks.engine.network import fastest, network_call
from para_policy import load_policy
from para_policy.errors import InputError
from para_policy.inference import EngineConfig, Size
from para_policy.inference.config import Precision
from para_policy.policies.policy import DiffusionPolicy

REFERENCE = EngineConfig()
"""Eager float32: what all samples are compared with."""

ON_CPU = ("eager", "compile", "onnxruntime", "openvino", "openvino:bfloat16")
ON_GPU = (
    *("eager", "compile", "cuda-graph"),
    *(f"cuda-graph:{precision}" for precision in ("tf32", "bfloat16", "float16")),
)


def parse(text: str) -> EngineConfig:
    """Read `BACKEND` or `BACKEND:PRECISION`.

    Raises:
        InputError: for unknown words.

    >>> parse("openvino:bfloat16").precision
    'bfloat16'
    """
    backend, _, precision = text.partition(":")
    return EngineConfig(backend, cast(Precision, precision or "float32"))


@dataclass(frozen=True)
class Engines:
    """Policies with equal weights.

    Attributes:
        policies: by the label of their engine; eager float32 is always there, as the first.
        left_out: why an engine that was asked for cannot be used, by label.
    """

    policies: Mapping[str, DiffusionPolicy]
    left_out: Mapping[str, str]

    @property
    def reference(self) -> DiffusionPolicy:
        return self.policies[REFERENCE.label]

    def configs(self) -> dict[str, EngineConfig]:
        """By label."""
        return {label: policy.runtime.engine.config for label, policy in self.policies.items()}


def load_engines(subject: Subject, options: Common, wanted: Sequence[str]) -> Engines:
    """Load the policy once for each engine, and try each on one row; the subject's own is eager."""
    policies = {REFERENCE.label: subject.policy}
    left_out: dict[str, str] = {}
    for config in map(parse, wanted):
        if config.label in (*policies, *left_out):
            continue
        try:
            policy = load_policy(
                options.checkpoint,
                device=options.device,
                engine=config.backend,
                precision=config.precision,
            )
            network_call(policy, subject.some(0, 1), 1)()
        except InputError as error:
            left_out[config.label] = str(error)
        else:
            policies[config.label] = policy
    return Engines(policies, left_out)


def best_engine(
    calls: Sequence[Document],
    configs: Mapping[str, EngineConfig],
    wanted: str | None,
    precision: str,
) -> str:
    """Label of the engine of the parallel samplers.

    Raises:
        InputError: if the one that was asked for cannot be used, or none has this precision.
    """
    if wanted is not None:
        label = parse(wanted).label
        if label not in configs:
            raise InputError(f"--best {wanted} cannot be used; expected one of {list(configs)}")
        return label
    among = [label for label, config in configs.items() if config.precision == precision]
    if not among:
        raise InputError(f"--precision {precision}: no engine has it; there are {list(configs)}")
    return fastest(calls, among)


def with_memory(config: EngineConfig, rows: int, limit_mib: int) -> EngineConfig:
    """The engine with a single size: of a large network each one takes gigabytes."""
    return dataclasses.replace(config, sizes=(Size(rows),), memory_limit_mib=limit_mib)
