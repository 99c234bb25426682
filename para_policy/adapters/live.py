"""The network of a live policy as a `Runtime`: timed, its rounding measured, on an engine or as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.adapters.call import Call
from para_policy.adapters.plan import versions_of
from para_policy.adapters.solve import Mixed
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.inference import EngineConfig
from para_policy.inference.config import Precision
from para_policy.inference.device import PLAIN_ENGINE
from para_policy.inference.runtime import Runtime, Shapes

_COARSE: dict[torch.dtype, Precision] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Kind:
    """What calls have in common that one `LiveRuntime` can serve.

    Attributes:
        dtype, autocast, device: as in `Mixed`.
        shape: of a sample, (horizon, action_dim).
        condition: shape and dtype of a condition; None for nothing.
        weights: places and versions of the weights that an engine was made with.
    """

    dtype: torch.dtype
    autocast: torch.dtype | None
    device: torch.device
    shape: tuple[int, ...]
    condition: tuple[tuple[int, ...], torch.dtype] | None
    weights: tuple[Any, ...] = ()

    @classmethod
    def of(cls, network: Mixed, call: Call, engine: EngineConfig) -> Kind:
        """The kind of a call on an engine."""
        given = call.condition
        weights: tuple[Any, ...] = ()
        if engine.backend != PLAIN_ENGINE:
            weights = versions_of(_module(network))
        return cls(
            network.dtype,
            network.autocast,
            call.device,
            call.shape[1:],
            None if given is None else (tuple(given.shape[1:]), given.dtype),
            weights,
        )


class LiveRuntime(Runtime):
    """One kind of calls of a live policy.

    Args:
        network: of the first call; `use` takes those of later ones.
        engine: "eager" leaves the network to its owner, in dtype, autocast and settings of the device.

    Raises:
        InputError: if an engine cannot run a network of this kind.
    """

    def __init__(self, network: Mixed, kind: Kind, process: Process, engine: EngineConfig) -> None:
        width = 0 if kind.condition is None else torch.Size(kind.condition[0]).numel()
        told = process.timesteps
        times = (float(told.min()), float(told.max())) if told.is_floating_point() else None
        horizon, action_dim = kind.shape
        shapes = Shapes(horizon, action_dim, width, int(told.max()) + 1, times)
        plain = engine.backend == PLAIN_ENGINE
        if not plain and kind.dtype != torch.float32:
            raise InputError(
                f"engine {engine.label!r} needs a policy in float32, this one is in {kind.dtype}: "
                "leave it in float32 and choose the engine's precision"
            )
        self._live = _Rows(network, kind, None if plain else _module(network))
        coarse = _COARSE.get(kind.autocast or kind.dtype) if plain else None
        super().__init__(self._live, shapes, kind.device, engine, coarse=coarse)
        if plain:
            self.network = self._live

    def use(self, network: Mixed | None) -> None:
        """Call this one from now on; None to let go of it, and of the observation that it may hold."""
        self._live.network = network

    def seconds(self, rows: int) -> float | None:
        """Of one call of the policy's own network, measured now; None where there is none at hand."""
        if self._live.network is None:
            return None
        own = Runtime(self._live, self.shapes, self.device, EngineConfig())
        own.network = self._live
        return own.measure_latency(rows).predict(rows)


class _Rows(nn.Module):
    """A network on conditions as rows of numbers, whatever shape and dtype they had.

    `module`, what an engine traces, is called in place of `network`, where it is given.
    """

    def __init__(self, network: Mixed, kind: Kind, module: nn.Module | None) -> None:
        super().__init__()
        self.network: Mixed | None = network
        self.module = module
        self._condition = kind.condition

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        called = self.network if self.module is None else self.module
        assert called is not None, "between two calls"
        given: tuple[Tensor, ...] = ()
        if self._condition is not None:
            shape, dtype = self._condition
            # Not by the number of rows, which tracing would take for a constant.
            rows = condition.unflatten(1, shape) if shape else condition.squeeze(1)
            given = (rows.to(dtype),)
        output: Tensor = called(x, t, *given)
        return output


def _module(network: Mixed) -> nn.Module:
    if not isinstance(network.network, nn.Module):
        raise InputError("an engine cannot run the network of this policy; use engine 'eager'")
    return network.network
