"""Network of a policy as an ONNX file, for programs without Python or torch (extra `export`)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.checkpoints.onnx.check import Agreement, compare
from para_policy.checkpoints.onnx.metadata import KEY, metadata
from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import replace
from para_policy.inference.quiet import quiet
from para_policy.networks.unet1d import SinusoidalPosEmb
from para_policy.policies.policy import DiffusionPolicy

with extra("export", "exporting to ONNX"):
    import onnx
    from onnxscript import opset18

_OLDEST = 18
_LARGEST = 2**31 - 2**24  # bytes of a protobuf message, less what is not weights


def export_onnx(
    policy: DiffusionPolicy, checkpoint_sha256: str, path: Path, *, opset: int
) -> Agreement:
    """Write the network of a policy, after comparing it with torch.

    The model maps `x` (batch, horizon, action_dim) float32, `timestep` (batch,) int64 (float32 for a
    flow, whose time is continuous) and `condition` (batch, condition_dim) float32 to `prediction`
    (batch, horizon, action_dim) float32, for any batch; what these are is in its metadata, see
    `onnx_metadata`. Camera encoders are left out: `condition` has their output.

    Args:
        policy: on the CPU.
        path: is replaced; nothing is written if an error is raised.
        opset: version of the ONNX operators, at least 18.

    Returns:
        How far the model and torch are apart.

    Raises:
        InputError: for an opset that torch cannot write, a network too large for one file, or a
            file that cannot be written.
        CheckpointError: if the model is not what the policy's network is.
    """
    _check(policy.network, opset)
    model = convert(policy, opset)
    onnx.helper.set_model_props(model, {KEY: metadata(policy, checkpoint_sha256)})
    content = model.SerializeToString()
    agreement = compare(content, policy)
    replace(path, lambda unfinished: unfinished.write_bytes(content))
    return agreement


def _check(network: nn.Module, opset: int) -> None:
    if opset < _OLDEST:
        raise InputError(f"opset is {opset}; expected at least {_OLDEST}")
    size = sum(weight.nbytes for weight in network.state_dict().values())
    if size > _LARGEST:
        raise InputError(
            f"the weights take {size / 2**30:.1f} GiB; one ONNX file holds at most 2 GiB. Run the "
            "policy with torch"
        )


def convert(policy: DiffusionPolicy, opset: int) -> onnx.ModelProto:
    """The network as a checked ONNX model, without metadata; see `export_onnx`."""
    config = policy.config
    shapes = policy.runtime.shapes
    network = policy.network
    if shapes.times is None:
        network = _with_step_table(network, policy.num_train_timesteps)
    example = (
        # Not 1: torch would take a batch of 1 for a constant.
        torch.zeros(2, config.horizon, config.action_dim),
        shapes.spaced_times(2),
        torch.zeros(2, config.condition_dim),
    )
    try:
        model = _translate(network, example, opset)
        onnx.checker.check_model(model, full_check=True)
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"torch {torch.__version__} cannot write this network with opset {opset} "
            f"({str(error).strip().splitlines()[0]}); try another --opset"
        ) from error
    written = {entry.version for entry in model.opset_import if entry.domain == ""}
    if written != {opset}:
        raise InputError(
            f"torch {torch.__version__} wrote opset {sorted(written)} instead of {opset}; try "
            "another --opset"
        )
    return model


def _translate(network: nn.Module, example: tuple[Tensor, ...], opset: int) -> onnx.ModelProto:
    any_batch = {0: "batch"}
    with quiet():
        program = torch.onnx.export(
            network,
            example,
            dynamo=True,
            input_names=["x", "timestep", "condition"],
            output_names=["prediction"],
            dynamic_shapes=(any_batch, any_batch, any_batch),
            opset_version=opset,
            custom_translation_table={torch.ops.aten.mish.default: _mish},
            verbose=False,
        )
    assert program is not None  # torch returns nothing only when it is given a file to write
    model: onnx.ModelProto = program.model_proto
    # Notes of torch, half a megabyte of them, with the paths of this machine.
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, model.graph):
        del part.metadata_props[:]
    return model


def _mish(x: Any) -> Any:
    """Mish from older operators: ONNX's own is in no list of what TensorRT's parser takes."""
    return opset18.Mul(x, opset18.Tanh(opset18.Softplus(x)))


def _with_step_table(network: nn.Module, num_train_timesteps: int) -> nn.Module:
    """A copy that looks the embeddings of timesteps up.

    Half precision would round timesteps and angles before their sines are taken.
    """
    network = copy.deepcopy(network)
    timesteps = torch.arange(num_train_timesteps)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SinusoidalPosEmb):
                setattr(parent, name, nn.Embedding.from_pretrained(child(timesteps)))
    return network
