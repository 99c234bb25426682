#!/usr/bin/env bash
# diffusers 0.42: add_noise in half precision adds no noise at the ends of the schedule, and says nothing.
#
# DDPM and DDIM round alphas_cumprod to the type of the samples first. In bfloat16 all above 0.998 are 1, and
# what is left for the noise, the root of 1 - 1, is 0: the training asks the network for noise
# that is not there. DPM-Solver++, UniPC and DEIS square sigma in that type; in float16 it overflows above 256, which
# a cosine schedule reaches, and both parts become 0: what should be the noisiest sample is empty, so a
# refinement of a given chunk starts from zeros. Add the noise in float32 and cast afterwards.
#
# Seen, 100 levels of a cosine schedule: no noise at levels 0 and 1 in bfloat16 (0.025 and 0.042 are right); in
# 1000 levels of Stable Diffusion's schedule none at 0 and 1 either; zeros at level 99 with float16 solvers, where
# DDPM has noise of 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
)

NUMBERS = 10_000
COSINE = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}
LINEAR = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}


def noise_added(scheduler, level: int, dtype: torch.dtype) -> float:
    """Deviation of samples that are all 0 without it."""
    noise = torch.randn(1, NUMBERS, generator=torch.Generator().manual_seed(0))
    clean = torch.zeros(1, NUMBERS, dtype=dtype)
    noisy = scheduler.add_noise(clean, noise.to(dtype), torch.tensor([level]))
    return round(noisy.float().std().item(), 3)


for kind in (DDPMScheduler, DDIMScheduler):
    for schedule in (COSINE, LINEAR):
        scheduler = kind(**schedule)
        added = {
            dtype: [noise_added(scheduler, level, dtype) for level in (0, 1, 10)]
            for dtype in (torch.float32, torch.bfloat16)
        }
        print(f"{kind.__name__}, {schedule['beta_schedule']}, levels 0, 1, 10: {added}")
        assert min(added[torch.float32]) > 0.02
        assert added[torch.bfloat16][:2] == [0, 0] and added[torch.bfloat16][2] > 0.05

for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler):
    scheduler = kind(**COSINE)
    scheduler.set_timesteps(100)
    added = {
        dtype: [noise_added(scheduler, level, dtype) for level in (99, 98)]
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    }
    print(f"{kind.__name__}, levels 99, 98: {added}")
    assert added[torch.float16][0] == 0
    assert min(*added[torch.float32], *added[torch.bfloat16], added[torch.float16][1]) > 0.9
PY
