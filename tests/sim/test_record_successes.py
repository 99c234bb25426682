"""Episodes in which the policy succeeded, as demonstrations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from para_policy.checkpoints.native import read_config
from para_policy.errors import DataError, InputError
from para_policy.training.dataset import Columns, read_features
from para_policy.training.demonstrations import open_demonstrations
from sim.pusht.task import PUSHT
from sim.record_successes import Arguments
from sim.tasks.demonstrations import load_episodes
from tests.checkpoint import save_tiny_checkpoint, tiny_config

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "checkpoints" / "pusht_state"
QUICK = 1_000_638
"""Its episode succeeds within 60 actions."""
CONFIG = ROOT / "config" / "training" / "pusht_state.yaml"


def arguments(output: Path, **changes: Any) -> Arguments:
    options: dict[str, Any] = {"seed": QUICK, "episodes": 1, "batch": 1, "scheduler": "ddim"}
    return Arguments(checkpoint=str(SHIPPED), output=output, **{**options, "steps": 16, **changes})


@pytest.fixture
def human(tmp_path: Path) -> Path:
    """Two demonstrations as the original project writes them."""
    random = np.random.default_rng(0)
    group = zarr.open_group(str(tmp_path / "human.zarr"), mode="w", zarr_format=2)
    for name, width in (("state", 5), ("action", 2)):
        group.create_array(f"data/{name}", data=random.uniform(50, 400, (30, width)))
    group.create_array("meta/episode_ends", data=np.array([12, 30]))
    return tmp_path / "human.zarr"


def test_what_is_written_leads_to_success_again(tmp_path: Path, human: Path) -> None:
    arguments(tmp_path / "out", config=CONFIG, data=str(human))()
    buffer = open_demonstrations(tmp_path / "out" / "demonstrations.zarr")
    assert buffer.episode_ends[:2].tolist() == [12, 30]
    config = read_config(SHIPPED)
    found = read_features(buffer, None, Columns(array="action"), config)  # as training reads it
    np.testing.assert_allclose(
        found["agent_pos"][:30], open_demonstrations(human).array("state")[:, :2], rtol=1e-6
    )
    scene = PUSHT.scene(config.inputs)
    observation, scores = scene.begin(QUICK), []
    for i in range(30, len(buffer)):
        for name in config.inputs:
            np.testing.assert_allclose(found[name][i], observation[name], atol=1e-3)
        result = scene.step(found["action"][i])
        observation = result.observation
        scores.append(result.score)
    assert PUSHT.score.success(scores[-1])
    assert not PUSHT.score.success(max(scores[:-1]))


def test_more_episodes_are_added_and_none_is_played_again(tmp_path: Path) -> None:
    arguments(tmp_path)()
    (first,) = (tmp_path / "episodes").iterdir()
    written = first.stat().st_mtime_ns
    arguments(tmp_path, episodes=2)()
    assert len(list((tmp_path / "episodes").iterdir())) == 2
    assert first.stat().st_mtime_ns == written
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == QUICK
    with pytest.raises(InputError, match=r"was begun with steps \d+, now 8: choose another output"):
        arguments(tmp_path, steps=8)()


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-100]])
def test_a_damaged_batch_is_played_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    arguments(tmp_path)()
    (batch,) = (tmp_path / "episodes").iterdir()
    played = load_episodes(batch)
    assert played
    batch.write_bytes(damage(batch.read_bytes()))
    with pytest.warns(UserWarning, match=f"'{batch}' is damaged .* is made anew"):
        arguments(tmp_path)()
    again = load_episodes(batch)
    assert again is not None
    assert again.keys() == played.keys()
    for name, values in played.items():
        np.testing.assert_array_equal(again[name], values)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff"])
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    settings = tmp_path / "settings.json"
    settings.write_bytes(content)
    with pytest.raises(InputError, match=f"'{settings}' does not say .*choose another output"):
        arguments(tmp_path)()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"episodes": 0}, "--episodes is 0; expected 1 to"),
        ({"seed": 2**32, "batch": 1}, "expected 0 to 4,294,967,295"),
        ({"seed": 2**32 - 3, "batch": 4}, "expected 0 to 4,294,967,292"),
        ({"data": "somewhere"}, "no --config"),
    ],
)
def test_wrong_options_name_what_is_possible(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        arguments(tmp_path, **wrong)()


def test_a_policy_without_success_writes_nothing(tmp_path: Path) -> None:
    tiny = save_tiny_checkpoint(tmp_path / "tiny", 4)
    assert read_config(tiny) == tiny_config(4)
    with pytest.raises(DataError, match="none of 1 episodes"):
        Arguments(checkpoint=str(tiny), output=tmp_path / "out", episodes=1, batch=1)()
    assert not (tmp_path / "out" / "demonstrations.zarr").exists()
