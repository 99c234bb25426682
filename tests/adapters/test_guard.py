"""`guard`: policies of other projects that accelerate by themselves, or stay as they are."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from para_policy.adapters.account import finish
from para_policy.adapters.guard import guard
from para_policy.adapters.patch import accelerate
from para_policy.adapters.preferences import VARIABLE
from tests.adapters import peer_policies as peers


class Clock:
    """Time that only networks take, so that no busy machine decides what is faster."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


class SlowUnet(peers.Unet):
    """Each call takes as long, whatever its number of rows."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        CLOCK.now += 1e-3
        return super().forward(*args, **kwargs)


class SlowModel(peers.LeRobotModel):
    def __init__(self, noise_scheduler: Any) -> None:
        super().__init__(noise_scheduler)
        self.unet = SlowUnet(peers.HISTORY * peers.OBSERVED)


@pytest.fixture(autouse=True)
def _begin(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("para_policy.adapters.proof.perf_counter", CLOCK)
    caplog.set_level(logging.INFO, logger="para_policy")


def make(model: type[peers.LeRobotModel] = SlowModel) -> Any:
    torch.manual_seed(0)
    return peers.LeRobotPolicy(model=model).eval()


def drive(policy: Any, chunks: int = 3, batch: int = 2) -> Tensor:
    """All actions of an episode: (chunks, batch, ...), with noise from torch's global generator."""
    generator = torch.Generator().manual_seed(99)
    torch.manual_seed(1)
    policy.reset()
    observed = torch.randn(chunks * peers.EXECUTED, batch, peers.OBSERVED, generator=generator)
    return torch.stack([policy.select_action({"observation.state": one}) for one in observed])


def test_the_first_chunk_is_the_same_and_later_ones_within_tolerance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = make()
    expected, state = drive(policy), torch.get_rng_state()
    account = guard(policy)
    assert account is not None
    found = drive(policy)
    assert torch.equal(found[: peers.EXECUTED], expected[: peers.EXECUTED])
    assert 0 < float((found - expected).abs().max()) < 3e-2
    assert torch.equal(torch.get_rng_state(), state)
    assert account.proof is not None
    assert account.proof.refusal == account.refusal == ""
    later = account.later
    assert (later.chunks, later.samples, later.converged) == (2, 4, 4)
    assert account.saved_s == pytest.approx(2 * account.proof.before_s - later.seconds)
    assert "LeRobotPolicy is accelerated: " in caplog.text
    assert "for 40 steps" in caplog.text


def test_it_waits_for_evaluation_mode() -> None:
    policy = make().train()
    guard(policy)
    drive(policy)
    assert not hasattr(policy, "para_policy")
    drive(policy.eval())
    assert hasattr(policy, "para_policy")
    before = policy.para_policy.last
    drive(policy.train())
    assert policy.para_policy.last is before


class WrongUnet(SlowUnet):
    """The rows of a batch depend on one another."""

    def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(sample, *args, **kwargs) + sample.mean(dim=0) * (len(sample) > 2)


class FailingUnet(SlowUnet):
    def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(sample) > 2:
            raise RuntimeError("no memory for so many rows")
        return super().forward(sample, *args, **kwargs)


class SerialUnet(peers.Unet):
    """Rows one after the other, so that a batch gains nothing."""

    def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        CLOCK.now += 1e-3 * len(sample)
        return super().forward(sample, *args, **kwargs)


