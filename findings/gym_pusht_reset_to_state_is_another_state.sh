#!/usr/bin/env bash
# gym-pusht 0.1.8: reset(options={"reset_to_state": s}) does not give the state s.
#
# The block's position is set before its angle, which turns it about its centre of mass, not about the point
# whose position the state tells; then a step of physics runs. So a state that was read from an observation
# or a demonstration cannot be put back: the block lands up to 90 px away, as far as the angle is from 0.
# To get s, shift the position by the rotated offset of the centre of mass first, or set the bodies yourself.
#
# Seen: 0 px off at angle 0, 43 px at 1 rad, 90 px at 3 rad.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gym-pusht==0.1.8 gymnasium==1.4.0 pymunk==6.11.1 numpy==2.4.6
cd "$folder"
SDL_VIDEODRIVER=dummy "$folder/venv/bin/python" -W ignore - <<'PY'
import gym_pusht  # registers the environment
import gymnasium
import numpy as np

board = gymnasium.make("gym_pusht/PushT-v0", obs_type="state")


def distance(angle: float) -> float:
    """Of the block from where it was asked to be, in px."""
    asked = np.array([100.0, 100.0, 250.0, 300.0, angle])
    seen, _ = board.reset(seed=0, options={"reset_to_state": asked})
    assert np.allclose(seen[[0, 1, 4]], asked[[0, 1, 4]], atol=1e-3), seen
    return float(np.linalg.norm(seen[2:4] - asked[2:4]))


off = {angle: round(distance(angle), 1) for angle in (0.0, 1.0, 3.0)}
print(f"px off, by angle in rad: {off}")
assert off[0.0] < 0.1 and 40 < off[1.0] < 46 and 87 < off[3.0] < 93, off
PY
