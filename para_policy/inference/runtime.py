"""Runtime: one noise predictor on an engine, how fast it is there, and how exact."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.diffusion.denoiser import BoundNetwork, Denoiser, Network
from para_policy.diffusion.inpainting import Inpainting
from para_policy.diffusion.process import Process
from para_policy.inference.config import EngineConfig, Precision, Size, label
from para_policy.inference.device import (
    PLAIN_ENGINE,
    check_weights,
    device_description,
    expected_engine,
)
from para_policy.inference.engine import Engine
from para_policy.inference.graphs import CudaGraphs, Recorded
from para_policy.inference.sizes import measure_sizes
from para_policy.networks.split import split
from para_policy.samplers.deadline import LatencyTable
from para_policy.samplers.sampler import Sampler

_NOISE_ROWS = 8
_PAD = 8
_KEY_DIGITS = 12


@dataclass(frozen=True)
class Shapes:
    """Sizes of a network's inputs: states (horizon, action_dim), and conditions; and its times.

    Attributes:
        num_train_timesteps: T, whole timesteps being 0 .. T-1.
        times: that it may be told between, where time is continuous.
    """

    horizon: int
    action_dim: int
    condition_dim: int
    num_train_timesteps: int
    times: tuple[float, float] | None = None

    @property
    def whole_timesteps(self) -> int:
        """As `split` takes it."""
        return self.num_train_timesteps if self.times is None else 0

    def spaced_times(self, count: int) -> Tensor:
        """(count,) evenly spaced times of all that there are, of the type that solves have."""
        if self.times is not None:
            return torch.linspace(*self.times, count, dtype=torch.float32)
        return torch.linspace(0, self.num_train_timesteps - 1, count).long()


class EngineNetwork:
    """A `Network` whose rows are computed by an engine; see `networks.split`.

    Args:
        network: its weights must not change any more.
        whole_timesteps: see `split`.
        config: how it runs; None for PyTorch as it is.
    """

    def __init__(
        self, network: nn.Module, whole_timesteps: int, config: EngineConfig | None = None
    ) -> None:
        self._split = split(network, whole_timesteps)
        self.engine = Engine(self._split.rows, config or EngineConfig())

    def bind(self, condition: Tensor) -> BoundNetwork:
        """Fix the conditions (B, C); the network then takes `x`, `t` and the sample of each row."""
        return self._split.bind(condition, self.engine)

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """As the network itself; `condition` has a row for each row of `x`."""
        return self.bind(condition)(x, t, torch.arange(len(x), device=x.device))

    def inputs(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
        """What the engine is given for these rows."""
        seen: list[tuple[Tensor, ...]] = []

        def keep(*inputs: Tensor) -> Tensor:
            seen.append(inputs)
            return x

        self._split.bind(condition, keep)(x, t, torch.arange(len(x), device=x.device))
        return seen[0]


class Runtime:
    """One set of weights on one engine.

    Args:
        module: the noise predictor, on `device`, in evaluation mode; its weights must not change any
            more.
        shapes: of its inputs.
        device: where it lives.
        engine: how it is to run.
        latencies: by `table_key`; shared with other runtimes.
        coarse: what the module itself computes in, where that is a half precision.

    Attributes:
        module, shapes, device, latencies: as given.
        network: what denoisers call.
        engine: that of `network`; its first call chooses the backend.
    """

    def __init__(
        self,
        module: nn.Module,
        shapes: Shapes,
        device: torch.device,
        engine: EngineConfig,
        latencies: dict[str, LatencyTable] | None = None,
        coarse: Precision | None = None,
    ) -> None:
        self.module, self.shapes, self.device = module, shapes, device
        self.latencies = {} if latencies is None else latencies
        self._coarse = coarse
        self._on_engine = EngineNetwork(module, shapes.whole_timesteps, engine)
        self.network: Network = self._on_engine
        self.engine = self._on_engine.engine

    def on(self, engine: EngineConfig) -> Runtime:
        """The same weights on another engine."""
        return Runtime(self.module, self.shapes, self.device, engine, self.latencies)

    def with_module(self, module: nn.Module) -> Runtime:
        """Another noise predictor on the same engine, a compiled one for example."""
        engine = self.engine.config
        return Runtime(module, self.shapes, self.device, engine, self.latencies)

    @property
    def arithmetic(self) -> Precision:
        """What the network computes in."""
        return self._coarse or self.engine.config.precision

    @property
    def in_use(self) -> EngineConfig:
        """What runs, where "auto" and sizes beyond the memory were asked for.

        Raises:
            InputError: if the backend that was asked for cannot be used.
        """
        backend, engine = self.backend, self.engine
        return replace(
            engine.config, backend=backend, precision=engine.precision, sizes=engine.sizes
        )

    @property
    def backend(self) -> str:
        """Name of the backend that runs; the first call chooses what "auto" stands for.

        Raises:
            InputError: if the backend that was asked for cannot be used.
        """
        asked = self.engine.config.backend
        if asked != PLAIN_ENGINE and self.engine.backend is None:
            self.engine(*self._rows(1))
        return self.engine.backend or asked

    @property
    def fills_up(self) -> bool:
        """The engine itself fills calls up to sizes that are prepared."""
        return self.backend != PLAIN_ENGINE

    @property
    def device_key(self) -> str:
        """Device, and the engine unless it is PyTorch in float32."""
        return self._on_device(self.in_use)

    @property
    def table_key(self) -> str:
        """What is measured of calls is kept under: `device_key`, and the shapes of the network.

        Raises:
            InputError: as `backend`.
        """
        return f"{self.device_key}, {self._network_key}"

    @property
    def expected_key(self) -> str:
        """`table_key`, as far as it can be told before anything is compiled.

        Raises:
            InputError: as `expected_engine`.
        """
        expected = expected_engine(self.engine.config, self.device).config
        return f"{self._on_device(expected)}, {self._network_key}"

    def _on_device(self, engine: EngineConfig) -> str:
        precision = self._coarse or engine.precision
        return device_description(self.device, label(engine.backend, precision))

    @cached_property
    def _network_key(self) -> str:
        """Tells networks apart whose calls take other times, whatever their weights are."""
        weights = sorted((name, list(v.shape)) for name, v in self.module.state_dict().items())
        found = hashlib.sha256(json.dumps([asdict(self.shapes), weights]).encode())
        return f"network {found.hexdigest()[:_KEY_DIGITS]}"

    def denoiser(self, condition: Tensor, known: Inpainting | None = None) -> Denoiser:
        """The network bound to conditions (B, C), for one solve.

        Raises:
            InputError: as `check_weights`.
        """
        check_weights(self.module, self.device)
        # Kernels are prepared for each batch size anew; a few sizes are prepared once.
        pad_to = 1 if self.fills_up else _PAD
        return Denoiser(self.network, condition, pad_to=pad_to, pad_from=_PAD + 1, known=known)

    @property
    def records(self) -> bool:
        """Whole rounds of samplers are recorded.

        Raises:
            InputError: as `backend`.
        """
        return self.backend == "cuda-graph"

    def recorded(self, sampler: Sampler) -> Sampler:
        """The sampler with whole rounds in CUDA graphs, on an engine that has them."""
        if not self.records or not sampler.recordable:
            return sampler
        recorder, limit = CudaGraphs(self.device), self.engine.config.memory_limit_mib
        recorded = Recorded(recorder, most_bytes=limit * 2**20, precision=self.arithmetic)
        return replace(sampler, recordings=recorded)

    def warm_up(self) -> None:
        """Prepare all sizes of the engine, so that no later call has to wait.

        Raises:
            InputError: if the backend that was asked for cannot be used.
        """
        if self.fills_up:
            self.engine.warm_up(*self._rows(1))

    def measure_sizes(self) -> tuple[Size, ...]:
        """The batch sizes, with threads, that are worth preparing here (a minute); none for eager
        engines."""
        if not self.fills_up:
            return ()
        most = torch.get_num_threads()
        cpu = self.device.type == "cpu"
        threads = sorted({most, *(2**k for k in range(most.bit_length()))}) if cpu else [most]
        return measure_sizes(self.engine.body, self._rows(1), self.in_use, threads)[0]

    def latency(self, most_rows: int) -> LatencyTable:
        """Seconds of a network call here; measured now (a second) if not calibrated."""
        found = self.known_latency()
        if found is None:
            found = self.latencies[self.table_key] = self.measure_latency(most_rows)
        return found

    def known_latency(self) -> LatencyTable | None:
        """Seconds of a network call here, where they were measured; with other sizes of the engine calls
        take other times."""
        found = self.latencies.get(self.table_key)
        sizes = [size.rows for size in self.engine.sizes]
        if found is not None and self.fills_up and found.rows != _edges(sizes):
            return None
        return found

    def measure_latency(self, most_rows: int) -> LatencyTable:
        """Time network calls: of 1 to at least `most_rows` rows, or of the sizes of the engine."""
        if self.fills_up:
            return _filled_up(self._measure([size.rows for size in self.engine.sizes]))
        return self._measure([2**k for k in range(max(most_rows - 1, 1).bit_length() + 1)])

    @torch.no_grad()
    def noise_floor(self, process: Process) -> float:
        """Residuals below this cannot be told from rounding: no tolerance should be smaller.

        The largest change over all steps of `process`, from states such as trajectories have, that the
        noise of the network's output makes; normalised action units.
        """
        N = process.num_steps
        process = process.to(self.device, torch.float32)
        s = torch.arange(N, device=self.device)
        x, *_ = self._rows(N)
        signal, spread = process.signal[:-1, None, None], process.spread[:-1, None, None]
        x = signal * x.flip(0).clamp(-1, 1) + spread * x
        condition = x.new_zeros(1, self.shapes.condition_dim)
        output = Denoiser(self.network, condition)(x, process.timesteps, torch.zeros_like(s))
        clean, moved = (
            process.predict_clean(x, y, s) for y in (output, output + self._output_noise)
        )
        nothing = torch.zeros_like(x)
        step, other = (process.mean(x, x0, nothing, s) for x0 in (clean, moved))
        return float((other - step).abs().max())

    @cached_property
    def _output_noise(self) -> float:
        return self.engine.output_noise(*self._rows(_NOISE_ROWS), coarse=self._coarse)

    def _measure(self, sizes: list[int]) -> LatencyTable:
        shape = (sizes[-1], self.shapes.horizon, self.shapes.action_dim)
        x = torch.zeros(shape, device=self.device, dtype=torch.float32)
        t = self.shapes.spaced_times(len(x)).to(self.device)
        first = torch.zeros(len(x), dtype=torch.int64, device=self.device)
        denoiser = Denoiser(self.network, x.new_zeros(1, self.shapes.condition_dim))
        return LatencyTable.measure(lambda n: denoiser(x[:n], t[:n], first[:n]).cpu(), tuple(sizes))

    @torch.no_grad()
    def _rows(self, count: int) -> tuple[Tensor, ...]:
        """Inputs of the engine such as solves have: states of noise, all times, any observation."""
        generator = torch.Generator().manual_seed(0)
        shapes = self.shapes
        single: Any = {"generator": generator, "dtype": torch.float32}
        x = torch.randn(count, shapes.horizon, shapes.action_dim, **single)
        t = shapes.spaced_times(count)
        condition = 2 * torch.rand(count, shapes.condition_dim, **single) - 1
        x, t, condition = (v.to(self.device) for v in (x, t, condition))
        return self._on_engine.inputs(x, t, condition)


def _edges(sizes: Sequence[int]) -> tuple[int, ...]:
    """The least and the most rows that are filled up to each of the sizes."""
    return tuple(sorted({1, *sizes, *(size + 1 for size in sizes[:-1])}))


def _filled_up(table: LatencyTable) -> LatencyTable:
    """The same for all numbers of rows: each costs as much as the size that it is filled up to."""
    rows = _edges(table.rows)
    return LatencyTable(rows, tuple(table.seconds[bisect_left(table.rows, n)] for n in rows))
