#!/usr/bin/env bash
# gym-aloha 0.1.5: a seed holds for one episode, and the pose that it starts in is no valid action.
#
# Gymnasium asks that reset(seed=3) followed by reset() be reproducible. Here every reset without a seed
# draws from a new, unseeded generator. So in a vector of environments, which reset themselves, only the
# first episodes are those of the seed. Actions are joint targets in rad, but action_space is -1 to 1: the
# start pose lies outside, and a policy or wrapper that clips to the space cannot hold the arm still.
#
# Seen: the cube of the second episode lies elsewhere each time (centimetres apart); the elbow starts at
# 1.16 rad, which clipping moves by 0.16.
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

board = gymnasium.make("gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos")


def cube():
    return board.unwrapped._env.physics.data.qpos[16:18].copy()


first, second = [], []
for _ in range(2):
    board.reset(seed=3)
    first.append(cube())
    seen, _ = board.reset()
    second.append(cube())
print("cube (x, y) after reset(seed=3):", *first)
print("and after the reset() that follows:", *second)
assert np.array_equal(*first)
assert not np.allclose(*second)

pose = seen["agent_pos"].astype(np.float32)
inside = np.clip(pose, board.action_space.low, board.action_space.high)
print(f"largest joint of the start pose {pose.max():.2f}, clipping moves it by {abs(pose - inside).max():.2f}")
assert not board.action_space.contains(pose)
PY
