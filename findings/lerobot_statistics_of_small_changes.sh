#!/usr/bin/env bash
# LeRobot 0.6.1: the deviation of an input that changes little is lost, and then divided by.
#
# Statistics of vectors are E[x^2] - E[x]^2 in float32. What is left of a true deviation of 0.035 at
# 1000 is 0 or about ten times too much, depending on the data; where it is 0, the processor divides by 1e-8,
# and the network is trained on millions. Statistics also take the type of what passes the
# processor: for an integer state they are whole numbers (a range of 0.2 ... 0.9 is then 0, and the
# answer infinite), after one in bfloat16 they are saved in bfloat16.
#
# Seen: deviations 0.035 -> 0.0 and 0.35; 1000.03 -> 3e6 after normalisation; int64 -> inf;
# state_dict in torch.bfloat16.
#
# Takes a few minutes and 6 GB on disk for the time: LeRobot brings PyTorch. Needs Python 3.12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.12 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'lerobot[dataset]==0.6.1' torch==2.11.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.datasets.compute_stats import get_feature_stats
from lerobot.processor import NormalizerProcessorStep

STATE = "observation.state"


def processor(mode: NormalizationMode, stats: dict[str, np.ndarray]) -> NormalizerProcessorStep:
    feature = {STATE: PolicyFeature(FeatureType.STATE, (1,))}
    return NormalizerProcessorStep(feature, {FeatureType.STATE: mode}, {STATE: stats})


def normalised(step: NormalizerProcessorStep, value: torch.Tensor) -> float:
    return step._normalize_observation({STATE: value}, inverse=False)[STATE].item()


found = {}
for seed in range(20):
    noise = 0.035 * np.random.default_rng(seed).standard_normal((1000, 1))
    stats = get_feature_stats((1000 + noise).astype(np.float32), axis=0, keepdims=False)
    found[round(float(stats["std"][0]), 2)] = stats
print(f"deviations of 0.035 at 1000: {sorted(found)}")
lost = found[0.0]
assert lost["min"] < lost["max"] and max(found) > 0.3, found

large = normalised(processor(NormalizationMode.MEAN_STD, lost), torch.tensor([[1000.03]]))
print(f"1000.03 is normalised to {large:.3g}")
assert abs(large) > 1e5

limits = {"min": np.array([0.2], np.float32), "max": np.array([0.9], np.float32)}
whole = normalised(processor(NormalizationMode.MIN_MAX, limits), torch.tensor([[1]]))
print(f"the integer 1 in a range of 0.2 ... 0.9 is normalised to {whole}")
assert whole == float("inf")

step = processor(NormalizationMode.MIN_MAX, limits)
normalised(step, torch.tensor([[0.5]], dtype=torch.bfloat16))
saved = step.state_dict()[f"{STATE}.min"]
print(f"saved after a bfloat16 value: {saved.item()} in {saved.dtype}")
assert saved.dtype == torch.bfloat16
PY
