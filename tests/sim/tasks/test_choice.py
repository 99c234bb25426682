"""Which task a checkpoint plays follows from what it observes and how it acts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from para_policy.errors import InputError
from para_policy.policies.config import PolicyConfig
from para_policy.training.config import TrainConfig
from sim.tasks.choice import TASKS, task_in, task_named, task_of

ROOT = Path(__file__).parents[3]


def shipped(name: str) -> PolicyConfig:
    return TrainConfig.from_yaml(ROOT / "config" / "training" / f"{name}.yaml").policy


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ("pusht_state", "pusht"),
        ("pusht_image", "pusht"),
        ("pusht_flow", "pusht"),
        ("aloha_state", "aloha"),
    ],
)
def test_the_checkpoint_says_what_is_played(config: str, task: str) -> None:
    policy = shipped(config)
    assert task_of(policy).name == task_of(policy, task).name == task
    other = next(name for name in TASKS if name != task)
    with pytest.raises(InputError, match=r"has no input '(agent_pos|environment_state)'"):
        task_of(policy, other)


def test_what_fits_no_task_is_told_why() -> None:
    policy = shipped("aloha_state").changed({"control_hz": 10.0})
    with pytest.raises(InputError, match=r"pusht: PushT has no input .*; aloha: .*10\.0 Hz"):
        task_of(policy)


def test_unknown_task() -> None:
    with pytest.raises(InputError, match="'chess'; expected one of pusht, aloha"):
        task_named("chess")


def test_results_from_before_there_was_a_choice_are_pusht() -> None:
    assert task_in({}).name == "pusht"
    assert task_in({"task": "aloha"}).name == "aloha"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_from_another_process_is_the_same(name: str) -> None:
    task = TASKS[name]
    assert pickle.loads(pickle.dumps(task)) == task
    assert len(set(TASKS.values())) == len(TASKS)
