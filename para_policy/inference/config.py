"""Configuration of an engine: backend, precision, batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

from para_policy.arguments import check_kind
from para_policy.errors import InputError

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

AUTO = "auto"
BackendName = Literal["eager", "compile", "cuda-graph", "openvino", "onnxruntime"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)


@dataclass(frozen=True)
class Size:
    """A batch size that networks are prepared for.

    Attributes:
        rows: at least 1.
        threads: of the CPU, at least 1; None for torch's number.
    """

    rows: int
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InputError(f"a batch size is {self.rows}; expected at least 1")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads are {self.threads}; expected at least 1")


_ROWS = (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 72, 80, 100, 128)
SIZES = tuple(Size(rows) for rows in _ROWS)
"""Where nothing was measured: all steps of 16 and of 100 at once fit exactly."""


@dataclass(frozen=True)
class EngineConfig:
    """How networks run.

    Attributes:
        backend: one of `BACKENDS`, or "auto" for the best one that works on the device.
        precision: of the network's arithmetic; states and recurrences stay in float32.
        sizes: calls are filled up to the next of these; larger calls are split. Increasing, each
            once. Ignored by "eager", which takes any number of rows as it comes.
        memory_limit_mib: weights that backends repack for each size may take so much together;
            sizes that do not fit are left out. So much may the recorded rounds of a sampler take, too.
    """

    backend: str = "eager"
    precision: Precision = "float32"
    sizes: tuple[Size, ...] = SIZES
    memory_limit_mib: int = 2048

    def __post_init__(self) -> None:
        check_kind("engine", self.backend, str)
        check_kind("precision", self.precision, str)
        check_kind("memory_limit_mib", self.memory_limit_mib, Integral)
        if self.backend not in (*BACKENDS, AUTO):
            raise InputError(
                f"engine is {self.backend!r}; expected one of {', '.join((AUTO, *BACKENDS))}"
            )
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}"
            )
        rows = [size.rows for size in self.sizes]
        if not rows or sorted(set(rows)) != rows:
            raise InputError(f"sizes are {rows}; expected increasing numbers, at least one")
        if self.memory_limit_mib < 1:
            raise InputError(f"memory_limit_mib is {self.memory_limit_mib}; expected at least 1")

    @property
    def label(self) -> str:
        """What is wanted, for reports.

        >>> EngineConfig("openvino").label, EngineConfig("auto", "bfloat16").label
        ('openvino', 'auto, bfloat16')
        """
        return label(self.backend, self.precision)


def label(backend: str, precision: Precision) -> str:
    """Name of a backend; float32 goes without saying."""
    return backend if precision == "float32" else f"{backend}, {precision}"


def affordable(sizes: Sequence[Size], count: int) -> tuple[Size, ...]:
    """At most `count` of the sizes, but at least the smallest one, evenly spread over all."""
    if count >= len(sizes):
        return tuple(sizes)
    last = len(sizes) - 1
    return tuple(sizes[round(i * last / max(count - 1, 1))] for i in range(max(count, 1)))
