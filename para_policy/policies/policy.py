"""DiffusionPolicy: observations in physical units to action chunks in physical units."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from para_policy.calibration import Calibration
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.inpainting import Inpainting
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import build_scheduler, scheduler_kind
from para_policy.errors import InputError, NonFiniteError
from para_policy.inference import EngineConfig
from para_policy.inference.device import check_device
from para_policy.inference.running import RunningNetwork
from para_policy.networks.build import VISION, build_network, build_vision
from para_policy.policies.config import PolicyConfig
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.policies.encoder import Observation as Observation
from para_policy.policies.encoder import Observer
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.policies.previous import Continuation, Overlap
from para_policy.policies.result import ActionResult as ActionResult
from para_policy.policies.result import SampleStats as SampleStats
from para_policy.policies.result import statistics
from para_policy.policies.sampler_making import choose, make_sampler
from para_policy.samplers import Callback, Sampler, Status
from para_policy.samplers.deadline import Deadline

_PAD = 8
_RESERVE = 0.1
"""Of the time until a deadline: for rounds that are slower than measured, and to hand over the chunk.
With 0.05 one chunk in forty was late on a noisy machine."""


class DiffusionPolicy(RunningNetwork):
    """A trained diffusion policy.

    Args:
        config: shapes and schedule.
        model_state: weights of the noise predictor (EMA weights, for a trained policy), and with
            the prefix "vision." those of the camera encoders.
        normalizers: one for each input, and one for "action".
        device: where the network runs.
        engine: how it runs there; None for PyTorch as it is.

    Attributes:
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
        place = check_device(device)
        self.normalizers = {name: n.to(place) for name, n in normalizers.items()}
        network, vision = build_network(config), build_vision(config)
        seen, acting = {}, {}
        for name, value in model_state.items():
            if name.startswith(VISION):
                seen[name.removeprefix(VISION)] = value
            else:
                acting[name] = value
        network.load_state_dict(acting)
        network.to(place).eval().requires_grad_(False)
        super().__init__(config, network, place, engine or EngineConfig())
        if vision is not None:
            vision.load_state_dict(seen)
            vision.to(place).eval().requires_grad_(False)
        self.vision = vision
        self._observer = Observer(config, self.normalizers, vision)
        self.calibrations: dict[tuple[str, int], Calibration] = {}
        self.consistency_models: dict[tuple[str, int, str], PicardConsistencyModel] = {}
        self._processes: dict[tuple[str | None, int | None], Process] = {}

    @property
    def num_train_timesteps(self) -> int:
        count: int = build_scheduler(self.config.noise_scheduler).config.num_train_timesteps
        return count

    def process(self, scheduler: str | None = None, steps: int | None = None) -> Process:
        """Return the step table: the trained schedule, or another sampler or step count on it."""
        if steps is None and scheduler in (None, scheduler_kind(self.config.noise_scheduler)):
            steps = self.config.num_inference_steps
        key = (scheduler, steps)
        if key not in self._processes:
            built = build_scheduler(self.config.noise_scheduler, scheduler)
            self._processes[key] = Process.from_scheduler(built, steps)
        return self._processes[key]

    def denoiser(self, obs: Observation) -> Denoiser:
        """Bind batched observations {name: (B, To, *shape)} to the network, once for a whole solve."""
        return self._bound(self._observer.check(obs, batched=True))

    def _bound(self, values: Mapping[str, np.ndarray], known: Inpainting | None = None) -> Denoiser:
        condition = self._observer.encode(values, self.device)
        # Kernels are prepared for each batch size anew; a few sizes are prepared once.
        pad_to = 1 if self._running.fills_up else _PAD
        return Denoiser(self._inference, condition, pad_to=pad_to, pad_from=_PAD + 1, known=known)

    def sampler(
        self, name: str, *, scheduler: str | None = None, steps: int | None = None, **options: Any
    ) -> Sampler:
        """Make a sampler by name, with what calibration has measured for this process.

        Args:
            name: one of `samplers.names()`, or "auto" for the one that is expected to be fastest on
                this device.
            scheduler, steps: as in `sample`.
            options: of the sampler, such as `tolerance`; see `samplers.options(name)`.

        Raises:
            InputError: for unknown names or options, or if a calibration is needed and missing.
        """
        return make_sampler(self, name, scheduler, steps, options)

    def process_key(self, scheduler: str | None, steps: int | None) -> tuple[str, int]:
        """Kind of the scheduler and number of steps, with what None stands for filled in."""
        kind = scheduler or scheduler_kind(self.config.noise_scheduler)
        return kind, self.process(scheduler, steps).num_steps

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
        deadline_s: float | None = None,
        callback: Callback | None = None,
    ) -> ActionResult:
        """Predict a chunk.

        Args:
            obs: {name: (To, *shape)} in physical units, oldest first; or (B, To, *shape) for a
                batch. Images have their channels first and are uint8, or float in [0, 1].
            sampler: a name as for `sampler`, or a sampler.
            seed: of the chunk's noise; for a batch, one for each observation.
            scheduler: "ddpm", "ddim" or "dpmsolver++"; None for the one it was trained with.
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
            deadline_s: parallel samplers stop at the last round that ends before so many seconds from
                now and return their last iterate with `converged=False`.
            callback: called after every round.

        Raises:
            InputError: for missing, misshapen or non-finite observations, or unknown options.
            NonFiniteError: if the result holds NaN or infinity; nothing is returned to be executed.
        """
        start = time.perf_counter()
        deadline = None
        if deadline_s is not None:
            latency = self.latencies.get(self.device_key)
            deadline = Deadline.after(deadline_s, latency, reserve=_RESERVE)
        solver = (
            self._named(sampler, scheduler, steps, deadline_s)
            if isinstance(sampler, str)
            else sampler
        )
        batched = isinstance(seed, (Sequence, np.ndarray))
        seeds = list(seed) if isinstance(seed, (Sequence, np.ndarray)) else [seed]
        values = self._observer.check(obs, batched=batched)
        for name, value in values.items():
            if len(value) != len(seeds):
                raise InputError(f"{len(seeds)} seeds for {len(value)} observations {name!r}")
        process = self.process(scheduler, steps)
        shape = (self.config.horizon, self.config.action_dim)
        noise = Noise.from_seeds(seeds, shape, process.num_steps, device=self.device)
        before, guess, known = None, None, None
        if previous is not None:
            before = Continuation.of(previous, executed, self.config, len(seeds))
            guess = before.start(self.device)
            if shift_noise:
                noise = before.noise.shifted(before.executed, noise)
        if frozen is not None:
            if before is None:
                raise InputError(f"frozen is {frozen} without a previous chunk; give both")
            known = before.known(frozen, overlap, self.config, self.device)
        encoding = time.perf_counter()
        denoiser = self._bound(values, known)
        if self.vision is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the encoder's time is reported apart
        encode_s = time.perf_counter() - encoding
        if self._running.replays is not None:
            solver = self._running.replays(solver)
        result = solver(denoiser, process, noise, guess=guess, deadline=deadline, callback=callback)
        prediction = self.normalizers["action"].unnormalize(result.sample).cpu().numpy()
        if Status.NON_FINITE in result.status or not np.isfinite(prediction).all():
            raise NonFiniteError(
                f"the sampled actions hold NaN or infinity: {Status.NON_FINITE.value}"
            )
        first = self.config.first_action
        actions = prediction[:, first : first + self.config.n_action_steps]
        sample = result.sample.cpu().numpy()
        unit = 1 / self.normalizers["action"].scale.cpu().abs()
        stats = statistics(result, unit, encode_s, time.perf_counter() - start, batched)
        if batched:
            return ActionResult(actions, prediction, sample, noise, stats)
        return ActionResult(actions[0], prediction[0], sample[0], noise, stats)

    def _named(
        self, name: str, scheduler: str | None, steps: int | None, deadline_s: float | None
    ) -> Sampler:
        """A sampler by name; chord matrices are prepared once, not for every chunk."""
        name, options = choose(self, name, scheduler, steps, deadline_s)
        process = self.process_key(scheduler, steps)
        model = self.consistency_models.get((*process, "chord"))
        made_from = (id(self.calibrations.get(process)), id(model))
        key = (name, *options.items(), scheduler, steps, *made_from, torch.get_num_threads())
        if key not in self._samplers:
            self._samplers[key] = make_sampler(self, name, scheduler, steps, options)
        return self._samplers[key]
