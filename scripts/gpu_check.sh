#!/usr/bin/env bash
# Everything that needs a GPU, within fifteen minutes: the tests marked gpu, then the whole table of the engines.
#
#   scripts/gpu_check.sh [FOLDER]     numbers, plot and the tests' log go to FOLDER, outputs/gpu by default
#
# The environment needs a CUDA build of torch. A failed test does not keep the table from being measured.
set -uo pipefail
cd "$(dirname "$0")/.."

BIN=${BIN:-.venv/bin}
CHECKPOINT=${CHECKPOINT:-checkpoints/pusht_state}
OUT=${1:-outputs/gpu}
mkdir -p "$OUT"

if ! "$BIN/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_check: this torch sees no GPU; install a CUDA build and try again" >&2
    exit 2
fi
timeout 300 "$BIN/python" -m pytest -m gpu -q -p no:cacheprovider 2>&1 | tee "$OUT/tests.txt"
tests=${PIPESTATUS[0]}
"$BIN/python" -m benchmarks.engine --checkpoint "$CHECKPOINT" --device cuda --budget-s 480 \
    --json "$OUT/engine.json" --plot "$OUT/engine.png" 2>&1 | tee "$OUT/engine.txt"
table=${PIPESTATUS[0]}
exit $((tests ? tests : table))
