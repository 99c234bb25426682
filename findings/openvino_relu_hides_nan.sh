#!/usr/bin/env bash
# OpenVINO 2026.4, CPU (x86): relu(NaN) is 0 and clamp(NaN, -1, 1) is -1, so a broken number ends as a plausible action.
#
# NumPy, PyTorch and ONNX Runtime hand NaN on. OpenVINO's ReLU, Clamp, Maximum, Minimum and ReduceMax drop it,
# whereas sigmoid, tanh, ELU and SiLU keep it. A camera or joint that is NaN, or a number that overflowed inside, is
# gone after the first ReLU, the network answers from its biases, and a check of the action for NaN never
# fires. Look at the inputs, or at what goes into such an operation.
#
# Seen: 0 from relu, -1 from clamp, the other operand from maximum and minimum, the largest of the rest from
# reduce_max; the bias, 0.25, from a layer after a ReLU; NaN from sigmoid, tanh, elu and swish.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import openvino
from openvino import opset13 as ops

BROKEN = np.array([[np.nan, 0.5]], np.float32)
core = openvino.Core()


def answer(build) -> float:
    """First number that a network of one operation, or a few, gives for an input that begins with NaN."""
    x = ops.parameter([1, 2], np.float32)
    model = openvino.Model([build(x)], [x], "one")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return float(compiled(BROKEN)[0].flat[0])


def layer(x):
    """Two inputs to one output: weights of 1, and a bias of 0.25."""
    product = ops.matmul(x, ops.constant(np.ones((2, 1), np.float32)), False, False)
    return ops.add(product, ops.constant(np.float32(0.25)))


DROPPED = {
    "relu": (ops.relu, 0.0),
    "clamp": (lambda x: ops.clamp(x, -1.0, 1.0), -1.0),
    "maximum": (lambda x: ops.maximum(x, ops.constant(np.float32(0.125))), 0.125),
    "minimum": (lambda x: ops.minimum(x, ops.constant(np.float32(0.125))), 0.125),
    "reduce_max": (lambda x: ops.reduce_max(x, np.array([1]), keep_dims=True), 0.5),
    "layer, relu, layer": (
        lambda x: layer(ops.concat([ops.relu(layer(x))] * 2, axis=1)),
        0.25,
    ),
}
KEPT = {
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "elu": lambda x: ops.elu(x, 1.0),
    "swish": ops.swish,
    "layer": layer,
}
for name, (build, expected) in DROPPED.items():
    found = answer(build)
    print(f"{name}: {found}")
    assert found == expected, name
for name, build in KEPT.items():
    found = answer(build)
    print(f"{name}: {found}")
    assert np.isnan(found), name
PY
