#!/usr/bin/env bash
# diffusers 0.42: arguments that a scheduler was given by position are defaults again after from_config.
#
# DDPMScheduler(100, 0.001) has 100 training steps. Its config says so, too, but counts them among the values
# that nobody chose, and from_config drops those: DDIMScheduler.from_config(scheduler.config), and even
# DDPMScheduler.from_config, has 1000 steps and the default beta_start, so other noise levels than the policy
# was trained with, without a warning. By keyword they stay, and after save_pretrained they do as well.
#
# Seen: num_train_timesteps 1000, beta_start 0.0001 from positional arguments of 100 and 0.001; 100 and 0.001
# from keywords, and from the saved file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from diffusers import DDIMScheduler, DDPMScheduler


def told(scheduler) -> tuple[int, float]:
    return scheduler.config.num_train_timesteps, scheduler.config.beta_start


positional = DDPMScheduler(100, 0.001)
named = DDPMScheduler(num_train_timesteps=100, beta_start=0.001)
positional.save_pretrained("saved")
found = {
    "itself": told(positional),
    "from_config": told(DDIMScheduler.from_config(positional.config)),
    "from_config, same class": told(DDPMScheduler.from_config(positional.config)),
    "from_config, of keywords": told(DDIMScheduler.from_config(named.config)),
    "from_pretrained": told(DDIMScheduler.from_pretrained("saved")),
}
print(found)
assert found == {
    "itself": (100, 0.001),
    "from_config": (1000, 0.0001),
    "from_config, same class": (1000, 0.0001),
    "from_config, of keywords": (100, 0.001),
    "from_pretrained": (100, 0.001),
}
PY
