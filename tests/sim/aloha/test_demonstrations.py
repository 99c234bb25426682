"""Demonstrations of the scripted expert, as training reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from para_policy.errors import InputError
from para_policy.training.config import TrainConfig
from para_policy.training.demonstrations import open_demonstrations
from sim.aloha import demonstrations
from sim.aloha.demonstrations import Arguments, Jolts, demonstrate
from sim.aloha.env import ACTION_NAMES, Aloha

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "training" / "lerobot" / "goldens" / "v3.0"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demonstrations") / "aloha"
    Arguments(output=output, episodes=2)()
    return output


def test_a_jolted_demonstration_recovers_and_records_the_way_back(scene: Aloha) -> None:
    offsets = Jolts().draw(0)
    assert 0.02 < np.abs(offsets).max() < 0.3
    jolted, again, calm = (demonstrate(scene, 0, o) for o in (offsets, offsets, 0 * offsets))
    assert jolted is not None
    assert again is not None
    assert calm is not None
    assert (jolted["reward"][-20:] == 4).all()
    for name in jolted:
        np.testing.assert_array_equal(jolted[name], again[name])
    # The arms are thrown off, and what is recorded is what the expert wanted.
    steps = min(len(jolted["action"]), len(calm["action"]))
    thrown = np.abs(jolted["agent_pos"][:steps] - calm["agent_pos"][:steps]).max()
    assert thrown > 0.02


def test_both_formats_hold_the_same(written: Path) -> None:
    buffer = open_demonstrations(written / "demonstrations.zarr")
    lerobot = open_demonstrations(written / "lerobot")
    assert buffer.episode_ends.tolist() == lerobot.episode_ends.tolist()
    assert len(buffer.episode_ends) == 2
    assert lerobot.control_hz == 50
    for ours, theirs in (
        ("agent_pos", "observation.state"),
        ("environment_state", "observation.environment_state"),
        ("action", "action"),
    ):
        np.testing.assert_array_equal(buffer.array(ours), lerobot.array(theirs))
    assert buffer.array("reward")[buffer.episode_ends - 1].tolist() == [[4.0], [4.0]]


def test_the_dataset_is_laid_out_as_lerobots_own(written: Path) -> None:
    """Against files that LeRobot wrote, for the features that both have."""
    ours, theirs = (
        {
            str(path.relative_to(root)): pq.read_schema(path)
            for path in sorted(root.rglob("*.parquet"))
        }
        for root in (written / "lerobot", GOLDEN)
    )
    assert list(ours) == list(theirs)
    both = {
        (file, field.name, str(field.type))
        for file, schema in ours.items()
        for field in schema
        if field.name in theirs[file].names
        and "observation" not in field.name
        and field.name != "action"  # of other widths and types there
    }
    expected = {(file, name, str(theirs[file].field(name).type)) for file, name, _ in both}
    assert both == expected
    assert len(both) > 50
    ours_info, theirs_info = (
        json.loads((root / "meta" / "info.json").read_text())
        for root in (written / "lerobot", GOLDEN)
    )
    assert set(ours_info) == set(theirs_info)
    assert ours_info["features"]["action"]["names"] == list(ACTION_NAMES)
    assert json.loads((written / "lerobot" / "meta" / "stats.json").read_text())["action"][
        "count"
    ] == [ours_info["total_frames"]]


def test_the_same_command_goes_on_where_it_was_stopped(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after an episode was lost; what is there is not played again."""
    output = tmp_path / "aloha"
    made = demonstrate
    played: list[int] = []

    def counted(scene: Aloha, seed: int, offsets: np.ndarray) -> object:
        played.append(seed)
        if len(played) == 2:
            raise KeyboardInterrupt
        return made(scene, seed, offsets)

    monkeypatch.setattr(demonstrations, "demonstrate", counted)
    with pytest.raises(KeyboardInterrupt, match="goes on"):
        Arguments(output=output, episodes=2)()
    assert not (output / "demonstrations.zarr").exists()
    Arguments(output=output, episodes=2)()
    assert played[0] not in played[1:]
    lost = output / "episodes" / f"{played[0]:010d}.npz"
    lost.write_bytes(lost.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"is damaged .* is made anew"):
        Arguments(output=output, episodes=2)()
    assert played.count(played[0]) == 2
    expected = open_demonstrations(written / "demonstrations.zarr").array("action")
    found = open_demonstrations(output / "demonstrations.zarr").array("action")
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"was begun with jolts \d+, now 1: choose another output"):
        Arguments(output=output, episodes=2, jolts=1)()


@pytest.mark.parametrize("jolts", [-1, 10**18])
def test_jolts_are_some(tmp_path: Path, jolts: int) -> None:
    with pytest.raises(InputError, match=f"--jolts is {jolts}, .*expected 0 to 400"):
        Arguments(output=tmp_path, jolts=jolts)()


def test_a_folder_of_somebody_else_stays(tmp_path: Path) -> None:
    note = tmp_path / "lerobot" / "note.txt"
    note.parent.mkdir()
    note.write_text("mine")
    with pytest.raises(InputError, match="was not written by this command"):
        Arguments(output=tmp_path, episodes=1)()
    assert note.read_text() == "mine"


def test_the_training_file_fits_the_demonstrations(written: Path) -> None:
    config = TrainConfig.from_yaml(ROOT / "config" / "training" / "aloha_state.yaml")
    buffer = open_demonstrations(written / "demonstrations.zarr")
    assert config.policy.action_names == ACTION_NAMES
    for name, shape in config.policy.inputs.items():
        assert buffer.array(name).shape == (len(buffer), *shape)