@pytest.mark.parametrize(
    ("unet", "reason"),
    [
        (WrongUnet, "its answer differs by"),
        (FailingUnet, "it failed: RuntimeError: no memory for so many rows"),
        (SerialUnet, "it is not faster"),
    ],
)
def test_what_is_wrong_or_slower_stays_as_it_was(
    unet: type[peers.Unet], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = make()
    policy.diffusion.unet = unet(peers.HISTORY * peers.OBSERVED)
    expected, attributes = drive(policy), set(vars(policy.diffusion))
    account = guard(policy)
    assert torch.equal(drive(policy), expected)
    assert set(vars(policy.diffusion)) == attributes
    assert not hasattr(policy, "para_policy")
    assert account is not None
    assert account.refusal.startswith(reason)
    assert f"is left as it was: {reason}" in caplog.text
    assert account.as_json()["accelerated"] is False


def test_a_later_fault_ends_it_and_the_chunk_is_that_of_the_loop() -> None:
    """NaN where only the solver's guesses come."""
    policy = make()
    expected = drive(policy, chunks=4)
    account = guard(policy)
    assert account is not None

    class Broken(SlowUnet):
        def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            answer = super().forward(sample, *args, **kwargs)
            return answer / (0.0 if account.later.chunks == 1 and len(sample) > 2 else 1.0)

    policy.diffusion.unet.__class__ = Broken
    found = drive(policy, chunks=4)
    assert torch.equal(found[2 * peers.EXECUTED :], expected[2 * peers.EXECUTED :])
    assert account.refusal.endswith("check its weights and inputs")
    assert account.later.chunks == 1


@pytest.mark.parametrize("chunk", [0, 1])
def test_what_the_loop_cannot_answer_either_ends_nothing(chunk: int) -> None:
    """One observation with NaN, in the first call or a later one."""
    policy = make()

    def chunks() -> list[Tensor]:
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(99)
        shape = (1, peers.HISTORY * peers.OBSERVED)
        observed = [torch.randn(shape, generator=generator) for _ in range(4)]
        observed[chunk] = observed[chunk] * torch.nan
        return [policy.diffusion.conditional_sample(1, global_cond=one) for one in observed]

    expected = chunks()
    account = guard(policy)
    assert account is not None
    found = chunks()
    assert [one.isfinite().all() for one in found] == [i != chunk for i in range(4)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-2, equal_nan=True)
    assert account.refusal == ""
    assert account.later.chunks == 2
    assert hasattr(policy, "para_policy")


def test_an_error_of_the_policy_is_its_own_and_the_next_call_is_the_first() -> None:
    policy = make()
    guard(policy)
    with pytest.raises(RuntimeError):
        policy.diffusion.conditional_sample(1, global_cond=torch.zeros(1, 99))
    drive(policy)
    assert hasattr(policy, "para_policy")


@pytest.mark.parametrize("unet", [SlowUnet, FailingUnet])
def test_what_others_put_around_the_sampling_method_stays(unet: type[peers.Unet]) -> None:
    policy = make()
    policy.diffusion.unet = unet(peers.HISTORY * peers.OBSERVED)
    guard(policy)
    inner, calls = policy.diffusion.conditional_sample, []

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(inner(*args, **kwargs))
        return calls[-1]

    policy.diffusion.conditional_sample = counting
    drive(policy)
    assert len(calls) == 3
    assert hasattr(policy, "para_policy") is (unet is SlowUnet)
    assert policy.diffusion.conditional_sample is counting


def test_its_user_may_accelerate_it_in_code(caplog: pytest.LogCaptureFixture) -> None:
    policy = make()
    expected = drive(policy)
    account = guard(policy)
    assert account is not None
    accelerate(policy, tolerance=1e-6)
    assert float((drive(policy) - expected).abs().max()) < 1e-4
    assert account.proof is None
    policy.diffusion.conditional_sample.__self__.original(1, torch.zeros(1, 6))
    assert account.refusal == "it is accelerated by code of its user"
    policy.para_policy.undo()
    assert torch.equal(drive(policy), expected)


def test_a_user_may_take_it_back_and_accelerate_anew() -> None:
    policy = make()
    expected = drive(policy)
    guard(policy)
    drive(policy)
    policy.para_policy.undo()
    assert torch.equal(drive(policy), expected)
    accelerate(policy, tolerance=1e-6)
    assert 0 < float((drive(policy) - expected).abs().max()) < 1e-4


def test_a_policy_is_guarded_once(caplog: pytest.LogCaptureFixture) -> None:
    policy = make()
    guard(policy)
    assert guard(policy) is None
    assert "it accelerates by itself already" in caplog.text


def test_copies_are_guarded_each_for_itself() -> None:
    policy = make()
    expected = drive(policy)
    account = guard(policy)
    copies = [copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))]
    for one in copies:
        assert 0 < float((drive(one) - expected).abs().max()) < 3e-2
        assert one.para_policy.policy is one
    assert account is not None
    assert account.proof is None


