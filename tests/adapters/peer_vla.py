"""Stand-ins for LeRobot's vision-language-action policies with flow-matching heads (0.6.1).

They have the signatures, the loop and the habits with their caches of the real ones, around one small
layer of attention.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

CHUNK, ACTIONS, WIDTH, PREFIX = 6, 3, 16, 4


class Layer:
    """Keys and values (batch, length, WIDTH)."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values


class Cache:
    """A `DynamicCache` of transformers with one layer."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.layers = [Layer(keys, values)]

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        layer = self.layers[0]
        layer.keys = torch.cat([layer.keys, keys], dim=1)
        layer.values = torch.cat([layer.values, values], dim=1)
        return layer.keys, layer.values

    def crop(self, length: int) -> None:
        layer = self.layers[0]
        layer.keys, layer.values = layer.keys[:, :length], layer.values[:, :length]


class Tracker:
    """An `RTCProcessor`: halves what it guides, and keeps the steps that it is shown."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug
        self.times: list[float] = []

    def is_debug_enabled(self) -> bool:
        return self.debug

    def track(self, time: float, x_t: Tensor, v_t: Tensor) -> None:
        self.times.append(time)

    def denoise_step(
        self, x_t: Tensor, original_denoise_step_partial: Callable[[Tensor], Tensor], **_: Any
    ) -> Tensor:
        return 0.5 * original_denoise_step_partial(x_t)


def euler_integrate(
    denoise_fn: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    num_steps: int,
    *,
    rtc_processor: Any = None,
    rtc_enabled: bool = False,
    **guidance: Any,
) -> Tensor:
    x_t = noise
    for step in range(num_steps):
        time = 1.0 - step / num_steps
        told = torch.tensor(time, dtype=torch.float32).expand(len(noise))
        if rtc_enabled:
            v_t = rtc_processor.denoise_step(
                x_t=x_t,
                original_denoise_step_partial=lambda x, told=told: denoise_fn(x, told),
                **guidance,
            )
        else:
            v_t = denoise_fn(x_t, told)
        x_t = x_t - v_t / num_steps
        if rtc_processor is not None and rtc_processor.is_debug_enabled():
            rtc_processor.track(time=time, x_t=x_t, v_t=v_t)
    return x_t


