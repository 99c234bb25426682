"""What `accelerate` shares with `DiffusionPolicy.sample`: auto, deadlines, the last chunk, engines."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import accelerate
from para_policy.errors import InputError
from para_policy.inference.device import PLAIN_ENGINE
from para_policy.inference.runtime import Runtime
from para_policy.samplers import Status
from para_policy.samplers.deadline import LatencyTable
from tests.adapters import peer_policies as peers
from tests.adapters.test_accelerate import TIGHT, difference, drive, make, observations

CONDITION = torch.linspace(-1, 1, 2 * peers.HISTORY * peers.OBSERVED).reshape(2, -1)


def chunk(policy: Any, seed: int = 3, condition: Tensor = CONDITION) -> Tensor:
    """(2, horizon, action_dim) whole chunks, normalised."""
    torch.manual_seed(seed)
    with torch.no_grad():
        sampled: Tensor = policy.diffusion.conditional_sample(len(condition), global_cond=condition)
    return sampled


def test_auto_is_x0_until_something_is_calibrated(tmp_path: Path) -> None:
    policy = make("lerobot")
    expected = drive(policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accelerate(policy, "auto", calibration=tmp_path, **TIGHT)
    assert list(tmp_path.iterdir()) == []
    assert difference(drive(policy), expected) < 1e-4
    assert policy.para_policy.calibration is None
    drive(policy, chunks=12)
    accelerate(policy, "auto", calibration=tmp_path, **TIGHT)
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["ddpm_40.safetensors"]
    again = accelerate(make("lerobot"), "auto", calibration=tmp_path, **TIGHT)
    assert again.para_policy.calibration is not None


@pytest.mark.parametrize(("row_s", "sequential"), [(1e-9, False), (1.0, True)])
def test_auto_takes_what_is_fastest_here(
    monkeypatch: pytest.MonkeyPatch, row_s: float, sequential: bool
) -> None:
    """Where more rows cost as much more time, nothing is gained."""
    table = LatencyTable((1, 1000), (1.0, 1.0 + 999 * row_s))
    monkeypatch.setattr(Runtime, "measure_latency", lambda self, rows: table)
    policy = make("lerobot")
    expected = chunk(policy)
    accelerate(policy, "auto", observations=observations(policy), **TIGHT)
    assert difference(chunk(policy), expected) < 1e-4
    last = policy.para_policy.last
    assert (last.calls == last.steps) is sequential
    accelerate(policy, "auto", deadline_s=1e3)  # sequential has nothing to return before its end
    assert difference(chunk(policy), expected) < 2e-2
    assert policy.para_policy.last.calls < last.steps


def test_a_deadline_cuts_a_chunk_off() -> None:
    policy = accelerate(make("lerobot"), deadline_s=1e-9, **TIGHT)
    assert chunk(policy).isfinite().all()
    last = policy.para_policy.last
    assert last.status == (Status.DEADLINE, Status.DEADLINE)
    assert last.calls == 1
    accelerate(policy, deadline_s=60.0, **TIGHT)
    assert difference(chunk(policy), chunk(make("lerobot"))) < 1e-4
    assert policy.para_policy.last.converged.all()


@pytest.mark.parametrize("kind", ["lerobot", "original unet", "original transformer"])
def test_a_warm_start_moves_the_start_alone(kind: str) -> None:
    policy = make(kind)
    expected = drive(policy, chunks=2)
    accelerate(policy, warm_start=False, **TIGHT)
    drive(policy, chunks=2)
    cold = policy.para_policy.last
    accelerate(policy, warm_start=True, **TIGHT)
    assert difference(drive(policy, chunks=2), expected) < 1e-4
    warm = policy.para_policy.last
    assert not torch.equal(warm.residuals[0], cold.residuals[0])


def test_a_plan_that_goes_on_starts_nearer() -> None:
    policy = accelerate(make("lerobot"), tolerance=1e-3)
    first = chunk(policy)
    cold = policy.para_policy.last
    policy.para_policy.follow(0)
    assert difference(chunk(policy), first) < 1e-2
    assert policy.para_policy.last.residuals[0].max() < cold.residuals[0].max()


def test_a_warm_start_waits_for_a_batch_of_the_same_size() -> None:
    policy = accelerate(make("lerobot"), warm_start=True, **TIGHT)
    for count in (2, 1, 2):
        expected = chunk(make("lerobot"), condition=CONDITION[:count])
        assert difference(chunk(policy, condition=CONDITION[:count]), expected) < 1e-4


@pytest.mark.parametrize("overlap", ["hard", "soft"])
def test_real_time_chunking_takes_decided_actions_over(overlap: Any) -> None:
    policy = accelerate(make("lerobot"), **TIGHT)
    first = chunk(policy)
    free = chunk(policy, seed=4)
    chunk(policy)
    policy.para_policy.follow(3, frozen=2, overlap=overlap)
    after = chunk(policy, seed=4)
    decided = peers.HISTORY - 1 + 2
    assert difference(after[:, :decided], first[:, 3 : 3 + decided]) < 1e-4
    assert difference(after, free) > 1e-2
    assert difference(chunk(policy, seed=4), free) < 1e-4  # one chunk alone


def test_noise_may_be_that_of_the_last_chunk() -> None:
    policy = accelerate(make("lerobot"), **TIGHT)
    first = chunk(policy)
    policy.para_policy.follow(0, shift_noise=True)
    assert difference(chunk(policy, seed=9), first) < 1e-4


def test_what_cannot_be_followed_is_refused() -> None:
    policy = accelerate(make("lerobot"))
    with pytest.raises(InputError, match="no chunk yet"):
        policy.para_policy.follow(3)
    chunk(policy)
    policy.para_policy.follow(7, frozen=4)
    with pytest.raises(InputError, match=r"frozen is 4; .* only 0 of its actions are left"):
        chunk(policy)
    chunk(policy)
    del policy.config
    with pytest.raises(InputError, match="executed is None"):
        policy.para_policy.follow()


def test_the_summary_says_before_and_now() -> None:
    policy = accelerate(make("lerobot"))
    assert str(policy.para_policy.summary()) == "no chunks yet"
    drive(policy, chunks=3)
    last, summary = policy.para_policy.last, policy.para_policy.summary()
    assert 0 < last.seconds < summary.seconds
    assert last.steps == 40 > last.calls == int(last.rounds.max())
    assert (summary.chunks, summary.samples, summary.steps) == (3, 6, 120)
    assert summary.converged == 6
    assert summary.call_s is not None
    assert summary.seconds_before == pytest.approx(120 * summary.call_s)
    assert "3 chunks: " in str(summary)
    assert "100 % converged" in str(summary)
    accelerate(policy, tolerance=1e-3)
    assert policy.para_policy.summary().chunks == 0


@pytest.mark.parametrize("how", ["half precision", "autocast"])
def test_rounding_bounds_the_tolerance_with_one_warning(how: str) -> None:
    policy = make("lerobot")
    condition = CONDITION
    if how == "half precision":
        policy, condition = policy.bfloat16(), CONDITION.bfloat16()
    accelerate(policy, tolerance=1e-6)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
                chunk(policy, condition=condition)
    assert len(told) == 1
    assert re.search(r"tolerance is 1.0e-06; rounding .*bfloat16", str(told[0].message))
    assert policy.para_policy.last.converged.all()


def test_an_engine_gives_the_same_answer_and_follows_the_weights() -> None:
    pytest.importorskip("openvino")
    policy = make("lerobot", peers.scheduler("ddim"))
    policy.diffusion.num_inference_steps = 8
    expected = drive(policy, chunks=2)
    accelerate(policy, engine="openvino", **TIGHT)
    assert difference(drive(policy, chunks=2), expected) < 1e-3
    runtime = policy.para_policy._prepared.runtime
    assert runtime.backend == "openvino"
    with torch.no_grad():
        policy.diffusion.unet.outer.weight.mul_(0.5)
    found = drive(policy, chunks=2)
    policy.para_policy.undo()
    assert difference(found, drive(policy, chunks=2)) < 1e-3
    assert difference(found, expected) > 1e-2


def test_an_engine_that_does_not_fit_is_refused() -> None:
    policy = make("lerobot").bfloat16()
    accelerate(policy, engine="openvino")
    with pytest.raises(InputError, match="needs a policy in float32"):
        chunk(policy, condition=CONDITION.bfloat16())
    assert accelerate(policy).para_policy._settings.engine.backend == PLAIN_ENGINE


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampler": "sequential", "deadline_s": 1.0}, "deadline_s is 1.0, and sequential"),
        ({"deadline_s": -1.0}, "deadline is -1.0 s"),
        ({"deadline_s": "soon"}, "deadline is 'soon'"),
        ({"engine": "warp"}, "engine is 'warp'"),
        ({"engine": 3}, "engine is"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"precision": "bfloat16"}, "precision is bfloat16, and engine 'eager'"),
        ({"warm_start": 3}, "warm_start is"),
        ({"sampler": "auto", "order": 2}, r"sampler 'auto' has no option \['order'\]"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    policy = make("lerobot")
    with pytest.raises(InputError, match=message):
        accelerate(policy, **given)
    assert not hasattr(policy, "para_policy")
