"""What of a policy concerns how its network runs, and nothing of what it is given."""

from __future__ import annotations

import torch
from torch import nn

from para_policy.diffusion.denoiser import Network
from para_policy.diffusion.process import Process
from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.measured import Inference
from para_policy.policies.config import PolicyConfig
from para_policy.samplers import Sampler
from para_policy.samplers.deadline import LatencyTable


class RunningNetwork:
    """A noise predictor on an engine; both may be exchanged.

    Args:
        config: shapes and schedule.
        network: on `device`, in evaluation mode; its weights must not change any more.
        engine: how it runs.

    Attributes:
        latencies: of the network, by `device_key`.
    """

    def __init__(
        self, config: PolicyConfig, network: nn.Module, device: torch.device, engine: EngineConfig
    ) -> None:
        self.config, self.device = config, device
        self.latencies: dict[str, LatencyTable] = {}
        self._run(network, engine)

    def _run(self, network: nn.Module, engine: EngineConfig) -> None:
        self._network = network
        self._running = Inference(network, self.config, self.device, engine)
        self._inference: Network = self._running.network
        self._samplers: dict[tuple[object, ...], Sampler] = {}  # made for this network

    @property
    def network(self) -> nn.Module:
        """The noise predictor; another one may be put in its place, a compiled one for example."""
        return self._network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self._run(network, self.engine.config)

    @property
    def engine(self) -> Engine:
        """What the noise predictor runs on."""
        return self._running.engine

    @property
    def engine_in_use(self) -> EngineConfig:
        """The engine with what "auto" stands for, which the first call chooses.

        Raises:
            InputError: if the engine that was asked for cannot be used.
        """
        return self._running.in_use

    def use_engine(self, config: EngineConfig) -> None:
        """Run the same weights in another way from now on."""
        self._run(self._network, config)

    def warm_up(self) -> None:
        """Prepare all batch sizes of the engine, so that no later chunk has to wait.

        Raises:
            InputError: if the engine that was asked for cannot be used.
        """
        self._running.warm_up()

    @property
    def device_key(self) -> str:
        """Key of this device and engine in `latencies`."""
        return self._running.device_key

    def latency(self, most_rows: int) -> LatencyTable:
        """Seconds of a network call here; measured now (a second) if not calibrated."""
        key = self.device_key
        if key not in self.latencies:
            self.latencies[key] = self.measure_latency(most_rows)
        return self.latencies[key]

    def measure_latency(self, most_rows: int) -> LatencyTable:
        """Time network calls of 1 to at least `most_rows` rows."""
        return self._running.measure_latency(most_rows)

    def measure_sizes(self) -> tuple[Size, ...]:
        """Batch sizes and threads that are worth preparing here (a minute); none for eager engines."""
        return self._running.measure_sizes()

    def noise_floor(self, process: Process) -> float:
        """Defects below this cannot be told from rounding: no tolerance should be smaller.

        Normalised action units; measured on this device and engine (once).
        """
        return self._running.noise_floor(process)
