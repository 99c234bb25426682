"""A policy that fails, is too slow, or finds its memory or its checkpoint gone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn

from para_policy import DiffusionPolicy, load_policy
from para_policy.ros.policy_node import PolicyNode
from tests.ros.faults.loop import POLICY, Loop, save_policy
from tests.ros.graph import Graph


def break_network(loop: Loop, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Any]) -> None:
    """Let `fault` happen in every call of the network; what it returns takes part in the output."""
    policy = loop.network_policy()
    network = policy.runtime.network

    def broken(*arguments: Any) -> Any:
        extra = fault()
        output = network(*arguments)
        return output if extra is None else output * extra

    monkeypatch.setattr(policy.runtime, "network", broken)


def divide() -> None:
    _ = 1 / 0


def run_out_of_host_memory() -> None:
    torch.empty(2**52)  # the allocator itself refuses


def run_out_of_device_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def return_nan() -> torch.Tensor:
    return torch.tensor(torch.nan)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (divide, "ZeroDivisionError('division by zero')"),
        (run_out_of_host_memory, "DefaultCPUAllocator: "),
        (run_out_of_device_memory, "CUDA out of memory"),
        (return_nan, "holding: no chunk: "),
    ],
)
def test_a_network_that_fails_holds_the_robot_until_it_works_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Any], reason: str
) -> None:
    with monkeypatch.context() as patch:
        break_network(loop, patch, fault)
        loop.wait_for_hold(reason, DiagnosticStatus.WARN)
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


def test_overruns_in_a_row_hold_the_robot_until_a_chunk_is_in_time(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(policy={"deadline_ms": 150.0, "max_overruns": 2})
    loop.wait_for_motion()
    with monkeypatch.context() as patch:
        break_network(loop, patch, lambda: time.sleep(0.02))
        loop.wait_for_hold("holding: 2 chunks in a row took longer", DiagnosticStatus.ERROR)
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


UNFINISHED = {
    "sampler": "paradigms",
    "sampler_options": "{window: 3}",
    "tolerance": 1e-5,
    "deadline_ms": 150.0,
    "warm_start": False,
}
"""With a slow network the deadline leaves too few rounds."""


def test_a_run_of_chunks_that_do_not_converge_is_told(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(policy=UNFINISHED)
    loop.wait_for_motion()
    with monkeypatch.context() as patch:
        break_network(loop, patch, lambda: time.sleep(0.04))
        told = "active, but 3 chunks in a row did not converge: residual "
        loop.wait_for_status(told, DiagnosticStatus.WARN)
        loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


def test_a_chunk_that_is_too_wrong_holds_the_robot_until_one_is_not(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(policy={**UNFINISHED, "max_residual": 2e-5})
    loop.wait_for_motion()
    with monkeypatch.context() as patch:
        break_network(loop, patch, lambda: time.sleep(0.04))
        loop.wait_for_hold("holding: the residual of the chunk is ", DiagnosticStatus.ERROR)
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"max_error": 1.0}, "max_error is 1 and warm_start true"),
        ({"max_error": 1.0, "warm_start": False}, "sampler 'sequential' knows no error bound"),
        ({"max_residual": 0.1, "lockstep": True}, "max_residual is 0.1; in lockstep"),
        ({"rival_inputs": "magic"}, "rival_inputs is 'magic'; expected 'hold' or 'warn'"),
    ],
)
def test_limits_that_cannot_work_are_refused(
    graph: Graph, poses_checkpoint: Path, parameters: dict[str, Any], reason: str
) -> None:
    node = graph.add(PolicyNode, **{**POLICY, "checkpoint": str(poses_checkpoint), **parameters})
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert reason in node._problem


def test_chunks_that_come_too_late_are_not_played(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop()
    loop.wait_for_motion()
    with monkeypatch.context() as patch:
        break_network(loop, patch, lambda: time.sleep(0.05))  # longer than a chunk lasts
        loop.wait_for_hold("chunk refused: chunk came too late", DiagnosticStatus.WARN)
    loop.wait_for_motion()


@pytest.mark.parametrize("how", ["deleted", "replaced", "truncated"])
def test_a_checkpoint_that_changes_counts_from_the_next_configuration_on(
    make_loop: Callable[..., Loop], poses_checkpoint: Path, tmp_path: Path, how: str
) -> None:
    checkpoint = Path(shutil.copytree(poses_checkpoint, tmp_path / "policy"))
    loop = make_loop(checkpoint)
    loop.wait_for_motion()
    before = weights_of(loop)
    change(checkpoint, how)
    loop.wait_for_motion()
    assert weights_of(loop) == before
    loop.go("deactivate", "cleanup")
    outcome = loop.policy.trigger_configure()
    if how != "replaced":
        assert outcome == TransitionCallbackReturn.FAILURE
        loop.wait_for_hold("on_configure failed: ", DiagnosticStatus.ERROR)
        change(checkpoint, "replaced")
        outcome = loop.policy.trigger_configure()
    assert outcome == TransitionCallbackReturn.SUCCESS
    assert weights_of(loop) == weights_in(checkpoint) != before
    loop.go("activate")
    loop.wait_for_motion()


def weights_of(loop: Loop) -> float:
    """A number that tells two sets of weights apart."""
    return total(loop.network_policy())


def weights_in(checkpoint: Path) -> float:
    return total(load_policy(checkpoint))


def total(policy: DiffusionPolicy) -> float:
    return sum(float(weights.double().sum()) for weights in policy.network.state_dict().values())


def change(checkpoint: Path, how: str) -> None:
    if how == "truncated":
        weights = checkpoint / "model.safetensors"
        with weights.open("r+b") as file:  # the very file that the node has read
            file.truncate(weights.stat().st_size // 2)
        return
    shutil.rmtree(checkpoint, ignore_errors=True)
    if how == "replaced":
        save_policy(checkpoint, seed=1)
