#!/usr/bin/env bash
# diffusers 0.42: FlowMatchEulerDiscreteScheduler shifts its smallest level of noise twice.
#
# The constructor shifts the trained levels, and remembers the largest and the smallest of them.
# set_timesteps spaces levels evenly between these two, and shifts what comes out once more. Nothing
# changes at 1, but the end is nearly `shift` times as noisy as the smallest trained level: with shift
# 3 0.0089 instead of 0.003. All levels between move, too: asked for as many steps as it was trained with,
# the scheduler gives others than the trained ones. The last step is three times as long.
#
# Seen: smallest level 0.0030 trained, 0.0089 used; in the middle 0.7500 and 0.7507; without shift
# all 1000 are equal.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from diffusers import FlowMatchEulerDiscreteScheduler


def levels(shift: float) -> tuple[list[float], list[float]]:
    """Trained ones, and those of a run with as many steps."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    trained = scheduler.sigmas.tolist()
    scheduler.set_timesteps(1000)
    return trained, scheduler.sigmas.tolist()[:-1]  # without the 0 at the end


def shifted(level: float, shift: float) -> float:
    return shift * level / (1 + (shift - 1) * level)


trained, used = levels(3.0)
print(f"shift 3: smallest {trained[-1]:.4f} trained, {used[-1]:.4f} used; "
      f"in the middle {trained[500]:.4f} and {used[500]:.4f}")
assert abs(trained[-1] - shifted(1e-3, 3)) < 1e-6
assert abs(used[-1] - shifted(shifted(1e-3, 3), 3)) < 1e-6
assert abs(trained[500] - used[500]) > 5e-4

trained, used = levels(1.0)
difference = max(abs(a - b) for a, b in zip(trained, used))
print(f"without shift they differ by {difference:.0e}")
assert difference < 1e-6
PY
