#!/usr/bin/env bash
# diffusers 0.42: EMAModel(decay=0.999, use_ema_warmup=False) warms up all the same, for 9,000 updates.
#
# The flag chooses between two ramps. Without it the decay of update n is n / (n + 9), and the one
# that was asked for is reached when that is larger: 0.92 after 100 updates, 0.991 after 1,000. Fine-tunings
# that are shorter, of a LoRA or a consistency model, average over a tenth of the run, however large the decay;
# a paper's "EMA 0.999, no warm-up" needs min_decay=0.999.
#
# Seen: decay 0.917 at update 100, 0.991 at 1,000, 0.9989 at 8,000, 0.999 from 8,992 on; with min_decay=0.999 always, but at the
# first update, which is 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
from diffusers.training_utils import EMAModel

AT = (1, 100, 1000, 8000, 8992, 9100)


def decays(**options: float) -> dict[int, float]:
    weight = torch.nn.Parameter(torch.zeros(1))
    average = EMAModel([weight], decay=0.999, use_ema_warmup=False, **options)
    found = {}
    for update in range(1, max(AT) + 1):
        average.step([weight])
        if update in AT:
            found[update] = round(average.cur_decay_value, 6)
    return found


plain, least = decays(), decays(min_decay=0.999)
print(f"decay at update: {plain}; with min_decay=0.999: {least}")
assert plain[100] < 0.92 and plain[1000] < 0.992 and plain[8000] < 0.999 == plain[8992]
assert least == {update: 0.0 if update == 1 else 0.999 for update in AT}
PY
