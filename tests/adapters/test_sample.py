"""`sample`: any network and scheduler, compared with the loop that diffusers' users write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import samplers
from para_policy.adapters import sample
from para_policy.errors import InputError
from tests import problems


def denoise(x: Tensor, t: Tensor) -> Tensor:
    phase = t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)) / 100
    return x - 0.3 * torch.tanh(x + x.flip(-1)) + 0.1 * phase


def loop(
    scheduler: Any, shape: tuple[int, ...], steps: int, start: Tensor | None = None, **options: Any
) -> Tensor:
    """The sequential loop, with a generator of seed 3."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator) if start is None else start
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        output = denoise(x, t.expand(len(x)))
        x = scheduler.step(output, t, x, generator=generator, **options).prev_sample
    return x


@pytest.mark.parametrize("shape", [(2, 5), (2, 50, 1), (1, 3, 6, 6), (1, 2, 3, 4, 4)])
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_any_shape_and_scheduler(shape: tuple[int, ...], kind: str) -> None:
    scheduler = problems.scheduler(kind)
    expected = loop(scheduler, shape, 25)
    generator = torch.Generator().manual_seed(3)
    result = sample(denoise, scheduler, shape, steps=25, tolerance=1e-5, generator=generator)
    assert float((result.sample - expected).abs().max()) < 1e-4
    assert result.converged.all()
    assert result.rounds.shape == (shape[0],)


def test_stochastic_ddim_and_given_noise() -> None:
    scheduler, start = problems.scheduler("ddim"), torch.randn(2, 4, 3)
    expected = loop(scheduler, (2, 4, 3), 20, start, eta=0.7)
    given = {"steps": 20, "eta": 0.7, "tolerance": 1e-5}
    found = sample(denoise, scheduler, start, generator=torch.Generator().manual_seed(3), **given)
    assert float((found.sample - expected).abs().max()) < 1e-4
    torch.manual_seed(3)  # None is torch's global generator
    assert torch.equal(sample(denoise, scheduler, start, **given).sample, found.sample)


def test_each_sample_has_its_condition() -> None:
    scheduler, start = problems.scheduler("ddim"), torch.randn(3, 4)
    shift = torch.tensor([[-0.5], [0.0], [0.5]])
    together = sample(
        lambda x, t, c: denoise(x, t) + c, scheduler, start, condition=shift, tolerance=1e-6
    )
    for i in range(3):
        alone = sample(
            lambda x, t, i=i: denoise(x, t) + shift[i], scheduler, start[i : i + 1], tolerance=1e-6
        )
        assert torch.allclose(together.sample[i], alone.sample[0], atol=1e-4)


def test_the_scheduler_is_left_alone() -> None:
    scheduler = problems.scheduler("ddpm")
    scheduler.set_timesteps(10)
    before = scheduler.timesteps.clone()
    assert sample(denoise, scheduler, (1, 4)).trajectory.shape[1] == 11  # what is set
    sample(denoise, scheduler, (1, 4), steps=7)
    assert torch.equal(scheduler.timesteps, before)


def test_asd_gets_its_coins_from_the_generator() -> None:
    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        scheduler = problems.scheduler("ddpm")
        return sample(denoise, scheduler, (2, 4), sampler="asd", generator=generator).sample

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": (3,)}, r"start is \(3,\); expected \(batch, \*shape\)"),
        ({"start": torch.zeros(0, 3)}, r"start is \(0, 3\)"),
        ({"condition": torch.zeros(2, 1)}, "condition has 2 rows for 1 samples"),
        ({"sampler": "fast"}, "unknown sampler 'fast'"),
        ({"sampler": samplers.get("x0"), "tolerance": 1e-3}, r"options \['tolerance'\]"),
        ({"steps": 101}, "num_steps is 101"),
        ({"eta": 0.5}, "only DDIM takes it"),
        ({"start": torch.zeros(1, 3, dtype=torch.int64)}, "dtype torch.int64"),
    ],
)
def test_bad_arguments(given: dict[str, Any], message: str) -> None:
    arguments = {"start": (1, 3), **given}
    with pytest.raises(InputError, match=message):
        sample(denoise, problems.scheduler("ddpm"), **arguments)
