"""Windows follow the original project's padding rules; keypoints follow the simulator's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gym_pusht.envs.pusht as pusht
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from para_policy.errors import DataError
from para_policy.networks.config import UnetConfig, VisionConfig
from para_policy.policies.config import PolicyConfig
from para_policy.training.dataset import (
    ChunkDataset,
    Columns,
    Images,
    RigidPoints,
    content_sha256,
    observation_windows,
    read_features,
    window_starts,
)
from para_policy.training.replay_buffer import ReplayBuffer
from tests.checkpoint import tiny_config
from tests.training.demonstrations import REPOSITORY, real_demonstrations, write_group


def naive_windows(
    episode_ends: list[int], episodes: list[int], horizon: int, before: int, after: int
) -> list[list[int]]:
    """Step indices of every window, by the rules of the original sequence sampler.

    A window starts at most `before` steps before its episode and ends at most `after` steps
    behind it; what lies outside is the first or the last step of the episode, repeated.
    """
    windows = []
    for episode in episodes:
        begin = 0 if episode == 0 else episode_ends[episode - 1]
        length = episode_ends[episode] - begin
        for start in range(-before, length - horizon + after + 1):
            inside = [start + k for k in range(horizon) if 0 <= start + k < length]
            window = [inside[0]] * -min(start, 0) + inside
            window += [inside[-1]] * (horizon - len(window))
            windows.append([begin + step for step in window])
    return windows


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[int], list[int], PolicyConfig]:
    lengths = draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    episodes = draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))
    horizon = draw(st.sampled_from([4, 8, 16]))
    observed = draw(st.integers(1, min(3, horizon)))
    config = PolicyConfig(
        inputs={"x": (1,)},
        action_names=("a",),
        n_obs_steps=observed,
        horizon=horizon,
        n_action_steps=draw(st.integers(1, horizon - observed + 1)),
        network=UnetConfig(down_dims=(8, 16)),
        noise_scheduler={"_class_name": "DDPMScheduler"},
    )
    return np.cumsum(lengths).tolist(), sorted(episodes), config


def dataset(ends: list[int], episodes: list[int], config: PolicyConfig) -> ChunkDataset:
    """Every feature is the number of its step, so that a window tells where it came from."""
    number = torch.arange(ends[-1], dtype=torch.float32)[:, None]
    features = {"observation": number, "action": number + 0.5}
    return ChunkDataset(features, np.array(ends), np.array(episodes), config)


@settings(max_examples=80, deadline=None)
@given(cuts())
def test_windows_are_those_of_the_original_sampler(
    case: tuple[list[int], list[int], PolicyConfig],
) -> None:
    ends, episodes, config = case
    before, after = config.n_obs_steps - 1, config.n_action_steps - 1
    expected = naive_windows(ends, episodes, config.horizon, before, after)
    data = dataset(ends, episodes, config)
    assert len(data) == len(expected)
    batch = data.batch(torch.arange(len(data)))
    assert (batch["action"][..., 0] - 0.5).tolist() == expected
    assert batch["observation"][..., 0].tolist() == [w[: config.n_obs_steps] for w in expected]


def test_one_item_is_a_row_of_the_batch() -> None:
    data = dataset([20, 50], [0, 1], tiny_config())
    batch = data.batch(torch.tensor([3, 7]))
    assert batch["observation"].shape == (2, 2, 1)
    assert batch["action"].shape == (2, 16, 1)
    for key in batch:
        assert torch.equal(data[7][key], batch[key][1])


def test_pusht_windows_are_as_many_as_the_original_counts() -> None:
    """To = 2, Tp = 16, Ta = 8: an episode of L steps gives L - 7 windows."""
    assert len(window_starts(np.array([100, 49]), 16, 1, 7)) == (100 - 7) + (49 - 7)
    assert window_starts(np.array([3]), 16, 1, 7).shape == (0, 2)


STATE = Columns(array="state", columns=(0, 1))
ACTION = Columns(array="action")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 40), st.integers(1, 3))
def test_observations_are_windows_of_one_episode_that_end_now(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], count: int, observed: int
) -> None:
    """Every feature is the number of its step, from 1; before a first step is that step again."""
    ends = np.cumsum(lengths)
    number = np.arange(1, ends[-1] + 1, dtype=np.float32)
    arrays = {"state": np.stack([number, -number], axis=1), "action": np.ones((ends[-1], 2))}
    group = write_group(tmp_path_factory.mktemp("numbers") / "data.zarr", arrays, ends)
    config = policy_config(agent_pos=(2,)).model_copy(update={"n_obs_steps": observed})
    windows = observation_windows(ReplayBuffer(group), {"agent_pos": STATE}, ACTION, config, count)
    found = windows["agent_pos"]
    assert list(windows) == ["agent_pos"]
    assert found.shape[1:] == (observed, 2)
    assert np.array_equal(found[..., 1], -found[..., 0])
    steps = found[..., 0].astype(int) - 1
    now = steps[:, -1]
    assert len(now) == min(count, ends[-1])
    assert (np.diff(now) > 0).all()
    if count > 1:
        assert (now[0], now[-1]) == (0, ends[-1] - 1)
    for window in steps:
        begin = max(end for end in (0, *ends) if end <= window[-1])
        past = range(window[-1] - observed + 1, window[-1] + 1)
        assert window.tolist() == [max(step, begin) for step in past]


def test_observations_keep_the_shape_of_an_input(zarr_path: Path) -> None:
    config = policy_config(agent_pos=(1, 2))
    windows = observation_windows(ReplayBuffer(zarr_path), {"agent_pos": STATE}, ACTION, config, 7)
    assert windows["agent_pos"].shape == (7, 2, 1, 2)
    with pytest.raises(DataError, match=r"describes.*agent_pos"):
        observation_windows(ReplayBuffer(zarr_path), {}, ACTION, config, 7)


def policy_config(**inputs: tuple[int, ...]) -> PolicyConfig:
    return tiny_config().model_copy(update={"inputs": inputs})


def test_columns_are_picked_and_flattened(zarr_path: Path) -> None:
    buffer = ReplayBuffer(zarr_path)
    picked = Columns(array="state", columns=(4, 0)).read(buffer)
    np.testing.assert_array_equal(picked, buffer.array("state")[:, [4, 0]])
    assert picked.dtype == np.float32


def test_features_are_read_in_the_policys_order(zarr_path: Path) -> None:
    config = policy_config(agent_pos=(2,))
    features = read_features(ReplayBuffer(zarr_path), {"agent_pos": STATE}, ACTION, config)
    assert {name: values.shape for name, values in features.items()} == {
        "agent_pos": (95, 2),
        "action": (95, 2),
    }


@pytest.mark.parametrize(
    ("observations", "action", "inputs", "message"),
    [
        ({}, ACTION, {"agent_pos": (2,)}, "describes.*agent_pos"),
        ({"agent": STATE}, ACTION, {"agent_pos": (2,)}, "agent.*agent_pos"),
        ({"agent_pos": STATE}, ACTION, {"agent_pos": (3,)}, "agent_pos has 2 columns.*3"),
        ({"agent_pos": STATE}, Columns(array="state"), {"agent_pos": (2,)}, "action has 5.*2"),
        ({"agent_pos": Columns(array="img")}, ACTION, {"agent_pos": (2,)}, "no data/img"),
        (
            {"agent_pos": Columns(array="state", columns=(0, 5))},
            ACTION,
            {"agent_pos": (2,)},
            "state has 5 columns",
        ),
    ],
)
def test_features_that_do_not_fit_the_policy_are_refused(
    zarr_path: Path, observations: Any, action: Any, inputs: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_features(ReplayBuffer(zarr_path), observations, action, policy_config(**inputs))


@pytest.mark.parametrize("columns", [(), (-1, 0)])
def test_columns_that_do_not_exist_are_refused(zarr_path: Path, columns: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="columns"):
        Columns(array="state", columns=columns).read(ReplayBuffer(zarr_path))


def shipped_points() -> RigidPoints:
    content = yaml.safe_load((REPOSITORY / "config" / "training" / "pusht_state.yaml").read_text())
    return RigidPoints.model_validate(content["data"]["observations"]["environment_state"])


def simulator_keypoints(poses: np.ndarray) -> np.ndarray:
    """What gym-pusht itself reports for a block at these poses, (n, 16)."""
    block, shapes = pusht.PushTEnv.add_tee(pusht.pymunk.Space(), (0, 0), 0)
    rows = []
    for x, y, angle in poses:
        block.angle = float(angle)
        block.position = (float(x), float(y))  # last: turning moves a block off its position
        rows.append(pusht.PushTEnv.get_keypoints(shapes).flatten())
    return np.array(rows)


@settings(max_examples=50, deadline=None)
@given(st.floats(50, 450), st.floats(50, 450), st.floats(-7, 7))
def test_the_shipped_keypoints_are_the_simulators_in_its_order(
    x: float, y: float, angle: float
) -> None:
    """Another order trains without any error, and the policy fails in the simulator."""
    pose = np.array([[x, y, angle]])
    expected = simulator_keypoints(pose)
    np.testing.assert_allclose(shipped_points().transform(pose), expected, atol=1e-9)


def test_recorded_states_give_the_simulators_keypoints() -> None:
    buffer = ReplayBuffer(real_demonstrations())
    points = shipped_points().read(buffer)[::97]
    poses = buffer.array("state")[::97, 2:5].astype(np.float64)
    np.testing.assert_allclose(points, simulator_keypoints(poses), atol=1e-3)


def test_the_environment_observes_the_same_keypoints() -> None:
    """Through a reset: the environment turns the block about its centre of mass, then steps."""
    environment = pusht.PushTEnv(obs_type="environment_state_agent_pos")
    state = np.array([100.0, 120.0, 300.0, 250.0, 0.7])
    observation, _ = environment.reset(options={"reset_to_state": state})
    block = environment.block
    pose = np.array([[*block.position, block.angle]])
    expected = np.asarray(observation["environment_state"])[None]
    np.testing.assert_allclose(shipped_points().transform(pose), expected, atol=1e-4)


def numbered_frames(count: int, dtype: Any = np.uint8) -> np.ndarray:
    """Frames (count, 4, 6, 3) that show the number of their step and where each pixel is."""
    frames = np.zeros((count, 4, 6, 3), dtype)
    frames[..., 0] = np.arange(count)[:, None, None]
    frames[..., 1] = 10 * np.arange(4)[:, None]
    frames[..., 2] = np.arange(6)
    return frames


def image_config() -> PolicyConfig:
    return PolicyConfig(
        inputs={"image": (3, 4, 6), "agent_pos": (2,)},
        vision=VisionConfig(cameras=("image",)),
        action_names=("x", "y"),
        network=UnetConfig(down_dims=(8, 16, 16)),
        noise_scheduler={"_class_name": "DDPMScheduler"},
    )


def image_buffer(path: Path, frames: np.ndarray, ends: list[int]) -> ReplayBuffer:
    number = np.arange(len(frames), dtype=np.float32)
    arrays = {
        "img": frames,
        "state": np.stack([number, number], axis=1),
        "action": np.stack([number, -number], axis=1),
    }
    return ReplayBuffer(write_group(path / "images.zarr", arrays, np.array(ends)))


IMAGE_FEATURES = {"image": Images(image="img"), "agent_pos": STATE}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image_windows_line_up_with_actions(tmp_path: Path, dtype: Any) -> None:
    """The original project stores frames as float32, with the same numbers."""
    ends, config = [20, 45], image_config()
    buffer = image_buffer(tmp_path, numbered_frames(45, dtype), ends)
    features = read_features(buffer, IMAGE_FEATURES, ACTION, config)
    tensors = {name: torch.from_numpy(values) for name, values in features.items()}
    data = ChunkDataset(tensors, np.array(ends), np.array([0, 1]), config)
    batch = data.batch(torch.arange(len(data)))
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (len(data), 2, 3, 4, 6)
    assert len(data) == 13 + 18
    steps = batch["action"][:, :2, 0]  # the first actions belong to the observations
    assert torch.equal(batch["image"][:, :, 0], steps[:, :, None, None].expand(-1, -1, 4, 6).byte())
    assert torch.equal(batch["agent_pos"][..., 0], steps)
    assert batch["image"][0, 0, 1, :, 0].tolist() == [0, 10, 20, 30]  # rows from above
    assert batch["image"][0, 0, 2, 0].tolist() == list(range(6))
    assert batch["image"][[0, 13], :, 0, 0, 0].tolist() == [[0, 0], [20, 20]]


def test_frames_are_not_copied(tmp_path: Path) -> None:
    """A data set of real size takes 700 MB."""
    buffer = image_buffer(tmp_path, numbered_frames(20), [20])
    frames = Images(image="img").read(buffer)
    assert frames.base is not None
    assert frames.strides == (4 * 6 * 3, 1, 6 * 3, 3)


def test_observed_images_are_bytes_with_channels_first(tmp_path: Path) -> None:
    buffer = image_buffer(tmp_path, numbered_frames(20), [12, 20])
    windows = observation_windows(buffer, IMAGE_FEATURES, ACTION, image_config(), 20)
    assert windows["image"].shape == (20, 2, 3, 4, 6)
    assert windows["image"].dtype == np.uint8
    np.testing.assert_array_equal(windows["image"][:, :, 0, 0, 0], windows["agent_pos"][..., 0])


@pytest.mark.parametrize(
    ("frames", "observations", "message"),
    [
        (numbered_frames(20)[..., 0], {}, r"img has shape \(20, 4, 6\)"),
        (numbered_frames(20)[..., :2], {}, r"img has shape \(20, 4, 6, 2\)"),
        (numbered_frames(20) / 255, {}, "float64 from 0 to .*whole numbers"),
        (numbered_frames(20) - np.float32(1), {}, "float32 from -1 to .*whole numbers"),
        (np.full((20, 4, 6, 3), np.nan), {}, "whole numbers"),
        (numbered_frames(20)[:, :3], {}, r"image is \(3, 3, 6\).*\(3, 4, 6\)"),
        (numbered_frames(20), {"image": STATE}, r"\[\] as images.*\['image'\]"),
        (numbered_frames(20), {"agent_pos": Images(image="img")}, "'agent_pos', 'image'.*images"),
        (numbered_frames(20), {"image": Images(image="photo")}, "no data/photo"),
    ],
)
def test_frames_that_do_not_fit_the_policy_are_refused(
    tmp_path: Path, frames: np.ndarray, observations: Any, message: str
) -> None:
    buffer = image_buffer(tmp_path, frames, [20])
    with pytest.raises(DataError, match=message):
        read_features(buffer, {**IMAGE_FEATURES, **observations}, ACTION, image_config())


def test_the_content_of_demonstrations_is_their_numbers_and_the_size_of_their_frames() -> None:
    features = {"action": np.ones((6, 2), np.float32), "eye": np.zeros((6, 3, 4, 4), np.uint8)}
    ends = np.array([2, 6])

    def content(ends: np.ndarray = ends, **changes: np.ndarray) -> str:
        return content_sha256({**features, **changes}, ends, ["eye"])

    moved = features["action"].copy()
    moved[5, 1] += 1e-6
    others = [
        content(np.array([3, 6])),
        content(action=moved),
        content(action=np.ones((4, 3), np.float32)),
        content(eye=features["eye"][..., :2]),
        content(state=features["action"]),
    ]
    assert len({content(), *others}) == 6
    assert content(eye=features["eye"] + 1) == content()
