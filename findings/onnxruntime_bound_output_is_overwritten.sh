#!/usr/bin/env bash
# ONNX Runtime 1.31: the first run allocates an output that is bound by its name; all later ones write over it.
#
# binding.bind_output("action") names no memory, so each run seems to make its own. The first run does; its
# tensor then stays bound. get_outputs()[0].numpy() is a view of it: arrays of earlier runs, such as the chunk
# of actions that a robot still plays, become the newest answer. A run with another batch size fails, of
# a model whose batch size is free. session.run, copy_outputs_to_cpu() and a new bind_output before each run
# give arrays of their own.
#
# Seen: answers to 1, 2, 3 kept as [6, 6, 6], and as [2, 4, 6] the other ways; after a batch of 1, one of 2 is a
# RuntimeError. 1.20.1 does the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

state, action = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("state", "action")
)
graph = helper.make_graph([helper.make_node("Add", ["state", "state"], ["action"])], "double", [state], [action])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
session = onnxruntime.InferenceSession(
    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
)
binding = session.io_binding()
STATES = [np.array([value], np.float32) for value in (1, 2, 3)]


def bound(state: np.ndarray) -> np.ndarray:
    binding.bind_cpu_input("state", state)
    session.run_with_iobinding(binding)
    return binding.get_outputs()[0].numpy()


def copied(state: np.ndarray) -> np.ndarray:
    bound(state)
    return binding.copy_outputs_to_cpu()[0]


def bound_anew(state: np.ndarray) -> np.ndarray:
    binding.bind_output("action")
    return bound(state)


def kept(run: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """The answers to all states, looked at after the last one."""
    binding.bind_output("action")
    answers = [run(state) for state in STATES]
    return [float(answer.item()) for answer in answers]


found = {
    "bind_output once": kept(bound),
    "copy_outputs_to_cpu": kept(copied),
    "bind_output each time": kept(bound_anew),
    "session.run": kept(lambda state: session.run(None, {"state": state})[0]),
}
for name, answers in found.items():
    print(f"{name}: {answers}")
    assert answers == ([6, 6, 6] if name == "bind_output once" else [2, 4, 6])

binding.bind_output("action")
bound(np.ones(1, np.float32))
try:
    bound(np.ones(2, np.float32))
except RuntimeError:
    print("a batch of 2 after one of 1: RuntimeError")
else:
    raise AssertionError("the batch size could change")
assert bound_anew(np.ones(2, np.float32)).tolist() == [2, 2]
PY
