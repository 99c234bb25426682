"""The plug-in on the real LeRobot: loaded policies, and `lerobot-eval`. Runs where `lerobot` is installed.

`scripts/fits_lerobot.sh` runs it in new environments of two releases.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

modeling = pytest.importorskip("lerobot.policies.diffusion.modeling_diffusion")
from lerobot.policies.factory import make_pre_post_processors  # noqa: E402
from lerobot.policies.pretrained import PreTrainedPolicy  # noqa: E402

from tests.adapters.test_accelerate_lerobot import drive, make  # noqa: E402
from tests.adapters.test_guard import Clock  # noqa: E402

ROOT = Path(__file__).parents[2]
NAME = "lerobot_policy_para_policy"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with random weights, as LeRobot saves it; its observations are those of PushT."""
    directory = tmp_path_factory.mktemp("policy")
    policy = make()
    places = {"observation.state": 2, "observation.environment_state": 16, "action": 2}
    statistics = {
        name: {"min": torch.zeros(n), "max": torch.full((n,), 512.0)} for name, n in places.items()
    }
    for part in (policy, *make_pre_post_processors(policy.config, dataset_stats=statistics)):
        part.save_pretrained(directory)
    return directory


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """As at the start of a program; other tests find LeRobot as it was."""
    monkeypatch.delenv("PARA_POLICY", raising=False)
    monkeypatch.syspath_prepend(ROOT / "lerobot_plugin")
    yield importlib.import_module(NAME)
    plugin = sys.modules.pop(NAME)
    plugin.undo()
    plugin.accounts.clear()


def load(checkpoint: Path, kind: Any = modeling.DiffusionPolicy) -> Any:
    return kind.from_pretrained(pretrained_name_or_path=checkpoint)


@torch.inference_mode()
def run(policy: Any) -> Tensor:
    return drive(policy, steps=3 * policy.config.n_action_steps)


def test_a_loaded_policy_proves_itself(
    checkpoint: Path, plugin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PARA_POLICY", "off")
        before = load(checkpoint)
    expected = run(before)
    assert plugin.accounts == []
    policy = load(checkpoint)
    clock = Clock()

    def tick(*_: Any) -> None:
        clock.now += 1e-3

    policy.diffusion.unet.register_forward_pre_hook(tick)
    monkeypatch.setattr("para_policy.adapters.proof.perf_counter", clock)
    found, first = run(policy), policy.config.n_action_steps
    (account,) = plugin.accounts
    assert account.proof.right
    assert account.proof.refusal == account.refusal == ""
    assert 0 < account.proof.after_s < account.proof.before_s == pytest.approx(0.1)
    assert account.later.chunks == 2
    assert torch.equal(found[:first], expected[:first])
    assert 0 < float((found - expected).abs().max()) < account.proof.allowed


def test_the_checkpoint_says_how(checkpoint: Path, plugin: ModuleType) -> None:
    preferences = checkpoint / "para_policy.json"
    preferences.write_text('{"sampler": "parataa", "tolerance": 0.001}')
    try:
        load(checkpoint)
    finally:
        preferences.unlink()
    (account,) = plugin.accounts
    chosen = account.facts["preferences"]
    assert (chosen["sampler"], chosen["tolerance"]) == ("parataa", 0.001)


@pytest.mark.parametrize("how", ["imported", "started"])
def test_nothing_is_changed_in_a_training(
    checkpoint: Path, plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "imported":
        monkeypatch.setitem(sys.modules, plugin.TRAINING, ModuleType("lerobot_train"))
    else:
        monkeypatch.setattr(sys, "argv", ["/somewhere/lerobot_train.py"])
    policy = load(checkpoint)
    assert plugin.accounts == []
    assert "conditional_sample" not in vars(policy.diffusion)


def test_a_class_that_overrides_loading_is_wrapped_once(
    checkpoint: Path, plugin: ModuleType
) -> None:
    class Mine(modeling.DiffusionPolicy):
        @classmethod
        def from_pretrained(cls, pretrained_name_or_path: Any, **kwargs: Any) -> Any:
            return super().from_pretrained(pretrained_name_or_path, **kwargs)

    load(checkpoint, Mine)
    assert len(plugin.accounts) == 1


def test_undo_leaves_lerobot_as_it_was(checkpoint: Path, plugin: ModuleType) -> None:
    class Mine(modeling.DiffusionPolicy):
        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            return super().from_pretrained(*args, **kwargs)

    plugin.undo()
    for kind in (modeling.DiffusionPolicy, Mine):
        assert "conditional_sample" not in vars(load(checkpoint, kind).diffusion)
    assert plugin.accounts == []
    for kind in (PreTrainedPolicy, *PreTrainedPolicy.__subclasses__(), Mine):
        for method in ("from_pretrained", "__init_subclass__"):
            own = vars(kind).get(method)
            assert own is None or own.__func__.__globals__ is not vars(plugin)


def test_lerobot_finds_it_by_its_name(plugin: ModuleType) -> None:
    try:
        assert distribution(NAME).metadata["Name"] == NAME
    except PackageNotFoundError:
        pytest.skip("the plug-in is not installed: pip install ./lerobot_plugin")
    sys.modules.pop(NAME)
    plugin.undo()
    importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    assert NAME in sys.modules


@pytest.mark.slow
def test_lerobot_eval_gives_the_same_rewards(checkpoint: Path, tmp_path: Path) -> None:
    """Vectorised environments, with an unchanged command line."""
    for needed in ("gym_pusht", "datasets"):  # by that program
        pytest.importorskip(needed)
    try:
        distribution(NAME)
    except PackageNotFoundError:
        pytest.skip("the plug-in is not installed: pip install ./lerobot_plugin")
    rewards = {}
    for setting in ("off", f"record={tmp_path / 'record.json'}"):
        subprocess.run(
            [
                *(sys.executable, "-m", "lerobot.scripts.lerobot_eval"),
                *(f"--policy.path={checkpoint}", "--env.type=pusht", "--seed=7"),
                *("--env.obs_type=environment_state_agent_pos", "--env.episode_length=24"),
                *("--eval.n_episodes=2", "--eval.batch_size=2", "--eval.use_async_envs=false"),
                f"--output_dir={tmp_path / setting[:3]}",
            ],
            env={**os.environ, "PARA_POLICY": setting, "SDL_VIDEODRIVER": "dummy"},
            check=True,
        )
        report = json.loads((tmp_path / setting[:3] / "eval_info.json").read_text())
        rewards[setting] = report["per_task"][0]["metrics"]["sum_rewards"]
    (policy,) = json.loads((tmp_path / "record.json").read_text())["policies"]
    assert policy["accelerated"]
    before, after = rewards.values()
    assert after == pytest.approx(before, abs=0.2)
