#!/usr/bin/env bash
# gym-aloha 0.1.5: observation_width and observation_height change the observation space, not the images.
#
# An environment that is asked for 96 x 96 declares that and returns 480 x 640; render() keeps to its own
# two sizes. A vector of such environments cannot copy the images and raises. And every step draws three
# cameras, of which the observation holds one: two thirds of the time that goes into drawing is lost.
#
# Seen: observation (480, 640, 3), space (96, 96, 3); ValueError: Output array is the wrong shape; three
# drawings a step (top, angle, front_close).
#
# Needs a Python that MuJoCo 3.8 has wheels for (3.10 to 3.14) and EGL, or another MUJOCO_GL.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gym-aloha==0.1.5 mujoco==3.8.1 dm-control==1.0.41 gymnasium==1.4.0
cd "$folder"
MUJOCO_GL=${MUJOCO_GL:-egl} "$folder/venv/bin/python" -W ignore - <<'PY'
import gym_aloha  # registers the environments
import gymnasium
import numpy as np

name, size = "gym_aloha/AlohaTransferCube-v0", {"observation_width": 96, "observation_height": 96}
board = gymnasium.make(name, obs_type="pixels", **size)
seen, _ = board.reset(seed=0)
declared = board.observation_space["top"].shape
print(f"observation {seen['top'].shape}, space {declared}")
assert declared == (96, 96, 3) and seen["top"].shape == (480, 640, 3)

physics = board.unwrapped._env.physics
draw, cameras = physics.render, []


def counted(**of):
    cameras.append(of["camera_id"])
    return draw(**of)


physics.render = counted
board.step(np.zeros(14, np.float32))
print("drawn in one step:", ", ".join(cameras))
assert len(cameras) == 3

boards = gymnasium.make_vec(name, num_envs=2, vectorization_mode="sync", obs_type="pixels", **size)
try:
    boards.reset(seed=0)
except ValueError as error:
    print("two at once, ValueError:", error)
else:
    raise SystemExit("a vector of them resets")
PY
