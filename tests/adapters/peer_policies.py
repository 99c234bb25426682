"""Stand-ins for the policy objects of LeRobot and of the original diffusion_policy project.

They have the attributes, signatures and sampling loops of the real ones, around tiny networks.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

HORIZON, ACTIONS, OBSERVED, HISTORY, EXECUTED = 8, 2, 3, 2, 4


def scheduler(kind: str = "ddpm", **options: Any) -> Any:
    """Diffusion Policy's schedule, shortened."""
    made = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[kind]
    return made(num_train_timesteps=40, beta_schedule="squaredcos_cap_v2", **options)


class Network(nn.Module):
    """A conditional noise predictor; `dropout` as in the transformer."""

    def __init__(self, condition: int, dropout: float = 0.0) -> None:
        super().__init__()
        size = HORIZON * ACTIONS
        self.inner = nn.Linear(size + condition + 2, 32)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(32, size)
        with torch.no_grad():
            self.outer.weight.mul_(2.0)

    def predict(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        phase = (t if t.ndim else t.expand(len(x))).to(x.dtype)[:, None] / 40
        features = [x.flatten(1), condition.flatten(1), phase, phase * phase]
        hidden = self.dropout(self.inner(torch.cat(features, dim=1)).tanh())
        return 0.7 * x + self.outer(hidden).reshape(x.shape)


class Unet(Network):
    """Called as both U-Nets are."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        local_cond: Tensor | None = None,
        global_cond: Tensor | None = None,
    ) -> Tensor:
        assert global_cond is not None
        return self.predict(sample, timestep, global_cond)


class Transformer(Network):
    """Called as the original transformer is."""

    def forward(self, sample: Tensor, timestep: Tensor, cond: Tensor | None = None) -> Tensor:
        assert cond is not None
        return self.predict(sample, timestep, cond)


class LeRobotModel(nn.Module):
    """LeRobot's `DiffusionModel`, 2025-09 to 0.6."""

    def __init__(self, noise_scheduler: Any) -> None:
        super().__init__()
        self.config: Any = SimpleNamespace(
            horizon=HORIZON, action_feature=SimpleNamespace(shape=(ACTIONS,))
        )
        self.unet = Unet(HISTORY * OBSERVED)
        self.noise_scheduler = noise_scheduler
        self.num_inference_steps = noise_scheduler.config.num_train_timesteps

    @property
    def action_dim(self) -> int:
        return int(self.config.action_feature.shape[0])

    def conditional_sample(
        self,
        batch_size: int,
        global_cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        weight = next(iter(self.parameters()))
        shape = (batch_size, self.config.horizon, self.action_dim)
        sample = noise
        if sample is None:
            sample = torch.randn(
                size=shape, dtype=weight.dtype, device=weight.device, generator=generator
            )
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for t in self.noise_scheduler.timesteps:
            steps = torch.full(sample.shape[:1], t, dtype=torch.long, device=sample.device)
            output = self.unet(sample, steps, global_cond=global_cond)
            step = self.noise_scheduler.step(output, t, sample, generator=generator)
            sample = step.prev_sample
        return sample


class OldLeRobotModel(LeRobotModel):
    """Before 2025: no `noise`, and the shape of actions in `config.output_shapes`."""

    def __init__(self, noise_scheduler: Any) -> None:
        super().__init__(noise_scheduler)
        self.config = SimpleNamespace(horizon=HORIZON, output_shapes={"action": [ACTIONS]})

    @property
    def action_dim(self) -> int:
        return int(self.config.output_shapes["action"][0])

    def conditional_sample(  # type: ignore[override]
        self,
        batch_size: int,
        global_cond: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return super().conditional_sample(batch_size, global_cond, generator)


class LeRobotPolicy(nn.Module):
    """LeRobot's `DiffusionPolicy`: queues of observations and of actions."""

    def __init__(
        self, noise_scheduler: Any = None, model: type[LeRobotModel] = LeRobotModel
    ) -> None:
        super().__init__()
        self.diffusion = model(scheduler() if noise_scheduler is None else noise_scheduler)
        self.config: Any = SimpleNamespace(n_obs_steps=HISTORY, n_action_steps=EXECUTED)
        self.reset()

    def reset(self) -> None:
        self._observed: deque[Tensor] = deque(maxlen=HISTORY)
        self._actions: deque[Tensor] = deque(maxlen=EXECUTED)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        self._observed.append(batch["observation.state"])
        while len(self._observed) < HISTORY:
            self._observed.append(batch["observation.state"])
        if not self._actions:
            condition = torch.stack(list(self._observed), dim=1).flatten(1)
            actions = self.diffusion.conditional_sample(len(condition), global_cond=condition)
            first = HISTORY - 1
            self._actions.extend(actions[:, first : first + EXECUTED].transpose(0, 1))
        return self._actions.popleft()


class OriginalPolicy(nn.Module):
    """What the original policies share."""

    def __init__(self, model: nn.Module, noise_scheduler: Any = None, **step_options: Any) -> None:
        super().__init__()
        self.model = model
        self.noise_scheduler = scheduler() if noise_scheduler is None else noise_scheduler
        self.num_inference_steps = self.noise_scheduler.config.num_train_timesteps
        self.kwargs = step_options
        self.n_obs_steps, self.n_action_steps = HISTORY, EXECUTED

    def _loop(
        self,
        condition_data: Tensor,
        condition_mask: Tensor,
        generator: torch.Generator | None,
        step_options: dict[str, Any],
        **condition: Tensor | None,
    ) -> Tensor:
        trajectory = torch.randn(
            size=condition_data.shape,
            dtype=condition_data.dtype,
            device=condition_data.device,
            generator=generator,
        )
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for t in self.noise_scheduler.timesteps:
            trajectory[condition_mask] = condition_data[condition_mask]
            output = self.model(trajectory, t, **condition)
            step = self.noise_scheduler.step(
                output, t, trajectory, generator=generator, **step_options
            )
            trajectory = step.prev_sample
        trajectory[condition_mask] = condition_data[condition_mask]
        return trajectory

    def _empty(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        data = torch.zeros(len(observed), HORIZON, ACTIONS, dtype=observed.dtype)
        return data, torch.zeros_like(data, dtype=torch.bool)


class OriginalUnetPolicy(OriginalPolicy):
    """The low-dim and image U-Net policies, with global conditioning."""

    def __init__(self, noise_scheduler: Any = None, **step_options: Any) -> None:
        super().__init__(Unet(HISTORY * OBSERVED), noise_scheduler, **step_options)

    def conditional_sample(
        self,
        condition_data: Tensor,
        condition_mask: Tensor,
        local_cond: Tensor | None = None,
        global_cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        bound = {"local_cond": local_cond, "global_cond": global_cond}
        return self._loop(condition_data, condition_mask, generator, kwargs, **bound)

    def predict_action(self, obs_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        data, mask = self._empty(obs_dict["obs"])
        condition = obs_dict["obs"].flatten(1)
        action = self.conditional_sample(
            data, mask, local_cond=None, global_cond=condition, **self.kwargs
        )
        return {"action": action[:, HISTORY - 1 :][:, :EXECUTED], "action_pred": action}


class OriginalTransformerPolicy(OriginalPolicy):
    """The transformer policies with `obs_as_cond`."""

    def __init__(self, noise_scheduler: Any = None, dropout: float = 0.0) -> None:
        super().__init__(Transformer(HISTORY * OBSERVED, dropout), noise_scheduler)

    def conditional_sample(
        self,
        condition_data: Tensor,
        condition_mask: Tensor,
        cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return self._loop(condition_data, condition_mask, generator, kwargs, cond=cond)

    def predict_action(self, obs_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        data, mask = self._empty(obs_dict["obs"])
        action = self.conditional_sample(data, mask, cond=obs_dict["obs"], **self.kwargs)
        return {"action": action[:, HISTORY - 1 :][:, :EXECUTED], "action_pred": action}
