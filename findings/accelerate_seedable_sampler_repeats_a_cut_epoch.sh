#!/usr/bin/env bash
# accelerate 1.15: with use_seedable_sampler an epoch that was left early is begun again, in the same order.
#
# The prepared data loader counts its epochs, and the order follows from seed and epoch. But the count goes up
# only when the last batch was taken: a loop that breaks after max_train_steps batches, as in Diffusion Policy's
# configurations, gets the same batches for ever, and the rest of the demonstrations is never seen.
# Whole epochs are shuffled anew, and so are cut ones without use_seedable_sampler, so neither a full run nor
# another option shows it. Call set_epoch(epoch) on the loader in each epoch.
#
# Seen: in 20 epochs of 3 of 10 batches, 30 of 100 samples; 100 with set_epoch, and 100 without the
# option.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.utils.data import DataLoader

SAMPLES, BATCH, TAKEN, EPOCHS = 100, 10, 3, 20


def prepared(seedable: bool) -> DataLoader:
    set_seed(0)
    options = DataLoaderConfiguration(use_seedable_sampler=seedable)
    accelerator = Accelerator(cpu=True, dataloader_config=options)
    return accelerator.prepare(DataLoader(range(SAMPLES), batch_size=BATCH, shuffle=True))


def seen(seedable: bool, set_epoch: bool = False) -> int:
    """How many of the samples a training sees that cuts its epochs short."""
    loader, samples = prepared(seedable), set()
    for epoch in range(EPOCHS):
        if set_epoch:
            loader.set_epoch(epoch)
        for step, batch in enumerate(loader):
            samples.update(batch.tolist())
            if step == TAKEN - 1:
                break
    return len(samples)


found = {
    "seedable": seen(True),
    "seedable, with set_epoch": seen(True, set_epoch=True),
    "not seedable": seen(False),
}
print(f"samples of {SAMPLES} seen in {EPOCHS} epochs of {TAKEN} batches: {found}")
assert list(found.values()) == [TAKEN * BATCH, SAMPLES, SAMPLES]

loader = prepared(True)
whole = [[sample for batch in loader for sample in batch.tolist()] for _ in range(2)]
print("whole epochs begin with", *(order[:3] for order in whole))
assert whole[0] != whole[1] and sorted(whole[0]) == sorted(whole[1])
PY
