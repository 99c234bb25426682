"""OpenVINO: static graphs with fused kernels, the fastest way found on CPUs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.inference.backends.base import Prepare, Runner
from para_policy.inference.backends.openvino_nan import reveal
from para_policy.inference.backends.openvino_package import openvino_core, openvino_package
from para_policy.inference.config import Precision, Size
from para_policy.inference.failures import UnavailableError
from para_policy.inference.precision import check_precision

_HINT = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino:
    """https://docs.openvino.ai; an optional package."""

    name = "openvino"
    static = True
    repacks = True

    def check(self, device: torch.device, precision: Precision) -> None:
        if device.type != "cpu":
            raise UnavailableError(f"it runs on the CPU, not on {device.type}")
        check_precision(device, precision)
        core = openvino_core()
        # The hint is accepted everywhere; a processor without such arithmetic computes in float32.
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bfloat16" and "BF16" not in able:
            raise UnavailableError("this processor has no bfloat16 arithmetic")

    def load(self, body: nn.Module, precision: Precision) -> Prepare:
        return _Compiler(body, _HINT[precision])


class _Compiler:
    """Traces a network once for each kind of inputs, and compiles it for each size."""

    def __init__(self, body: nn.Module, hint: str) -> None:
        self._body, self._hint = body, hint
        self._traced: dict[tuple[torch.dtype, ...], Any] = {}

    def __call__(self, buffers: Sequence[Tensor], size: Size) -> Runner:
        openvino = openvino_package()
        model = self._trace(openvino, buffers).clone()
        model.reshape({i: list(buffer.shape) for i, buffer in enumerate(buffers)})
        options = {
            "INFERENCE_NUM_THREADS": size.threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, the threads of two processes would share the same cores and leave others idle.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": self._hint,
        }
        model = reveal(openvino, model, size.rows, self._hint)
        compiled = openvino_core().compile_model(model, "CPU", options)
        request = compiled.create_infer_request()
        for i, buffer in enumerate(buffers):
            request.set_input_tensor(i, openvino.Tensor(buffer.numpy(), shared_memory=True))
        output = torch.empty(tuple(compiled.output(0).shape))
        request.set_output_tensor(0, openvino.Tensor(output.numpy(), shared_memory=True))

        def run() -> Tensor:
            request.infer(share_outputs=True)
            return output

        return run

    def _trace(self, openvino: Any, buffers: Sequence[Tensor]) -> Any:
        kind = tuple(buffer.dtype for buffer in buffers)
        if kind not in self._traced:
            with warnings.catch_warnings():
                for category in (torch.jit.TracerWarning, DeprecationWarning):
                    warnings.simplefilter("ignore", category)
                self._traced[kind] = openvino.convert_model(
                    self._body, example_input=tuple(buffers)
                )
        return self._traced[kind]
