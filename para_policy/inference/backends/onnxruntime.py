"""ONNX Runtime on the CPU: where OpenVINO is not to be had."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from para_policy.extras import install
from para_policy.inference.backends.base import Prepare, Runner
from para_policy.inference.config import Precision, Size
from para_policy.inference.failures import UnavailableError
from para_policy.inference.quiet import quiet


class OnnxRuntime:
    """https://onnxruntime.ai; an optional package. PyTorch exports by onnxscript."""

    name = "onnxruntime"
    static = True
    repacks = True

    def check(self, device: torch.device, precision: Precision) -> None:
        if device.type != "cpu" or precision != "float32":
            raise UnavailableError(
                f"it computes in float32 on the CPU, not in {precision} on {device.type}"
            )
        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise UnavailableError(
                f"it needs the packages onnxruntime and onnxscript ({error}); {install('export')}"
            ) from error

    def load(self, body: nn.Module, precision: Precision) -> Prepare:
        return partial(_prepare, body)


def _prepare(body: nn.Module, buffers: Sequence[Tensor], size: Size) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = size.threads or torch.get_num_threads()
    # Threads of one size must not keep those of the others waiting.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        _exported(body, buffers), options, providers=["CPUExecutionProvider"]
    )
    result = session.get_outputs()[0]
    output = torch.empty(result.shape)
    binding = session.io_binding()
    for value, buffer in zip(session.get_inputs(), buffers, strict=True):
        binding.bind_input(value.name, *_memory(buffer))
    binding.bind_output(result.name, *_memory(output))

    def run() -> Tensor:
        session.run_with_iobinding(binding)
        return output

    return run


def _exported(body: nn.Module, buffers: Sequence[Tensor]) -> bytes:
    with quiet():
        program = torch.onnx.export(body, tuple(buffers), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()


def _memory(value: Tensor) -> tuple[object, ...]:
    """Device, element type, shape and address, as ONNX Runtime wants to know them."""
    return "cpu", 0, value.numpy().dtype.type, tuple(value.shape), value.data_ptr()
