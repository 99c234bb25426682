#!/usr/bin/env bash
# LeRobot 0.6.1: the asynchronous policy server never answers a diffusion policy, and skips small moves.
#
# Diffusion policies are in its list of supported ones. The server gives them a single observation
# without a time axis, so that with two observation steps, the default, as with one, each chunk ends
# in an error. The client gets an empty answer with status OK, and asks again for ever. And
# observations count as new only if the state has moved by a norm of 1, whatever its unit: half a
# radian in each of three joints is no reason for a new chunk.
#
# Seen: GetActions answers 0 bytes with 1 and 2 observation steps, status OK; a move by (0.5, 0.5, 0.5)
# is filtered out, one by (0.6, 0.6, 0.6) is taken.
#
# Takes a few minutes and 6 GB on disk for the time: LeRobot brings PyTorch. Needs Python 3.12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.12 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'lerobot[async,diffusion]==0.6.1' torch==2.11.0 grpcio==1.85.3
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import logging
import pickle
from types import SimpleNamespace

import numpy as np
from lerobot.async_inference.configs import PolicyServerConfig
from lerobot.async_inference.helpers import RemotePolicyConfig, TimedObservation
from lerobot.async_inference.policy_server import PolicyServer
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import make_pre_post_processors
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.utils.feature_utils import hw_to_dataset_features

logging.getLogger().setLevel(logging.ERROR)
JOINTS = {"a": float, "b": float, "c": float}
features = hw_to_dataset_features({**JOINTS, "top": (64, 64, 3)}, "observation", use_video=False)
context = SimpleNamespace(peer=lambda: "robot")


def checkpoint(steps: int) -> str:
    config = DiffusionConfig(
        n_obs_steps=steps,
        horizon=16,
        n_action_steps=8,
        down_dims=(16, 32),
        n_groups=4,
        crop_shape=None,
        pretrained_backbone_weights=None,
        num_inference_steps=2,
        device="cpu",
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
            "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (3,))},
    )
    reach = {"min": np.full(3, -3.0), "max": np.full(3, 3.0)}
    colours = {"mean": np.zeros((3, 1, 1)), "std": np.ones((3, 1, 1))}
    stats = {"observation.state": reach, "action": reach, "observation.images.top": colours}
    for part in (DiffusionPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(f"policy_{steps}")
    return f"policy_{steps}"


def observation(step: int, angle: float) -> TimedObservation:
    raw = {**dict.fromkeys(JOINTS, angle), "top": np.zeros((64, 64, 3), np.uint8)}
    return TimedObservation(timestamp=0.0, timestep=step, observation=raw, must_go=step == 0)


sizes, taken = [], []
for steps in (1, 2):
    server = PolicyServer(PolicyServerConfig())
    server.Ready(None, context)
    specs = RemotePolicyConfig("diffusion", checkpoint(steps), features, actions_per_chunk=8)
    server.SendPolicyInstructions(SimpleNamespace(data=pickle.dumps(specs)), context)
    server._enqueue_observation(observation(0, 0.0))
    sizes.append(server.GetActions(None, context).ByteSize())
    taken = [server._enqueue_observation(observation(step, a)) for step, a in ((1, 0.5), (2, 0.6))]
print(f"bytes of the answer with 1 and 2 observation steps: {sizes}")
print(f"taken as new: moved by 0.5 in each joint: {taken[0]}, by 0.6: {taken[1]}")
assert sizes == [0, 0], sizes
assert taken == [False, True], taken
PY
