"""The noise predictor of a policy as it runs here: on which engine, how fast, and how exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import build_scheduler
from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.device import PLAIN_ENGINE, device_description
from para_policy.inference.graphs import CudaGraphs, Replays
from para_policy.inference.precision import output_noise
from para_policy.inference.sizes import measure_sizes
from para_policy.networks.split import tabulated
from para_policy.policies.config import PolicyConfig
from para_policy.samplers.deadline import LatencyTable

_NOISE_ROWS = 8


class Inference:
    """One set of weights on one engine.

    Args:
        module: the noise predictor; its weights must not change any more.
        config: shapes and schedule.
        device: where `module` lives.
        engine: how it is to run.

    Attributes:
        network: what denoisers call.
    """

    def __init__(
        self, module: nn.Module, config: PolicyConfig, device: torch.device, engine: EngineConfig
    ) -> None:
        self._config, self._device = config, device
        self._timesteps: int = build_scheduler(config.noise_scheduler).config.num_train_timesteps
        self.network = tabulated(module, self._timesteps, engine)

    @property
    def engine(self) -> Engine:
        """That of `network`; its first call chooses the backend."""
        return self.network.engine

    @property
    def in_use(self) -> EngineConfig:
        """What runs, where "auto" and sizes beyond the memory were asked for.

        Raises:
            InputError: if the backend that was asked for cannot be used.
        """
        asked = self.engine.config
        if asked.backend != PLAIN_ENGINE and self.engine.backend is None:
            self.engine(*self._rows(1))
        backend, precision = self.engine.backend or asked.backend, self.engine.precision
        return replace(asked, backend=backend, precision=precision, sizes=self.engine.sizes)

    @property
    def fills_up(self) -> bool:
        """Whether the engine itself fills calls up to sizes that are prepared."""
        return self.in_use.backend != PLAIN_ENGINE

    @property
    def device_key(self) -> str:
        """What latencies depend on: device, and the engine unless it is PyTorch in float32."""
        return device_description(self._device, self.in_use.label)

    @cached_property
    def replays(self) -> Replays | None:
        """Where whole rounds are captured, not only the network; None on engines without graphs."""
        graphs = self.in_use.backend == "cuda-graph"
        return Replays(CudaGraphs(self._device)) if graphs else None

    def warm_up(self) -> None:
        """Prepare all sizes of the engine, so that no later call has to wait.

        Raises:
            InputError: if the backend that was asked for cannot be used.
        """
        if self.fills_up:
            self.engine.warm_up(*self._rows(1))

    def measure_sizes(self) -> tuple[Size, ...]:
        """The batch sizes, with threads, that are worth preparing here; none for eager engines."""
        if not self.fills_up:
            return ()
        most = torch.get_num_threads()
        cpu = self._device.type == "cpu"
        threads = sorted({most, *(2**k for k in range(most.bit_length()))}) if cpu else [most]
        return measure_sizes(self.engine.body, self._rows(1), self.in_use, threads)[0]

    def measure_latency(self, most_rows: int) -> LatencyTable:
        """Time network calls: of 1 to at least `most_rows` rows, or of the sizes of the engine."""
        if self.fills_up:
            return _filled_up(self._measure([size.rows for size in self.engine.sizes]))
        return self._measure([2**k for k in range(max(most_rows - 1, 1).bit_length() + 1)])

    @torch.no_grad()
    def noise_floor(self, process: Process) -> float:
        """How far a step of `process` may change though nothing has changed, normalised units.

        The largest change over all steps, from states such as trajectories have, that the noise of
        the network's output makes.
        """
        N = process.num_steps
        process = process.to(self._device, torch.float32)
        s = torch.arange(N, device=self._device)
        x, *_ = self._rows(N)
        share = process.alpha_bar[:-1, None, None]
        x = share.sqrt() * x.flip(0).clamp(-1, 1) + (1 - share).sqrt() * x
        condition = x.new_zeros(1, self._config.condition_dim)
        output = Denoiser(self.network, condition)(x, process.timesteps, torch.zeros_like(s))
        clean, moved = (
            process.predict_clean(x, y, s) for y in (output, output + self._output_noise)
        )
        nothing = torch.zeros_like(x)
        step, other = (process.mean(x, x0, nothing, s) for x0 in (clean, moved))
        return float((other - step).abs().max())

    @cached_property
    def _output_noise(self) -> float:
        return output_noise(self.engine, *self._rows(_NOISE_ROWS))

    def _measure(self, sizes: list[int]) -> LatencyTable:
        horizon, width = self._config.horizon, self._config.action_dim
        x = torch.zeros(sizes[-1], horizon, width, device=self._device)
        t = torch.zeros(sizes[-1], dtype=torch.int64, device=self._device)
        denoiser = Denoiser(self.network, x.new_zeros(1, self._config.condition_dim))
        return LatencyTable.measure(lambda n: denoiser(x[:n], t[:n], t[:n]).cpu(), tuple(sizes))

    @torch.no_grad()
    def _rows(self, count: int) -> tuple[Tensor, ...]:
        """Inputs of the engine such as solves have: states of noise, all times, any observation."""
        generator = torch.Generator().manual_seed(0)
        config = self._config
        x = torch.randn(count, config.horizon, config.action_dim, generator=generator)
        t = torch.linspace(0, self._timesteps - 1, count).long()
        condition = 2 * torch.rand(count, config.condition_dim, generator=generator) - 1
        x, t, condition = (v.to(self._device) for v in (x, t, condition))
        return self.network.inputs(x, t, self.network.observe(condition))


def _filled_up(table: LatencyTable) -> LatencyTable:
    """The same for all numbers of rows: each costs as much as the size that it is filled up to."""
    starts = [1, *(rows + 1 for rows in table.rows[:-1])]
    rows, places = np.unique(np.column_stack([starts, table.rows]), return_index=True)
    seconds = np.repeat(table.seconds, 2)[places]
    return LatencyTable(tuple(rows.tolist()), tuple(seconds.tolist()))
