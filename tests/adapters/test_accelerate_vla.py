"""`accelerate` on flow-matching heads with a cached prefix: the answers of their own Euler loops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from para_policy.adapters import accelerate
from para_policy.adapters.guard import Guard
from para_policy.adapters.preferences import Preferences
from para_policy.errors import InputError, NonFiniteError
from tests.adapters import peer_vla as peers

MAKERS: dict[str, Callable[[], Any]] = {
    "smolvla": lambda: peers.VLAPolicy(peers.SmolVLAModel(num_steps=10)),
    "eo1": lambda: peers.VLAPolicy(peers.EO1Model(num_denoise_steps=10)),
    "evo1": peers.EVO1Policy,
}


def make(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return MAKERS[kind]().eval()


@torch.no_grad()
def drive(policy: Any, seed: int = 1, batch: int = 3, chunks: int = 2, **kwargs: Any) -> Tensor:
    """(chunks, batch, CHUNK, ACTIONS), with noise from torch's global generator."""
    generator = torch.Generator().manual_seed(99)
    torch.manual_seed(seed)
    states = torch.randn(chunks, batch, 3, generator=generator)
    return torch.stack(
        [policy.select_action({"observation.state": state}, **kwargs) for state in states]
    )


def set_steps(policy: Any, steps: int) -> None:
    model = policy.model
    if isinstance(model, peers.EVO1Model):
        model.action_head.num_inference_timesteps = steps
    else:
        setattr(
            model.config,
            "num_steps" if hasattr(model.config, "num_steps") else "num_denoise_steps",
            steps,
        )


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("steps", [10, 60])
def test_same_seed_same_actions(kind: str, steps: int) -> None:
    policy = make(kind)
    set_steps(policy, steps)
    expected = drive(policy)
    after = torch.get_rng_state()
    accelerate(policy, tolerance=1e-5)
    found = drive(policy)
    assert float((found - expected).abs().max()) < 1e-4
    assert torch.equal(torch.get_rng_state(), after)
    last = policy.para_policy.last
    assert last.converged.all()
    assert int(last.rounds.max()) <= min(steps, 30)
    assert float((drive(policy, seed=2) - expected).abs().max()) > 0.1  # the noise matters


