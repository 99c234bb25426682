#!/usr/bin/env bash
# LeRobot 0.6.1: the random crop of the diffusion policy is one for all images of a batch.
#
# With crop_shape the encoder cuts its training images with torchvision's RandomCrop, which draws one position for
# each call, and a call holds the whole batch: all samples, both observations of each, all cameras that share
# the encoder. The original Diffusion Policy, whose settings are LeRobot's, draws a position for each image
# (robomimic's CropRandomizer). So a batch of 64 shows the network one position here and about 50 there.
#
# Seen: one position in each batch of 64 images, another one in the next batch.
#
# Takes a few minutes and 6 GB on disk for the time: LeRobot brings PyTorch. Needs Python 3.12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.12 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'lerobot[diffusion]==0.6.1' torch==2.11.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionRgbEncoder

IMAGES, SIZE, CROP = 64, 96, 84
config = DiffusionConfig(
    input_features={"observation.image": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE))},
    crop_shape=(CROP, CROP),
    pretrained_backbone_weights=None,  # nothing to download
    device="cpu",
)
assert config.crop_is_random
encoder = DiffusionRgbEncoder(config).train()
crops = []
encoder.backbone.register_forward_pre_hook(lambda _, arguments: crops.append(arguments[0]))

# Each pixel tells its row and column.
place = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij"))
image = torch.cat([place, place[:1]]).float()
torch.manual_seed(0)
found = []
for _ in range(5):
    with torch.no_grad():
        encoder(image.expand(IMAGES, -1, -1, -1))
    corners = {tuple(corner) for corner in crops[-1][:, :2, 0, 0].int().tolist()}
    assert crops[-1].shape == (IMAGES, 3, CROP, CROP) and len(corners) == 1, corners
    found += corners
print(f"corners of the crops in five batches of {IMAGES} images: {found}")
assert len(set(found)) > 1
PY
