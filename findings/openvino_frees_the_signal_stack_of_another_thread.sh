#!/usr/bin/env bash
# OpenVINO 2026.4: a thread is left with a stack for signals that is no memory any more.
#
# The CPU plug-in gives the thread that loads it an alternate signal stack (sigaltstack), as processors
# with AMX need a large one. The plug-in is freed with the last Core and compiled network that hold it,
# and unmaps that stack. If another thread happens to do this, such as one in which Python collects
# garbage, the first thread keeps the address. Handlers of Python run on such stacks: the next signal,
# such as Ctrl-C, ends the process with a segmentation fault and no traceback, faulthandler's neither.
# One Core that lives as long as the process keeps the stack.
#
# This script looks at the addresses and sends no signal.
#
# Seen: freed by the same thread: no stack is set; by another one: set, and not mapped; one Core kept: mapped.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import ctypes
import threading
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops


class Stack(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    ]


def signal_stack() -> str:
    """Of this thread."""
    stack = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    if not stack.address:
        return "not set"
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= stack.address < end:
            return "mapped"
    return "not mapped"


def compiled(core: openvino.Core) -> openvino.CompiledModel:
    x = ops.parameter([1, 4], np.float32)
    return core.compile_model(openvino.Model([ops.relu(x)], [x], "model"), "CPU")


def after(free, core: openvino.Core | None = None) -> str:
    held.append(compiled(core or openvino.Core()))
    free()
    return signal_stack()


def by_another_thread() -> None:
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()


held: list[openvino.CompiledModel] = []
same, kept_core = after(held.clear), openvino.Core()
kept = after(by_another_thread, kept_core)
del kept_core
other = after(by_another_thread)
print(f"signal stack: freed by the same thread: {same}; one Core kept: {kept}; by another: {other}")
assert (same, kept, other) == ("not set", "mapped", "not mapped"), "this has changed"
PY