@pytest.mark.parametrize("kind", MAKERS)
def test_sequential_takes_the_steps_of_the_loop(kind: str) -> None:
    policy = make(kind)
    expected = drive(policy)
    accelerate(policy, sampler="sequential")
    assert float((drive(policy) - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", MAKERS)
def test_rows_have_the_prefix_of_their_own_sample(kind: str) -> None:
    """Padding of the prompt included, which differs between the samples."""
    policy = make(kind)
    plain = drive(policy, batch=5)
    whole = drive(accelerate(policy, tolerance=1e-6), batch=5)
    assert float((whole - plain).abs().max()) < 1e-5
    assert len({float(chunk.sum()) for chunk in whole[0]}) == 5


@pytest.mark.parametrize("kind", ["smolvla", "eo1"])
def test_cache_of_the_call_stays_as_it_was_made(kind: str) -> None:
    policy = accelerate(make(kind))
    drive(policy, chunks=1)
    (cache,) = policy.model.caches
    fresh, _ = policy.model.encode(drive_state())
    for one, other in zip(cache.layers, fresh.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    for written in policy.model.written:
        assert not written.any()


def drive_state(batch: int = 3) -> Tensor:
    """The first observation of `drive`."""
    return torch.randn(1, batch, 3, generator=torch.Generator().manual_seed(99))[0]


def test_a_call_that_fails_is_let_go_of() -> None:
    """It holds the cache of a large model."""
    policy = accelerate(make("smolvla"))
    drive(policy, chunks=1)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError):
        drive(policy, chunks=1)
    assert policy.para_policy._prepared.runtime._live.network is None


@pytest.mark.parametrize(("enabled", "debug"), [(True, False), (False, True), (True, True)])
def test_guidance_and_tracking_get_the_loop(enabled: bool, debug: bool) -> None:
    def driven(policy: Any) -> tuple[Tensor, list[float]]:
        policy.model.rtc_enabled = enabled
        policy.model.rtc_processor = peers.Tracker(debug)
        actions = drive(policy, inference_delay=2)
        return actions, policy.model.rtc_processor.times

    expected, times = driven(make("smolvla"))
    policy = accelerate(make("smolvla"))
    found, tracked = driven(policy)
    assert torch.equal(found, expected)
    assert tracked == times
    assert len(times) == (20 if debug else 0)
    assert policy.para_policy.last is None
    policy.model.rtc_enabled, policy.model.rtc_processor = False, peers.Tracker(False)
    drive(policy)
    assert policy.para_policy.last is not None


@pytest.mark.parametrize(
    "guide", [{"inference_delay": 2}, {"prev_chunk_left_over": torch.zeros(3, 2, peers.ACTIONS)}]
)
def test_guidance_of_evo1_gets_the_loop(guide: dict[str, Any]) -> None:
    policy = make("evo1")
    policy.model.rtc_processor = peers.Tracker(False)
    expected = drive(policy, **guide)
    accelerate(policy)
    assert torch.equal(drive(policy, **guide), expected)
    assert policy.para_policy.last is None
    drive(policy)  # no leftover: the first chunk
    assert policy.para_policy.last is not None


@pytest.mark.parametrize("kind", MAKERS)
def test_other_policies_of_the_process_keep_their_loop(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    loop = peers.euler_integrate

    def counted(denoise_fn: Any, noise: Tensor, num_steps: int, **options: Any) -> Tensor:
        steps.append(num_steps)
        return loop(denoise_fn, noise, num_steps, **options)

    monkeypatch.setattr(peers, "euler_integrate", counted)
    fast, other = make(kind), make(kind, seed=3)
    expected = drive(other)
    accelerate(fast)
    assert peers.euler_integrate is counted
    steps.clear()
    drive(fast)
    assert steps == []
    assert torch.equal(drive(other), expected)
    assert steps == ([] if kind == "evo1" else [10, 10])


@pytest.mark.parametrize("kind", MAKERS)
def test_undo_and_copies(kind: str) -> None:
    policy = make(kind)
    expected = drive(policy)
    accelerate(policy, tolerance=1e-5)
    copied = copy.deepcopy(policy)
    policy.para_policy.undo()
    assert torch.equal(drive(policy), expected)
    assert float((drive(copied) - expected).abs().max()) < 1e-4
    assert copied.para_policy.last is not None
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(0.5)
    assert float((drive(copied) - expected).abs().max()) > 1e-2  # its own weights
    assert torch.equal(drive(policy), expected)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_guard_proves_them(kind: str) -> None:
    """As the plug-in of LeRobot does; which way is faster, here, is of no interest."""
    policy = make(kind)
    expected = drive(policy)
    guard = Guard(policy, Preferences(tolerance=1e-5))
    found = drive(policy)
    assert torch.equal(found[0], expected[0])
    assert float((found - expected).abs().max()) < 1e-4
    assert guard.account.proof is not None
    assert guard.account.proof.right


@pytest.mark.parametrize("kind", MAKERS)
def test_steps_follow_the_policy_or_the_settings(kind: str) -> None:
    def steps() -> int:
        drive(policy, chunks=1)
        return int(policy.para_policy.last.trajectory.shape[1]) - 1

    policy = accelerate(make(kind))
    set_steps(policy, 7)
    assert steps() == 7
    accelerate(policy, steps=12)
    assert steps() == 12


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sampler": "chord"}, "cannot be calibrated"),
        ({"scheduler": "ddim"}, "Euler steps"),
        ({"steps": 0}, "steps is 0; expected 1 to"),
        ({"steps": 10**9}, "steps is 1000000000"),
        ({"steps": 2.5}, "expected an integer"),
    ],
)
def test_what_they_do_not_take(kind: str, given: dict[str, Any], told: str) -> None:
    policy = make(kind)
    with pytest.raises(InputError, match=told):
        accelerate(policy, **given)
    assert not hasattr(policy, "para_policy")


def test_a_compiled_loop_is_refused() -> None:
    policy = make("smolvla")
    policy.model.config.compile_model = True
    with pytest.raises(InputError, match="compile_model=False"):
        accelerate(policy)


def test_a_loop_of_another_release_is_refused() -> None:
    class Other(peers.SmolVLAModel):
        def sample_actions(self, *args: Any, **kwargs: Any) -> Tensor:
            return torch.zeros(1)

    class Another(peers.SmolVLAModel):
        def sample_actions(  # type: ignore[override]
            self,
            images: Any,
            img_masks: Any,
            lang_tokens: Any,
            lang_masks: Any,
            state: Any,
            noise: Any,
        ) -> Tensor:
            return peers.euler_integrate(lambda x, t: x, noise, 10)

    for model in (Other, Another):
        with pytest.raises(InputError, match="SmolVLAPolicy"):
            accelerate(peers.VLAPolicy(model(num_steps=10)))


@pytest.mark.parametrize(
    ("name", "told"), [("groot", "4 Euler steps"), ("act", "one pass"), ("pi0_fast", "tokens")]
)
def test_policies_that_have_nothing_to_gain(name: str, told: str) -> None:
    policy = type("Policy", (nn.Module,), {"name": name})()
    with pytest.raises(InputError, match=f"{name}.*{told}"):
        accelerate(policy)
