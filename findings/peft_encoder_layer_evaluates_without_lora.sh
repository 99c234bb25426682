#!/usr/bin/env bash
# peft 0.21: LoRA on the feed-forward layers of torch's TransformerEncoderLayer trains, and eval() leaves it out.
#
# In eval mode TransformerEncoderLayer hands its weights to one fused operation instead of calling linear1 and linear2,
# and what peft gives as the weight of an adapted layer is the frozen one. The loss falls in training, and the
# policy that is evaluated is the one from before, without a warning. Frozen base weights, as of every LoRA, are
# a condition of that path, so gradients do not avoid it. target_modules="all-linear" adapts attention's out_proj as
# well, of which attention takes the weight only, in training, too: no gradient ever reaches that
# adapter. batch_first=False, activations other than relu and gelu, and TransformerDecoderLayer have no such path.
#
# Seen: difference to the network without adapters: training 1.5, evaluation 0; 1.5 after
# torch.backends.mha.set_fastpath_enabled(False), and after merge_and_unload(). out_proj: 0 and 0, gradient None.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from peft import LoraConfig, get_peft_model

X = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))


class Policy(torch.nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def adapted(targets: list[str], batch_first: bool = True):
    """A policy with adapters as a training leaves them: not 0."""
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    return get_peft_model(Policy(batch_first=batch_first), config)


@torch.no_grad()
def effect(policy, training: bool) -> float:
    """The largest change of the answer by the adapters; there is no dropout, so the modes should agree."""
    policy.train(training)
    answer = policy(X)
    with policy.disable_adapter():
        return round((answer - policy(X)).abs().max().item(), 2)


def both(policy) -> tuple[float, float]:
    return effect(policy, training=True), effect(policy, training=False)


feed_forward = ["linear1", "linear2"]
policy = adapted(feed_forward)
found = {
    "feed-forward": both(policy),
    "batch_first=False": both(adapted(feed_forward, batch_first=False)),
    "out_proj": both(adapted(["out_proj"])),
}
print("changes by the adapters, training and evaluation:", found)
training, evaluation = found["feed-forward"]
assert training > 0.5 and evaluation == 0
assert min(found["batch_first=False"]) > 0.5
assert found["out_proj"] == (0, 0)

torch.backends.mha.set_fastpath_enabled(False)
slow = effect(policy, training=False)
wanted = policy(X)
torch.backends.mha.set_fastpath_enabled(True)
merged = policy.merge_and_unload().eval()
print(f"without the fused path: {slow}; merged: {(merged(X) - wanted).abs().max().item():.0e} from that")
assert slow == training
assert torch.allclose(merged(X), wanted, atol=1e-5)

policy = get_peft_model(Policy(batch_first=True), LoraConfig(r=4, target_modules="all-linear"))
policy.train()(X).square().sum().backward()
without = {
    name.split(".")[-4]
    for name, weight in policy.named_parameters()
    if weight.requires_grad and weight.grad is None
}
print("all-linear, adapters without a gradient:", without)
assert without == {"out_proj"}
PY
