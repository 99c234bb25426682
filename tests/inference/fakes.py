"""Backends that fail in a chosen way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from para_policy.inference import backends
from para_policy.inference.backends import Backend, Prepare, Runner
from para_policy.inference.config import EngineConfig, Precision, Size


class Fake:
    """Runs the network as it is, with `prepare` and `output` in between."""

    static = True
    repacks = False

    def __init__(
        self,
        name: str = "openvino",
        *,
        check: Callable[[], None] = lambda: None,
        prepare: Callable[[Size], None] = lambda size: None,
        output: Callable[[Tensor], Tensor] = lambda value: value,
        repacks: bool = False,
    ) -> None:
        self.name, self.repacks = name, repacks
        self._check, self._prepare, self._output = check, prepare, output
        self.prepared: list[int] = []

    def check(self, device: torch.device, precision: Precision) -> None:
        self._check()

    def load(self, body: nn.Module, precision: Precision) -> Prepare:
        def prepare(buffers: Sequence[Tensor], size: Size) -> Runner:
            self._prepare(size)
            body(*buffers)  # compilers look at what they are given
            self.prepared.append(size.rows)
            return lambda: self._output(body(*buffers))

        return prepare


def use(monkeypatch: pytest.MonkeyPatch, *fakes: Backend) -> None:
    """Try these instead of the real ones, and with "auto" PyTorch at last."""

    real = backends.backends_for

    def chosen(config: EngineConfig, device: torch.device) -> tuple[Backend, ...]:
        if config.backend == "auto":
            return (*fakes, backends.Eager())
        named = tuple(fake for fake in fakes if fake.name == config.backend)
        return named or real(config, device)

    monkeypatch.setattr(backends, "backends_for", chosen)


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def from_rows(rows: int, error: Exception) -> Callable[[Size], None]:
    """Sizes of so many rows and more fail."""

    def prepare(size: Size) -> None:
        if size.rows >= rows:
            raise error

    return prepare
