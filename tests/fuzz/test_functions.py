"""Any argument of a Python entry point is used or refused with an error of this package."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import para_policy
from para_policy import DiffusionPolicy, Noise, Process, samplers
from para_policy.comparison import Benchmark
from para_policy.errors import ParaPolicyError
from para_policy.inference import EngineConfig
from para_policy.policies.sampler_spec import SamplerSpec
from para_policy.samplers import Nodes
from tests.fuzz.policies import KINDS, observations, save_policy

NUMBERS = (-1, 0, 1, 2, 1.5, 2**31, 2**63, 10**400, float("nan"), float("inf"), -float("inf"), True)
TEXTS = (
    "",
    "x",
    "none",
    "a" * 5000,
    "\0",
    "\udcff",
    "cuda:99",
    "meta",
    "ddim",
    "chord",
    "x0",
    "asd",
)
OBJECTS: tuple[Any, ...] = (None, object(), (), [], {}, [None], {"x": 1}, {1: 2}, b"x")
ARRAYS: tuple[Any, ...] = (
    *(np.zeros(0), np.zeros((2, 2)), np.full((2, 2), np.nan), np.array("x"), np.array([None])),
    *(torch.zeros(0), torch.zeros(1, 3), torch.zeros(2, dtype=torch.int64), np.float32(2)),
    *(torch.zeros(1, 3, device="meta"), torch.full((1, 3), torch.inf), torch.zeros(1, 2, 3)),
)
ANY = (*NUMBERS, *TEXTS, *OBJECTS, *ARRAYS)


UNSET = object()
"""In place of an argument: its default."""
MEASURED = {
    "matrices": torch.zeros(4, 8, 8),
    "nodes": Nodes(torch.zeros(1, dtype=torch.int64), torch.zeros(1), torch.zeros(1)),
    "consistency": lambda share: None,
}


@dataclass(frozen=True)
class Entry:
    """A function, and arguments that it takes."""

    call: Callable[..., Any]
    good: Mapping[str, Any]


def halved(x: torch.Tensor, t: torch.Tensor, condition: object = None) -> torch.Tensor:
    return 0.5 * x.tanh()


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    folder = tmp_path_factory.mktemp("functions")
    scheduler = DDIMScheduler(8)
    return {
        **{
            f"{kind}: {name}": entry
            for kind in KINDS
            for name, entry in of_policy(save_policy(kind, folder), folder / kind).items()
        },
        "Process.from_scheduler": Entry(
            Process.from_scheduler, {"scheduler": scheduler, "num_steps": 8, "eta": 0.0}
        ),
        "Noise.from_seeds": Entry(
            Noise.from_seeds, {"seeds": [1], "shape": (4, 2), "num_steps": 3, "device": "cpu"}
        ),
        "sample": Entry(
            para_policy.sample,
            {
                "denoise": halved,
                "scheduler": scheduler,
                "start": (1, 3),
                "steps": 8,
                "sampler": "x0",
                "condition": None,
                "eta": 0.0,
                "generator": None,
                "device": "cpu",
            },
        ),
        "accelerate": Entry(
            para_policy.accelerate,
            {"policy": object(), "sampler": "x0", "steps": None, "scheduler": None},
        ),
        "SamplerSpec.parse": Entry(SamplerSpec.parse, {"text": "x0"}),
        "Benchmark": Entry(
            Benchmark, {"samplers": ("x0",), "scheduler": None, "steps": None, "observations": 1}
        ),
        "EngineConfig": Entry(
            EngineConfig, {"backend": "eager", "precision": "float32", "memory_limit_mib": 1}
        ),
        **{
            f"samplers.{name}": Entry(
                lambda name=name, **options: samplers.get(name, **options),
                {option: MEASURED.get(option, UNSET) for option in samplers.options(name)},
            )
            for name in samplers.names()
        },
    }


def of_policy(policy: DiffusionPolicy, checkpoint: Path) -> dict[str, Entry]:
    obs = {name: values[0] for name, values in observations(policy, 1).items()}
    return {
        "load_policy": Entry(
            para_policy.load_policy,
            {
                "path": checkpoint,
                "device": "cpu",
                "consistency": None,
                "weights": "live",
                "engine": "eager",
                "precision": "float32",
            },
        ),
        "DiffusionPolicy.sample": Entry(
            policy.sample,
            {
                "obs": obs,
                "sampler": "x0",
                "seed": 0,
                "scheduler": None,
                "steps": None,
                "previous": policy.sample(obs),
                "executed": policy.config.n_action_steps,
                "frozen": 1,
                "overlap": "hard",
                "pulled": None,
                "deadline_s": None,
                "callback": None,
            },
        ),
        "an observation": Entry(lambda **obs: policy.sample(obs), obs),
        "DiffusionPolicy.sampler": Entry(
            policy.sampler, {"name": "x0", "scheduler": None, "steps": None}
        ),
    }


def check(entry: Entry, changes: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ParaPolicyError):
            given = {**entry.good, **changes}
            entry.call(**{name: value for name, value in given.items() if value is not UNSET})


def drawn(data: st.DataObject, entries: Mapping[str, Entry]) -> tuple[Entry, dict[str, Any]]:
    entry = entries[data.draw(st.sampled_from(sorted(entries)), label="function")]
    names = data.draw(
        st.sets(st.sampled_from(sorted(entry.good)), min_size=1, max_size=2)
        if entry.good
        else st.just(set()),
        label="arguments",
    )
    indices = {name: data.draw(st.integers(0, len(ANY) - 1)) for name in sorted(names)}
    changes = {name: ANY[index] for name, index in indices.items()}
    data.draw(st.just(repr(changes)[:200]), label="values")
    return entry, changes


@settings(
    max_examples=300,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_argument_is_used_or_refused(entries: dict[str, Entry], data: st.DataObject) -> None:
    check(*drawn(data, entries))


@pytest.mark.nightly
@pytest.mark.timeout(0)
@settings(max_examples=6_000, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_many_arguments_are_used_or_refused(entries: dict[str, Entry], data: st.DataObject) -> None:
    check(*drawn(data, entries))
