"""NaN in OpenVINO's graphs: its CPU kernels turn some of it into ordinary numbers, which is undone here.

As of OpenVINO 2026.4, `relu(NaN)` is 0 there, `clip(NaN, -1, 1)` is -1, and a normalisation whose
variance overflows returns its bias, where PyTorch returns NaN. A network that overflows inside would
return plausible actions. What goes into such operations is watched, at next to no cost, and rows
in which something was lost return NaN.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from para_policy.inference.backends.openvino_package import openvino_core

_CARRIES = (
    "Add Broadcast Concat Convert Convolution ConvolutionBackpropData Divide Gather GroupConvolution "
    "GroupConvolutionBackpropData MatMul Multiply Negative Pad ReduceMean ReduceSum Reshape Result "
    "ScaledDotProductAttention Select Slice Softmax Split Squeeze StridedSlice Subtract Tile "
    "Transpose Unsqueeze VariadicSplit"
)
"""Sums, products and moves, which make of NaN what PyTorch makes of it."""

_NORMALISE = frozenset({"GroupNormalization", "MVN"})
_LARGEST = 1e19
"""Sums of absolute values below have a sum of squares that float32 can hold."""

_FUNCTIONS = (
    "abs cos elu erf exp gelu hsigmoid hswish mish relu sigmoid sin softplus sqrt swish tanh"
)
"""In `openvino.opset13`. Their kernels differ between processors, so it is tried what they do here."""


def reveal(openvino: Any, model: Any, rows: int, hint: str) -> Any:
    """`model`, whose output rows are NaN where NaN was lost inside.

    Args:
        model: one output (rows, ...), static shapes.
        rows: of all inputs. A value inside whose first axis has another length may belong to any row.
        hint: the precision that it is compiled with.
    """
    ops = openvino.opset13
    lost: Any = None
    for value, normalised in _lossy_inputs(model, {*_CARRIES.split(), *_carried(openvino, hint)}):
        shape = list(value.get_shape())
        first = 1 if shape[:1] == [rows] else 0
        inner = np.arange(first, len(shape), dtype=np.int64)
        if normalised:
            size = ops.reduce_l1(value, inner, False)
            seen = ops.logical_not(ops.less(size, np.float32(_LARGEST)))  # NaN is not less, either
        else:
            seen = ops.reduce_logical_or(ops.is_nan(value), inner, False)
        lost = seen if lost is None else ops.logical_or(lost, seen)
    if lost is None:
        return model
    output = model.get_results()[0].input_value(0)
    places = [-1, *[1] * (len(output.get_shape()) - 1)]
    marked = ops.select(ops.reshape(lost, places, False), np.float32(np.nan), output)
    return openvino.Model([ops.result(marked)], model.get_parameters(), "revealing")


def _lossy_inputs(model: Any, carries: set[str]) -> list[tuple[Any, bool]]:
    """Floating-point values that go into operations which may lose NaN, and whether those normalise."""
    found = {}
    for operation in model.get_ordered_ops():
        made = [output.get_element_type() for output in operation.outputs()]
        if operation.get_type_name() in carries or not any(kind.is_real() for kind in made):
            continue  # PyTorch, too, compares NaN with an ordinary result
        normalises = operation.get_type_name() in _NORMALISE
        for value in operation.input_values()[: 1 if normalises else None]:
            source = value.get_node()
            if value.get_element_type().is_real() and source.get_type_name() != "Constant":
                found[source.get_name(), value.get_index(), normalises] = value, normalises
    return list(found.values())


@lru_cache(maxsize=4)
def _carried(openvino: Any, hint: str) -> tuple[str, ...]:
    """Names of the functions that make NaN of NaN on this processor."""
    ops = openvino.opset13
    x = ops.parameter([1, 4, 16], np.float32)
    outputs = [_applied(ops, name, x) for name in _FUNCTIONS.split()]
    names = [output.get_type_name() for output in outputs]
    compiled = openvino_core().compile_model(
        openvino.Model(outputs, [x], "functions"),
        "CPU",
        {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1},
    )
    results = compiled([np.full((1, 4, 16), np.nan, np.float32)])
    return tuple(name for i, name in enumerate(names) if np.isnan(results[i]).all())


def _applied(ops: Any, name: str, x: Any) -> Any:
    extra = {"gelu": ("erf",), "elu": (1.0,)}.get(name, ())
    return getattr(ops, name)(x, *extra)
