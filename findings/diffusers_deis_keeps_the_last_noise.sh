#!/usr/bin/env bash
# diffusers 0.42: DEIS with flow or Karras sigmas ends before the noise does; its last step moves nothing.
#
# DEISMultistepScheduler repeats the smallest level of noise where others, DPM-Solver++ for one, put 0.
# The last step then goes from a level to the same one: the network is asked once more, and its answer is
# not used. The sample keeps that level. With flow sigmas and 10 steps this is a tenth of pure noise,
# though the network is exact. With its default levels DEIS does end with a step, but at 0.01, not 0.
#
# Seen: levels that end in 0.1998, 0.0999, 0.0999 (DPM-Solver++: 0.1998, 0.0999, 0); last step 0.0; error
# 0.25 for noise of up to 2.5 (DPM-Solver++: 0).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler

CLEAN = torch.linspace(-1, 1, 8)
NOISE = torch.randn(8, generator=torch.Generator().manual_seed(0))


def run(kind: type, flow: bool) -> tuple[list[float], float, float]:
    """Last levels, what the last step moves, and the error, of a network that knows the answer."""
    options = (
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        if flow
        else {"use_karras_sigmas": True, "prediction_type": "sample"}
    )
    scheduler = kind(num_train_timesteps=1000, **options)
    scheduler.set_timesteps(10)
    x = NOISE * (1 if flow else scheduler.init_noise_sigma)
    for level, t in zip(scheduler.sigmas, scheduler.timesteps):
        before = x
        answer = (x - CLEAN) / level if flow else CLEAN
        x = scheduler.step(answer, t, x).prev_sample
    moved, error = (float((x - other).abs().max()) for other in (before, CLEAN))
    return [round(level, 4) for level in scheduler.sigmas[-3:].tolist()], moved, error


for flow in (True, False):
    deis, dpm = run(DEISMultistepScheduler, flow), run(DPMSolverMultistepScheduler, flow)
    print(f"{'flow' if flow else 'Karras'}: levels, last move, error: DEIS {deis}, DPM-Solver++ {dpm}")
    assert deis[0][-1] == deis[0][-2] > 0 == dpm[0][-1]
    assert deis[1] == 0 < dpm[1]
    assert deis[2] > (0.2 if flow else 0.02) and dpm[2] < 1e-5
PY