class Head(nn.Module):
    """What the models share. `caches` and `written` are of the calls so far, for tests to look at."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.rtc_processor: Tracker | None = None
        self.rtc_enabled = False
        self.prefix = nn.Linear(3, PREFIX * WIDTH)
        self.inner = nn.Linear(ACTIONS + 2, WIDTH)
        self.outer = nn.Linear(WIDTH, ACTIONS)
        self.caches: list[Cache] = []
        self.written: list[Tensor] = []

    def encode(self, observed: Tensor) -> tuple[Cache, Tensor]:
        """A cache, and the mask (batch, PREFIX) of its valid entries: one less in odd samples."""
        keys = self.prefix(observed).reshape(len(observed), PREFIX, WIDTH)
        mask = torch.ones(keys.shape[:2], dtype=torch.bool)
        mask[1::2, -1] = False
        self.caches.append(Cache(keys, keys.sin()))
        return self.caches[-1], mask

    def embed(self, x: Tensor, t: Tensor) -> Tensor:
        phase = torch.stack([t, t * t], dim=-1)[:, None].expand(*x.shape[:2], 2)
        return self.inner(torch.cat([x, phase], dim=-1)).tanh()

    def velocity(self, hidden: Tensor, cache: Cache, mask: Tensor) -> Tensor:
        keys, values = cache.update(hidden, hidden)
        assert keys.shape[1] == PREFIX + CHUNK  # nothing of another step is in it
        own = torch.ones(len(mask), CHUNK, dtype=torch.bool)
        scores = hidden @ keys.transpose(1, 2)
        masked = scores.masked_fill(~torch.cat([mask, own], dim=1)[:, None], -1e9)
        return 3 * self.outer(hidden + masked.softmax(-1) @ values)


class SmolVLAModel(Head):
    """`VLAFlowMatching`: crops the cache after each step."""

    def sample_actions(
        self,
        images: Any,
        img_masks: Any,
        lang_tokens: Any,
        lang_masks: Any,
        state: Tensor,
        noise: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if noise is None:
            noise = torch.randn(len(state), CHUNK, ACTIONS)
        past_key_values, prefix_pad_masks = self.encode(state)
        return euler_integrate(
            lambda input_x_t, current_timestep: self.denoise_step(
                prefix_pad_masks, past_key_values, input_x_t, current_timestep
            ),
            noise,
            self.config.num_steps,
            rtc_processor=self.rtc_processor,
            rtc_enabled=self.rtc_enabled,
            inference_delay=kwargs.get("inference_delay"),
        )

    def denoise_step(
        self, prefix_pad_masks: Tensor, past_key_values: Cache, x_t: Tensor, timestep: Tensor
    ) -> Tensor:
        v_t = self.velocity(self.embed(x_t, timestep), past_key_values, prefix_pad_masks)
        past_key_values.crop(PREFIX)
        return v_t


class EO1Model(Head):
    """`EO1VisionFlowMatchingModel`: crops the cache before each step, and writes into its inputs."""

    @torch.no_grad()
    def sample_actions(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        pixel_values: Any = None,
        image_grid_thw: Any = None,
        mm_token_type_ids: Any = None,
        states: Any = None,
        *,
        state_token_id: int = 0,
        action_token_id: int = 0,
        **kwargs: Any,
    ) -> Tensor:
        chunk_size, act_start, act_end = CHUNK, PREFIX, PREFIX + CHUNK
        act_slice = slice(act_start, act_end)
        past_key_values, attention_mask = self.encode(states)
        inputs_embeds = torch.zeros(len(states), act_end, WIDTH)
        self.written.append(inputs_embeds)
        position_ids = attention_mask.cumsum(1).expand(3, *attention_mask.shape)

        def denoise_fn(input_x_t: Tensor, current_timestep: Tensor) -> Tensor:
            inputs_embeds[:, act_slice] = self.embed(input_x_t, current_timestep)
            past_key_values.crop(act_start)
            first = position_ids[0, :, -1:, None] / PREFIX
            hidden = first * inputs_embeds[:, act_slice][:, :chunk_size]
            assert act_end == inputs_embeds.shape[1]
            return self.velocity(hidden, past_key_values, attention_mask)

        return euler_integrate(
            denoise_fn, torch.randn(len(states), CHUNK, ACTIONS), self.config.num_denoise_steps
        )


class VLAPolicy(nn.Module):
    """A policy with its model; `name` and `select_action` as LeRobot has them."""

    def __init__(self, model: Head) -> None:
        super().__init__()
        self.model = model

    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        """The whole chunk, as `predict_action_chunk`."""
        state = batch["observation.state"]
        if isinstance(self.model, EO1Model):
            return self.model.sample_actions(states=state, state_token_id=1, action_token_id=2)
        return self.model.sample_actions(None, None, None, None, state, **kwargs)


class EVO1Head(nn.Module):
    """`FlowmatchingActionHead`: a loop of its own, guidance as an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.num_inference_timesteps = 32
        self.horizon, self.per_action_dim = CHUNK, ACTIONS
        self.inner = nn.Linear(ACTIONS + WIDTH, WIDTH)
        self.outer = nn.Linear(CHUNK * WIDTH, CHUNK * ACTIONS)
        angles = torch.arange(1000)[:, None] * torch.linspace(0.001, 0.01, WIDTH)
        self.register_buffer("table", angles.sin()[None])

    def time_pos_enc(self, length: int) -> Tensor:
        return self.table[:, :length]  # type: ignore[no-any-return, index]

    @property
    def dtype(self) -> torch.dtype:
        return self.inner.weight.dtype

    def get_action(
        self,
        fused_tokens: Tensor,
        state: Any = None,
        embodiment_id: Any = None,
        action_mask: Any = None,
        context_mask: Any = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Any = None,
        execution_horizon: Any = None,
        rtc_processor: Any = None,
    ) -> Tensor:
        batch_size, context_tokens, key_padding_mask = len(fused_tokens), fused_tokens, context_mask
        embodiment_id = torch.arange(batch_size)
        target_dtype, per_action_dim = self.dtype, self.per_action_dim
        action_mask = torch.ones(batch_size, CHUNK, ACTIONS)
        action_mask[..., -1] = 0
        action_seq = (torch.rand(batch_size, CHUNK, ACTIONS) * 2 - 1) * action_mask
        steps = self.num_inference_timesteps

        def predict_velocity(seq: Tensor, step_time_emb: Tensor) -> Tensor:
            seq = (seq * action_mask).to(target_dtype)
            told = (step_time_emb + context_tokens)[:, None].expand(batch_size, CHUNK, WIDTH)
            hidden = self.inner(torch.cat([seq, told], dim=-1)).tanh()
            if key_padding_mask is not None:
                hidden = hidden.masked_fill(key_padding_mask[..., None], 0.0)
            hidden = hidden * (1 + embodiment_id[:, None, None])
            out = self.outer(hidden.reshape(batch_size, -1))
            return out.view(batch_size, CHUNK, per_action_dim) * action_mask

        for i in range(steps):
            time_emb = self.time_pos_enc(1000)[:, int(i / steps * 999)].repeat(batch_size, 1)
            if rtc_processor is not None and (
                inference_delay is not None or prev_chunk_left_over is not None
            ):
                velocity = -rtc_processor.denoise_step(
                    x_t=action_seq,
                    original_denoise_step_partial=lambda s, e=time_emb: -predict_velocity(s, e),
                )
            else:
                velocity = predict_velocity(action_seq, time_emb)
            action_seq = action_seq + velocity / steps
        return action_seq.reshape(batch_size, -1)


class EVO1Model(nn.Module):
    """`Evo1Model` and what is around it."""

    def __init__(self) -> None:
        super().__init__()
        self.fuse = nn.Linear(3, WIDTH)
        self.action_head = EVO1Head()
        self.rtc_processor: Tracker | None = None


class EVO1Policy(nn.Module):
    """`Evo1Policy`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = EVO1Model()

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        head = self.model.action_head
        actions = head.get_action(
            self.model.fuse(batch["observation.state"]),
            rtc_processor=self.model.rtc_processor,
            **kwargs,
        )
        return actions.view(-1, CHUNK, ACTIONS)