@pytest.mark.parametrize("off", ["off", "0", "no", "FALSE"])
def test_off(off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, off)
    policy = make(peers.LeRobotModel)
    before = set(vars(policy.diffusion))
    assert guard(policy) is None
    assert set(vars(policy.diffusion)) == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("samplr=chord", "PARA_POLICY: samplr: Extra inputs are not permitted, got 'chord'"),
        ("sampler=chrd", "PARA_POLICY: sampler: Value error, expected one of auto, "),
        ("tolerance=0", "PARA_POLICY: tolerance: Input should be greater than 0, got '0'"),
        ("on,tolerance=1", "'on' sets nothing; expected off, or NAME=VALUE"),
    ],
)
def test_a_wrong_setting_leaves_all_as_it_is(
    setting: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, setting)
    assert guard(make(peers.LeRobotModel)) is None
    assert said in caplog.text


def test_another_policy_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    assert guard(nn.Linear(2, 2)) is None
    assert "para_policy: Linear is left as it is: cannot accelerate" in caplog.text


def test_the_environment_comes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "para_policy.json").write_text('{"sampler": "parataa", "tolerance": 1e-4}')
    monkeypatch.setenv(VARIABLE, "sampler=x0")
    policy = make()
    expected = drive(policy)
    guard(policy, tmp_path)
    assert float((drive(policy) - expected).abs().max()) < 3e-4
    assert "'x0'" in repr(policy.para_policy)


def test_a_calibration_beside_the_weights_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make()
    observations = [{"observation.state": torch.randn(1, peers.OBSERVED)} for _ in range(48)]
    accelerate(policy, "chord", observations=observations, calibration=tmp_path)
    policy.para_policy.undo()
    monkeypatch.setenv(VARIABLE, "sampler=chord")
    guard(policy, tmp_path)
    drive(policy)
    assert policy.para_policy.calibration is not None
    guard(other := make(), None)
    with pytest.warns(UserWarning, match="chord is not calibrated"):
        drive(other)


def test_the_record_tells_what_the_figures_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "record.json"
    monkeypatch.setenv(VARIABLE, f"tolerance=1e-3,record={path}")
    policy, other = make(), make(peers.LeRobotModel)
    other.diffusion.unet = FailingUnet(peers.HISTORY * peers.OBSERVED)
    accounts = [guard(policy), guard(other)]
    drive(policy)
    drive(other)
    finish([account for account in accounts if account is not None], ("torch", "no_such_package"))
    record = json.loads(path.read_text())
    assert record["versions"]["torch"] == version("torch")
    assert {"python", "para_policy", "diffusers", "numpy"} <= set(record["versions"])
    assert "no_such_package" not in record["versions"]
    good, bad = record["policies"]
    assert good["accelerated"]
    assert good["proof"]["error"] <= good["proof"]["allowed"] == 3e-3
    assert good["proof"]["after_s"] < good["proof"]["before_s"]
    assert (good["later"]["chunks"], good["later"]["converged"]) == (2, 4)
    facts = good["facts"]
    assert facts["dtype"] == "float32"
    assert facts["threads"] == torch.get_num_threads()
    assert len(facts["weights_sha256"]) == 64
    assert facts["preferences"]["tolerance"] == 1e-3
    assert not bad["accelerated"]
    assert bad["proof"]["error"] is None
    assert "2 chunks after the first one" in caplog.text
    assert f"the record is in {path}" in caplog.text


def test_a_record_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, f"record={tmp_path}")
    account = guard(make(peers.LeRobotModel))
    assert account is not None
    finish([account])
    assert "no record: " in caplog.text
