"""A chunk reads little back of a device: each read waits for all that was launched before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from para_policy import Denoiser, Noise, samplers
from para_policy.inference.graphs import Repeat
from para_policy.samplers import Sampler
from para_policy.samplers.reading import on_host, places
from tests.far import FAR, Far, FarDevice
from tests.inference.rounds import (
    SAMPLERS,
    Network,
    assert_same,
    problem,
    process_of,
    recorded_by,
)


class WithoutWaiting(Repeat):
    """Numbers of rounds arrive while the device works on, as those of CUDA graphs."""

    def watch(self, number: Tensor) -> Callable[[], int]:
        assert isinstance(number, Far)
        arriving = number.held.clone()
        return lambda: int(arriving)


def there(value: Any) -> Any:
    """On the device, as calibration leaves it."""
    if isinstance(value, tuple):
        return tuple(map(there, value))
    return value.to(FAR) if isinstance(value, Tensor) else value


def made(label: str) -> Sampler:
    name, options = SAMPLERS[label]
    options = {key: there(value) for key, value in options.items()}
    if "consistency" in options:
        tuned, base = Network(seed=5, device=FAR.type), Network(device=FAR.type)
        options["consistency"] = lambda share: tuned if share else base
    return samplers.get(name, **options)


def put(condition: Tensor, noise: Noise) -> tuple[Denoiser, Noise]:
    denoiser = Denoiser(Network(device=FAR.type), condition.to(FAR))
    return denoiser, Noise(noise.initial.to(FAR), noise.steps.to(FAR))


@pytest.mark.parametrize("kind", ["ddpm", "dpmsolver++"])
@pytest.mark.parametrize("label", SAMPLERS)
def test_one_read_a_round_and_one_for_the_result(label: str, kind: str) -> None:
    name, options = SAMPLERS[label]
    condition, noise = problem(0, batch=3)
    expected = samplers.get(name, **options)(
        Denoiser(Network(), condition), process_of(kind), noise
    )
    with FarDevice() as device:
        sampler, process = made(label), process_of(kind)
        denoiser, far = put(condition, noise)
        device.reads = 0
        result = sampler(denoiser, process, far)
        # The last round but one finds that nothing is left.
        most = 1 if label == "sequential" else denoiser.rounds + 2
        assert device.reads <= most
        for name in ("sample", "trajectory"):
            result = replace(result, **{name: getattr(result, name).cpu()})
    assert_same(result, expected)


@pytest.mark.parametrize("label", SAMPLERS)
def test_one_read_for_a_solve_of_recorded_rounds(label: str) -> None:
    with FarDevice() as device:
        sampler, process = recorded_by(made(label), WithoutWaiting()), process_of("ddpm")
        network = Network(device=FAR.type)
        for seed in range(2):
            condition, noise = problem(seed)
            far = Noise(noise.initial.to(FAR), noise.steps.to(FAR))
            denoiser = Denoiser(network, condition.to(FAR))
            device.reads = 0
            sampler(denoiser, process, far)
        assert device.reads == 1


def test_what_is_read_together_keeps_its_values() -> None:
    values = (
        torch.tensor([[1.1, -torch.inf], [torch.nan, 1e-45]]),
        torch.tensor([2**53 + 1, -3]),
        torch.tensor(True),
        torch.zeros(0, 2),
        torch.tensor([0.1], dtype=torch.float64),
        torch.tensor([0.1, 3.0, -2.0], dtype=torch.bfloat16)[::2],
    )
    for found, value in zip(on_host(*values), values, strict=True):
        assert found.dtype == value.dtype
        torch.testing.assert_close(found, value, rtol=0, atol=0, equal_nan=True)


@given(st.lists(st.booleans()))
def test_places_of_a_mask(chosen: list[bool]) -> None:
    mask = torch.tensor(chosen, dtype=torch.bool)
    assert torch.equal(places(mask, int(mask.sum())), mask.nonzero()[:, 0])
