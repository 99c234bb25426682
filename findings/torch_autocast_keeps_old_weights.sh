#!/usr/bin/env bash
# torch 2.13: within one torch.autocast block a network keeps the weights that it had at its first call.
#
# autocast casts a weight to bfloat16 once and keeps the copy until the block ends; nothing asks whether the weight was
# written since. A training loop inside the block runs, its optimiser moves the weights, and each step gets
# the loss and gradient of the first ones. In a long-running block, such as that around a control loop,
# weights that an EMA or load_state_dict wrote are not used either. Only weights that require a gradient are
# kept, also under no_grad; under inference_mode, with cache_enabled=False, and with one block for each step
# all is as it should be.
#
# Seen: eight steps with the loss of the first, though the weights moved; answers that are the old ones after
# load_state_dict; both right in the three other cases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import contextlib

import torch

STEPS = 8
X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
WANTED = X.flip(1)


def block(**options: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, **options)


def losses(around, each) -> tuple[list[float], bool]:
    """Of a training within two contexts, around it all and around each step; and whether the weights moved."""
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 4)
    before = network.weight.clone()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    found = []
    with around:
        for _ in range(STEPS):
            with each():
                loss = (network(X).float() - WANTED).square().mean()
            found.append(round(loss.item(), 3))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return found, not torch.equal(before, network.weight)


nothing = contextlib.nullcontext
found = {
    "one block": losses(block(), nothing),
    "one block, cache_enabled=False": losses(block(cache_enabled=False), nothing),
    "a block for each step": losses(nothing(), block),
}
for name, (values, moved) in found.items():
    print(f"{name}: {values}, weights moved: {moved}")
    assert moved
    assert len(set(values)) == (1 if name == "one block" else STEPS)
    assert values[-1] == values[0] if name == "one block" else values[-1] < values[0] / 2


def new_weights_used(mode) -> bool:
    """Whether weights that are loaded between two calls in one block change the answer."""
    network = torch.nn.Linear(4, 4)
    with block(), mode():
        first = network(X)
        network.load_state_dict({name: 2 * value for name, value in network.state_dict().items()})
        return not torch.equal(first, network(X))


used = {mode.__name__: new_weights_used(mode) for mode in (torch.no_grad, torch.inference_mode)}
print("weights that were loaded within the block are used:", used)
assert used == {"no_grad": False, "inference_mode": True}
PY
