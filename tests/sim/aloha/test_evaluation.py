"""The Aloha task behind the same evaluation as PushT, with a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from rich.console import Console

from sim.aloha.env import ACTION_NAMES, Aloha, start_cube
from sim.aloha.expert import Expert
from sim.aloha.task import ALOHA, AlohaTask
from sim.evaluate import Evaluate
from sim.evaluation import run, tables
from sim.tasks.episode import Episode
from sim.tasks.live import LiveEpisode
from tests.sim.aloha.policy import save_aloha_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_aloha_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_an_evaluation(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AlohaTask, "max_steps", 24)
    args = Evaluate(
        checkpoint=checkpoint,
        json=tmp_path / "out.json",
        samplers="sequential,x0+guess",
        episodes=2,
        latency_chunks=0,
        check_errors=True,
        report=tmp_path / "out.html",
        video=tmp_path / "videos",
    )
    run.evaluate(args, Console(quiet=True))
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["task"] == "aloha"
    assert {"gym-aloha", "mujoco"} <= set(document["versions"])
    for result in document["samplers"].values():
        assert result["success_rate"] == result["mean_final_reward"] == 0.0
        assert [len(episode["rounds"]) for episode in result["per_episode"]] == [3, 3]
        assert result["per_episode"][1]["start_state"] == start_cube(100001).tolist()
        assert result["seams"]["velocity_jump_rad_per_s"]["seam"]["mean"] > 0
    assert document["samplers"]["x0+guess"]["max_abs_error"]["max"] < 0.1
    assert "Final reward" in tables.result_columns(document)
    page = (tmp_path / "out.html").read_text()
    assert "AlohaTransferCube evaluation" in page
    assert "gym-aloha" in page
    (film, *_) = sorted((tmp_path / "videos").glob("aloha_100000_sequential.mp4"))
    reader = imageio_ffmpeg.read_frames(str(film))
    assert next(reader)["fps"] == ALOHA.frames_per_s
    assert len(list(reader)) == 13 + ALOHA.frames_per_s


def test_success_is_gym_alohas_and_ends_the_episode(scene: Aloha) -> None:
    """The expert's actions, through the record that a policy's episodes have."""
    live = LiveEpisode(ALOHA, {"agent_pos": (14,)})
    live.begin(1)
    scene.begin(1)
    expert = Expert(scene)
    while not live.done:
        action = expert.action(scene)
        scene.step(action)
        live.step(action)
    result = live.result()
    assert result["success"]
    assert result["max_reward"] == 1.0
    assert result["final_reward"] == 4.0
    assert max(live.scores[:-1]) < 4
    assert result["steps"] < ALOHA.max_steps
    record = Episode(ALOHA, 1, np.stack(live.states), np.array(live.scores), (), np.zeros((16, 14)))
    again = Episode.reader(ALOHA)(json.loads(json.dumps(record.to_json())))
    assert again.outcome() == record.outcome()
    assert record.states.shape == (record.steps + 1, 23)
    assert len(ACTION_NAMES) == ALOHA.action_dim
