"""Static sweeps of every sampler read nothing back, on a device that has no values to read.

Shapes and branches that hang on values raise there. On a GPU they would wait for it, or make the round
one that cannot be captured; so would numbers that are copied from the host.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from para_policy import Denoiser, Noise, samplers
from para_policy.diffusion.inpainting import Inpainting
from para_policy.samplers import Chord, LowRankChord
from tests.inference.rounds import SAMPLERS, SHAPE, WIDTH, Network, process_of

META = torch.device("meta")


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """These look at their values when they are made, which is before any round."""
    for part in (Chord, LowRankChord, Inpainting):
        monkeypatch.setattr(part, "__post_init__", lambda self: None)


class OnTheDevice(TorchDispatchMode):
    """Every tensor that is touched is on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, Tensor):
                assert value.device == META, f"{func} touches a tensor on {value.device}"
        return result


class NoneOfTheHost(TorchFunctionMode):
    """No tensor is made from values of the host, which would be copied."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made_of_values = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor)
        assert func not in made_of_values, f"{func.__name__} copies from the host"
        return func(*args, **(kwargs or {}))


def on_device(value: Any) -> Any:
    """Tensors of options, which calibration keeps where the network is."""
    if isinstance(value, tuple):
        return tuple(map(on_device, value))
    return value.to(META) if isinstance(value, Tensor) else value


def begun(label: str, kind: str) -> tuple[Any, Denoiser]:
    name, options = SAMPLERS[label]
    options = {key: on_device(value) for key, value in options.items()}
    if "consistency" in options:
        tuned = Network(device="meta")
        options["consistency"] = lambda share: tuned
    sampler = samplers.get(name, **options)
    noise = Noise(torch.zeros(2, *SHAPE, device=META), torch.zeros(2, 30, *SHAPE, device=META))
    condition = torch.zeros(2, WIDTH, device=META)
    known = Inpainting(noise.initial, noise.initial)
    denoiser = Denoiser(Network(device="meta"), condition, known=known)
    return sampler.begin(denoiser, process_of(kind), noise, None), denoiser


@pytest.mark.parametrize("kind", ["ddpm", "dpmsolver++"])
@pytest.mark.parametrize("label", SAMPLERS)
def test_a_sweep_stays_on_the_device(label: str, kind: str) -> None:
    solve, denoiser = begun(label, kind)
    with NoneOfTheHost(), OnTheDevice():
        for k in range(3 if label == "sequential" else solve.opening + 1):
            for size in range(1, solve.sizes + 1):
                solve.launch(k, denoiser.unbound(), size).run()
        assert solve.wanted().shape == ()


def test_the_test_sees_what_is_read_back() -> None:
    solve, denoiser = begun("x0", "ddpm")
    with OnTheDevice(), pytest.raises(Exception, match="meta tensor"):
        solve.launch(0, denoiser, None)
    with NoneOfTheHost(), pytest.raises(AssertionError, match="from the host"):
        torch.tensor([1.0, 2.0], device=META)
    with OnTheDevice(), pytest.raises(AssertionError, match="cpu"):
        solve.X[:, 0] = solve.X[:, 0] + torch.zeros(())
