"""Real processes, real DDS: the whole loop against the in-process one, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import load_policy
from para_policy.errors import ParaPolicyError
from sim.ros.client import LoopClient, Played
from sim.ros.closed_loop import Arguments, LoopSettings, checked, main, start_nodes
from sim.ros.processes import RosProcesses
from sim.tasks.rollout import rollout
from tests.sim.aloha.policy import save_aloha_checkpoint

MAX_STEPS = 20
SEEDS = (100_003, 100_000)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["pusht", "aloha"])
def of_task(request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint for each task."""
    if request.param == "pusht":
        return checkpoint
    pytest.importorskip("gym_aloha")
    return save_aloha_checkpoint(tmp_path / "aloha")


@pytest.mark.usefixtures("one_thread")
def test_closed_loop_over_dds_equals_the_in_process_one(
    of_task: Path, domain_id: int, tmp_path: Path
) -> None:
    settings = LoopSettings(
        checkpoint=str(of_task), max_steps=MAX_STEPS, threads=1, domain_id=domain_id, sampler="x0"
    )
    with RosProcesses(domain_id, threads=1) as processes:
        simulator = start_nodes(processes, settings, tmp_path)
        with LoopClient(domain_id, processes.check, simulator) as client:
            client.wait_until_ready()
            played = [client.play(seed) for seed in SEEDS]
        codes = processes.stop()
        words = {name: processes.last_words(name) for name, code in codes.items() if code}
        assert codes == dict.fromkeys(("policy_node", "chunk_executor", simulator.name), 0), words

    policy = load_policy(of_task)
    for seed, over_dds in zip(SEEDS, played, strict=True):
        (direct,) = rollout(policy, [seed], sampler=settings.sampler, max_steps=MAX_STEPS)
        with np.load(over_dds.record) as record:
            np.testing.assert_array_equal(record["states"], direct.states)
            # gym-pusht adds up areas in the order of a set, which differs between runs.
            np.testing.assert_allclose(record["rewards"], direct.rewards, rtol=0, atol=1e-12)
        assert over_dds.result["max_reward"] == pytest.approx(direct.max_reward, abs=1e-12)
        chunks = [chunk for _, chunk in sorted(over_dds.chunks.items())]
        for over, within in zip(chunks, direct.chunks, strict=True):
            first = within.first_action
            np.testing.assert_array_equal(
                over.actions, within.prediction[first : first + len(over.actions)]
            )


def test_command_writes_results(checkpoint: Path, domain_id: int, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    code = main(
        [
            *("--checkpoint", str(checkpoint), "--seeds", "100001", "--sampler", "sequential"),
            *("--max-steps", "3", "--threads", "1", "--domain-id", str(domain_id)),
            *("--json", str(output), "--record", str(tmp_path / "records")),
        ]
    )
    assert code == 0
    document = json.loads(output.read_text())
    assert document["partial"] is False
    (episode,) = document["episodes"]
    assert (episode["seed"], episode["steps"], episode["rounds"]) == (100001, 3, [10])
    assert (tmp_path / "records" / "episode_100001.npz").is_file()


def test_the_sampler_may_be_left_to_the_node(checkpoint: Path) -> None:
    loop = LoopSettings(checkpoint=str(checkpoint), sampler="auto")
    assert checked(Arguments(loop, seeds="3,4"))[0] == [3, 4]


def test_episodes_before_one_that_fails_are_written(
    checkpoint: Path, domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = LoopClient.play

    def play_one(client: LoopClient, seed: int, on_progress: Any) -> Played:
        if seed != 100001:
            raise ParaPolicyError("the node is gone")
        return play(client, seed, on_progress)

    monkeypatch.setattr(LoopClient, "play", play_one)
    output = tmp_path / "out.json"
    arguments = [str(checkpoint), "--seeds", "100001,100002", "--sampler", "sequential"]
    arguments += ["--max-steps", "3", "--threads", "1", "--domain-id", str(domain_id)]
    assert main([*arguments, "--json", str(output)]) == 2
    document = json.loads(output.read_text())
    assert document["partial"] is True
    assert [episode["seed"] for episode in document["episodes"]] == [100001]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (("--seeds", "one"), "expected integers"),
        (("--seeds", "7,-1"), "start state seed -1 is out of range"),
        (("--steps", "0"), "--steps is 0; expected at least 1"),
        (("--threads", "0"), "--threads is 0; expected at least 1"),
        (("--max-steps", "0"), "--max-steps is 0; expected at least 1"),
        (("--domain-id", "-1"), "ROS domain is '-1'"),
        (("--domain-id", "233"), "ROS domain is '233'; expected 0 to 232"),
        (("--checkpoint", "/nowhere"), "no checkpoint at '/nowhere'"),
        (("--checkpoint", "nobody/nothing-at-all"), "the Hugging Face Hub does not give it"),
        (("--sampler", "magic"), "unknown sampler 'magic'"),
        (("--env", "aloha"), "AlohaTransferCube has no input 'environment_state' of shape (16,)"),
        (("--env", "kitchen"), "unknown task 'kitchen'; expected one of pusht, aloha"),
        # Only the node that loads the policy can know; its diagnostics say so.
        (("--device", "cuda:99"), "on_configure failed: device 'cuda:99' cannot be used"),
    ],
)
def test_bad_input_ends_in_one_line(
    checkpoint: Path,
    domain_id: int,
    changes: tuple[str, str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments = {"--checkpoint": str(checkpoint), "--domain-id": str(domain_id)}
    arguments |= dict([changes])
    assert main([f"{name}={value}" for name, value in arguments.items()]) == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]
