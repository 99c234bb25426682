"""DiffusionPolicy: observations in physical units to action chunks in physical units."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.arguments import check_kind
from para_policy.calibration import Calibration
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import build_scheduler, flow_times, scheduler_kind
from para_policy.inference import EngineConfig
from para_policy.inference.device import check_device
from para_policy.inference.runtime import Runtime, Shapes
from para_policy.policies.build import TASK, VISION, build_network, build_vision
from para_policy.policies.chain import Chain
from para_policy.policies.config import PolicyConfig
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.policies.encoder import Encoder, Observation
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.policies.previous import Overlap
from para_policy.policies.result import ActionResult as ActionResult
from para_policy.policies.result import SampleStats as SampleStats
from para_policy.samplers import Callback, Poll, Sampler


class DiffusionPolicy:
    """A trained diffusion policy.

    Args:
        config: shapes and schedule.
        model_state: weights of the noise predictor (EMA weights, for a trained policy), and with
            the prefix "vision." those of the camera encoders; "task.features" of its task.
        normalizers: one for each input, and one for "action".
        device: where the network runs.
        engine: how it runs there; None for PyTorch as it is.

    Attributes:
        config, normalizers, device: as given.
        runtime: the noise predictor on its engine, with latencies. `policy.runtime =
            policy.runtime.on(...)` runs the same weights in another way.
        encoder: of observations.
        calibrations: by scheduler and step count, from `para-policy calibrate`.
        consistency_models: PCM weights by scheduler, step count and splitting, from
            `para-policy distill`.

    Raises:
        InputError: if the device cannot be used.
        RuntimeError: if the weights do not fit the network.
    """

    def __init__(
        self,
        config: PolicyConfig,
        model_state: Mapping[str, Tensor],
        normalizers: Mapping[str, LinearNormalizer],
        device: torch.device | str = "cpu",
        engine: EngineConfig | None = None,
    ) -> None:
        self.config, self.device = config, check_device(device)
        self.normalizers = {name: n.to(self.device) for name, n in normalizers.items()}
        network, self.vision = build_network(config), build_vision(config)
        seen, acting, task = {}, {}, None
        for name, value in model_state.items():
            if name.startswith(VISION):
                seen[name.removeprefix(VISION)] = value
            elif name == TASK:
                task = value.to(self.device)
            else:
                acting[name] = value
        # In single precision before they take the weights, whatever the host program's default is.
        network.float().load_state_dict(acting)
        network.to(self.device).eval().requires_grad_(False)
        if self.vision is not None:
            self.vision.float().load_state_dict(seen)
            self.vision.to(self.device).eval().requires_grad_(False)
        self.encoder = Encoder(config, self.normalizers, self.vision, task)
        count: int = build_scheduler(config.noise_scheduler).config.num_train_timesteps
        times = flow_times(config.noise_scheduler)
        shapes = Shapes(config.horizon, config.action_dim, config.condition_dim, count, times)
        self.runtime = Runtime(network, shapes, self.device, engine or EngineConfig())
        self.calibrations: dict[tuple[str, int], Calibration] = {}
        self.consistency_models: dict[tuple[str, int, str], PicardConsistencyModel] = {}
        self._trained_kind = scheduler_kind(config.noise_scheduler)
        self._processes: dict[tuple[str | None, int | None], Process] = {}
        self._chains: dict[tuple[str, int], Chain] = {}

    @property
    def network(self) -> nn.Module:
        """The noise predictor; another one may be put in its place, a compiled one for example. With other
        weights `calibrations` and `consistency_models`, which are not theirs, are forgotten."""
        return self.runtime.module

    @network.setter
    def network(self, network: nn.Module) -> None:
        held = self.calibrations or self.consistency_models
        if held and not _same_weights(self.network, network):
            self.calibrations, self.consistency_models = {}, {}
            warnings.warn(
                "the network that was put in has other weights: what was measured and trained for those "
                "of the former one is forgotten; calibrate anew",
                stacklevel=2,
            )
        self.runtime = self.runtime.with_module(network)

    def weights(self) -> dict[str, Tensor]:
        """As `model_state`."""
        vision = {} if self.vision is None else self.vision.state_dict(prefix=VISION)
        return {**self.network.state_dict(), **vision}

    @property
    def num_train_timesteps(self) -> int:
        """Timesteps that the network was trained with."""
        return self.runtime.shapes.num_train_timesteps

    def warm_up(self) -> None:
        """Prepare all batch sizes of the engine, so that no later chunk has to wait.

        Raises:
            InputError: if the engine that was asked for cannot be used.
        """
        self.runtime.warm_up()

    def process(self, scheduler: str | None = None, steps: int | None = None) -> Process:
        """Return the step table: the trained schedule, or another sampler or step count on it."""
        check_kind("scheduler", scheduler, str, NoneType)
        check_kind("steps", steps, Integral, NoneType)
        if steps is None and scheduler in (None, self._trained_kind):
            steps = self.config.num_inference_steps
        key = (scheduler, steps)
        if key not in self._processes:
            built = build_scheduler(self.config.noise_scheduler, scheduler)
            self._processes[key] = Process.from_scheduler(built, steps)
        return self._processes[key]

    def chain(self, scheduler: str | None = None, steps: int | None = None) -> Chain:
        """One process of this policy, with all that was measured and trained for it.

        Args:
            scheduler: such as "ddim" or "flow_match_heun", on the path that it was trained on, see
                `build_scheduler`; None for the one it was trained with.
            steps: denoising steps N; None for the checkpoint's own number.

        Raises:
            InputError: for a scheduler or step count that cannot be represented, or a calibration of
                another process.
        """
        process = self.process(scheduler, steps)
        kind = scheduler or self._trained_kind
        key = (kind, process.num_steps)
        held = self._chains.get(key)
        # What was measured and trained may come later, or anew.
        if (
            held is None
            or held.runtime is not self.runtime
            or held.calibrations != self.calibrations
            or held.consistency_models != self.consistency_models
        ):
            held = self._chains[key] = Chain(
                kind,
                process,
                self.runtime,
                dict(self.calibrations),
                dict(self.consistency_models),
                self.config,
                self.encoder,
                self.normalizers["action"],
            )
        return held

    def denoiser(self, obs: Observation) -> Denoiser:
        """Bind batched observations {name: (B, To, *shape)} to the network, once for a whole solve."""
        return self.chain().denoiser(obs)

    def sampler(
        self, name: str, *, scheduler: str | None = None, steps: int | None = None, **options: Any
    ) -> Sampler:
        """Make a sampler by name, for one process; see `chain` and `Chain.sampler`."""
        return self.chain(scheduler, steps).sampler(name, **options)

    def sample(
        self,
        obs: Observation,
        *,
        sampler: str | Sampler = "sequential",
        seed: int | Sequence[int] = 0,
        scheduler: str | None = None,
        steps: int | None = None,
        previous: ActionResult | Sequence[ActionResult] | None = None,
        executed: int | Sequence[int] | None = None,
        shift_noise: bool = False,
        frozen: int | Sequence[int] | None = None,
        overlap: Overlap = "hard",
        pulled: Sequence[bool] | None = None,
        deadline_s: float | None = None,
        callback: Callback | None = None,
        poll: Poll | None = None,
    ) -> ActionResult:
        """Predict a chunk.

        Args:
            obs: {name: (To, *shape)} in physical units, oldest first; or (B, To, *shape) for a
                batch. Images have their channels first and are uint8, or float in [0, 1].
            sampler: a name as for `sampler`, or a sampler.
            seed: of the chunk's noise; for a batch, one for each observation.
            scheduler: as for `chain`.
            steps: denoising steps N; None for the checkpoint's own number.
            previous: the last chunk of the same robot, or of each robot of the batch. Parallel
                samplers start from it, moved to the present: fewer rounds, the same answer.
            executed: time steps from `previous` to now, of all or of each; None for
                `n_action_steps`.
            shift_noise: use the noise of `previous`, moved likewise, with new noise at the end of
                the horizon only. Consecutive chunks then agree better. Each chunk has the same
                distribution as before; the chunks of an episode jointly have not.
            frozen: real-time chunking: so many actions of `previous`, from now on, will have been
                executed when this chunk is ready. They and the entries before them are taken over
                and the rest is sampled to fit (see `Inpainting`): another problem with another
                answer, on which all samplers agree. None: no action is decided yet.
            overlap: with `frozen`, "hard" leaves the later actions free, "soft" pulls them towards
                `previous`, ever less.
            pulled: (A,) with "soft", the coordinates that are pulled; None: all. It is done number by
                number, which is wrong for angles and for rotations that are written in jumps.
            deadline_s: parallel samplers stop at the last round that ends before so many seconds from
                now and return their last iterate with `converged=False`.
            callback: called after every round.
            poll: called before every launch of rounds; what it raises ends the solve. Unlike a
                callback it does not make a GPU wait.

        Raises:
            InputError: for missing, misshapen or non-finite observations, unknown options, or a
                sampler that was made for another process.
            NonFiniteError: if the result holds NaN or infinity; nothing is returned to be executed.
        """
        return self.chain(scheduler, steps).sample(
            obs,
            sampler=sampler,
            seed=seed,
            previous=previous,
            executed=executed,
            shift_noise=shift_noise,
            frozen=frozen,
            overlap=overlap,
            pulled=pulled,
            deadline_s=deadline_s,
            callback=callback,
            poll=poll,
        )


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks hold the same numbers by the same names, compiled or not."""
    mine, theirs = (
        {name.replace("_orig_mod.", ""): value for name, value in module.state_dict().items()}
        for module in (one, other)
    )
    return mine.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name].to(value)) for name, value in mine.items()
    )
