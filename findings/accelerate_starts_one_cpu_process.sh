#!/usr/bin/env bash
# accelerate 1.15: on a machine without GPUs, two processes train as two runs of one, or are not started.
#
# `accelerate launch --cpu --num_processes 2` starts the script once and says nothing about the number.
# Under `torchrun --nproc-per-node 2` each process has an Accelerator() of its own world, with
# num_processes 1 and is_main_process True: both train on all data, and both write. With
# Accelerator(cpu=True), or ACCELERATE_USE_CPU=true, they are two processes with gloo.
#
# Seen: accelerate launch: 1 of 1; torchrun: 1 of 1 twice; torchrun, cpu=True: 0 of 2 and 1 of 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.13.0
cd "$folder"
cat >script.py <<'PY'
import sys

from accelerate import Accelerator

made = Accelerator(cpu=True) if "cpu" in sys.argv[1:] else Accelerator()
with open(sys.argv[1], "a") as file:
    file.write(f"{made.process_index} of {made.num_processes}, main {made.is_main_process}\n")
PY
export CUDA_VISIBLE_DEVICES="" PATH="$folder/venv/bin:$PATH"
accelerate launch --cpu --num_processes 2 script.py launch
torchrun --standalone --nproc-per-node 2 script.py torchrun
torchrun --standalone --nproc-per-node 2 script.py torchrun_cpu cpu
for name in launch torchrun torchrun_cpu; do
    echo "$name:"
    sort "$name"
done
[ "$(cat launch)" = "0 of 1, main True" ]
[ "$(sort torchrun)" = $'0 of 1, main True\n0 of 1, main True' ]
[ "$(sort torchrun_cpu)" = $'0 of 2, main True\n1 of 2, main False' ]
