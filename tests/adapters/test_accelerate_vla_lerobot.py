"""`accelerate` on LeRobot's real vision-language-action policies, small and with random weights.

Runs where `lerobot` and `transformers` are installed; skipped elsewhere, see test_accelerate_lerobot.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy.adapters import accelerate
from para_policy.errors import InputError
from tests.adapters import lerobot_vla as small

pytest.importorskip("lerobot.policies.common.flow_matching")
pytest.importorskip("transformers")


def chunk(policy: Any, kind: str, seed: int = 1, **options: Any) -> Tensor:
    """(batch, CHUNK, actions), with noise from torch's global generator."""
    torch.manual_seed(seed)
    found: Tensor = policy.predict_action_chunk(small.batch(kind), **options)
    return found


@pytest.mark.parametrize("kind", small.MAKERS)
@pytest.mark.parametrize("steps", [None, 50])
def test_same_seed_same_chunk(kind: str, steps: int | None) -> None:
    """With the policy's own number of steps, and with more."""
    policy = small.make(kind, **({} if steps is None else {small.STEPS[kind]: steps}))
    expected = chunk(policy, kind)
    after = torch.get_rng_state()
    accelerate(policy, sampler="sequential")
    assert float((chunk(policy, kind) - expected).abs().max()) < 1e-5
    accelerate(policy, tolerance=1e-4)
    found = chunk(policy, kind)
    assert float((found - expected).abs().max()) < 1e-3
    assert torch.equal(torch.get_rng_state(), after)
    last = policy.para_policy.last
    assert last.converged.all()
    assert int(last.rounds.max()) < (steps or (32 if kind == "evo1" else 10))
    assert float((chunk(policy, kind, seed=2) - expected).abs().max()) > 0.1
    copied = copy.deepcopy(policy)
    policy.para_policy.undo()
    assert torch.equal(chunk(policy, kind), expected)
    assert torch.equal(chunk(copied, kind), found)


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_half_precision_of_the_large_model(kind: str) -> None:
    """bfloat16, the precision that the checkpoints are published in; the loop itself is in float32."""
    policy = small.make(kind, dtype="bfloat16")
    expected = chunk(policy, kind)
    assert float((chunk(accelerate(policy), kind) - expected).abs().max()) < 3e-2


@pytest.mark.parametrize("kind", ["pi0", "smolvla", "evo1"])
@pytest.mark.parametrize("debug", [False, True])
def test_guidance_gets_the_loop(kind: str, debug: bool) -> None:
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    policy = small.make(kind)
    policy.config.rtc_config = RTCConfig(enabled=True, debug=debug)
    policy.init_rtc_processor()
    given = {
        "inference_delay": 2,
        "prev_chunk_left_over": torch.full((2, 4, 8), 0.3),
        "execution_horizon": 4,
    }
    expected = chunk(policy, kind, **given)
    accelerate(policy)
    assert torch.equal(chunk(policy, kind, **given), expected)
    assert policy.para_policy.last is None


def test_select_action_is_the_same() -> None:
    policy = small.make("smolvla")

    def drive() -> Tensor:
        torch.manual_seed(1)
        policy.reset()
        frames = [small.batch("smolvla", size=1, seed=s) for s in range(2 * small.CHUNK)]
        return torch.stack([policy.select_action(frame) for frame in frames])

    expected = drive()
    accelerate(policy, tolerance=1e-4)
    assert float((drive() - expected).abs().max()) < 1e-3


def test_compiled_policies_are_refused() -> None:
    with pytest.raises(InputError, match="compile_model=False"):
        accelerate(small.make("smolvla", compile_model=True))
