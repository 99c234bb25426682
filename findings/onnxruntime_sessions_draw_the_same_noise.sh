#!/usr/bin/env bash
# ONNX Runtime 1.31: two sessions of one process draw the same noise, run by run.
#
# A node RandomNormalLike without a seed, as torch.onnx.export writes torch.randn, has its own generator in
# each session, and all begin with one number that the process draws when it starts. So a process that gives
# each robot, or each thread, a session of its own moves them all with the same noise, though each seems random and
# the next start of the program is different. set_seed() before each session keeps them apart, with one
# exception: seeds 0 and 1, which a loop over robots begins with, are the same.
#
# Seen: of three sessions with two runs each 2 different draws; with seeds 0, 1, 2 4; with 1, 2, 3 6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime

SESSIONS, RUNS = 3, 2
x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [8]) for name in "xy")
node = onnx.helper.make_node("RandomNormalLike", ["x"], ["y"])
opset = [onnx.helper.make_opsetid("", 17)]
graph = onnx.helper.make_graph([node], "noise", [x], [y])
model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
onnx.checker.check_model(model, full_check=True)


def draws(seed: int | None) -> list[bytes]:
    """Noise of the first runs of a new session."""
    if seed is not None:
        onnxruntime.set_seed(seed)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [session.run(None, {"x": np.zeros(8, np.float32)})[0].tobytes() for _ in range(RUNS)]


SEEDS = {"no seed": [None] * SESSIONS, "from 0": [0, 1, 2], "from 1": [1, 2, 3]}
found = {name: [draws(seed) for seed in seeds] for name, seeds in SEEDS.items()}
counts = {name: len({draw for one in sessions for draw in one}) for name, sessions in found.items()}
print(f"different draws of {SESSIONS} sessions x {RUNS} runs: {counts}")
assert list(counts.values()) == [RUNS, 2 * RUNS, SESSIONS * RUNS]
first, second, third = found["no seed"]
assert first == second == third
first, second, third = found["from 0"]
assert first == second != third
PY
