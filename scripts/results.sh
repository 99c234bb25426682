#!/usr/bin/env bash
# Regenerates docs/results.md: every figure in README and docs comes from here.
# About 25 minutes on two cores. An interrupted evaluation resumes when started again.
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.venv/bin
CHECKPOINT=checkpoints/pusht_state
OUT=outputs/results
THREADS=${THREADS:-2}
EPISODES=${EPISODES:-200}
export OMP_NUM_THREADS=$THREADS
mkdir -p $OUT

$BIN/para-policy bench --checkpoint $CHECKPOINT --observations 100 --threads "$THREADS" --json $OUT/bench_ddpm100.json
$BIN/para-policy bench --checkpoint $CHECKPOINT --observations 100 --threads "$THREADS" \
    --scheduler ddim --steps 16 --json $OUT/bench_ddim16.json
$BIN/python -m sim.evaluate --checkpoint $CHECKPOINT --samplers sequential,paradigms \
    --episodes "$EPISODES" --jobs "$THREADS" --json $OUT/evaluate.json --report $OUT/evaluate.html
$BIN/python scripts/results_page.py $OUT docs/results.md
