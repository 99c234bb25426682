#!/usr/bin/env bash
# Regenerates docs/results.md: every figure in README and docs comes from here.
#
#   scripts/results.sh [PART ...]     parts: bench benchmarks bounds engine pcm evaluate page; default all of them
#
# On two idle cores bench takes about 8 minutes, benchmarks 15, bounds 60, engine 10, evaluate and pcm more than an hour
# each; when interrupted those two resume. EPISODES, EPISODES_DDIM (16 steps), EPISODES_PCM, EPISODES_GUESS and EVALUATED
# (sampler names) make them longer or shorter. A part that is not measured keeps its place on the page. The checkpoint
# must be calibrated for ddpm 100 and ddim 16. pcm compares the models of scripts/distill.sh, which must have run.
#
# Another checkpoint has a page of its own, with places for the parts that it shows; docs/aloha.md has its command.
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.venv/bin
CHECKPOINT=${CHECKPOINT:-checkpoints/pusht_state}
DEVICE=${DEVICE:-cpu}
OUT=${OUT:-outputs/results}
PAGE=${PAGE:-docs/results.md}
THREADS=${THREADS:-2}
OBSERVATIONS=${OBSERVATIONS:-48}
EPISODES=${EPISODES:-500}
EPISODES_GUESS=${EPISODES_GUESS:-50}
EPISODES_DDIM=${EPISODES_DDIM:-0}
EPISODES_PCM=${EPISODES_PCM:-500}
EPISODES_CUT=${EPISODES_CUT:-20}
EVALUATED=${EVALUATED:-sequential,paradigms,parataa:order=10,history=3,window=20,chord,chord:tolerance=1e-3,collocation}
ENGINE=${ENGINE:-auto} # of closed loops
ENGINE_BENCH=${ENGINE_BENCH:-eager}
PICTURES=${PICTURES:-} # how their names begin
MODELS=${MODELS:-outputs/pcm}
PCM_OPTIONS=${PCM_OPTIONS:-horizon=2;horizon=2,blend=weights;horizon=2,blend=features}
export OMP_NUM_THREADS=$THREADS
mkdir -p "$OUT"

measure() { # MODULE ARGUMENT...   one of benchmarks/, its numbers to $OUT
    local module=benchmarks.$1 name=${1##*.}
    shift
    "$BIN/python" -m "$module" --checkpoint "$CHECKPOINT" --device "$DEVICE" \
        --json "$OUT/$name.json" --plot "$OUT/$name.png" "$@"
}

found() { # KEY   what benchmarks.samplers.parataa_options found
    "$BIN/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
        "$OUT/parataa_options.json" "$1"
}

bench() { # NAME SAMPLERS ARGUMENT...
    local name=$1 samplers=$2
    shift 2
    "$BIN/para-policy" bench --checkpoint "$CHECKPOINT" --device "$DEVICE" --threads "$THREADS" \
        --engine "$ENGINE_BENCH" --observations "$OBSERVATIONS" --samplers "$samplers" \
        --json "$OUT/$name.json" "$@"
}

evaluate() { # NAME SAMPLERS EPISODES ARGUMENT...   bench measures latency
    local name=$1 samplers=$2 episodes=$3
    shift 3
    "$BIN/python" -m sim.evaluate --checkpoint "$CHECKPOINT" --device "$DEVICE" \
        --samplers "$samplers" --episodes "$episodes" --batch 25 --jobs "$THREADS" \
        --engine "$ENGINE" --latency-chunks 0 --json "$OUT/$name.json" --report "$OUT/$name.html" "$@"
}

for part in "${@:-all}"; do
    case $part in
        all | bench | benchmarks | bounds | engine | pcm | evaluate | page) ;;
        *)
            echo "unknown part '$part'; expected bench, benchmarks, bounds, engine, pcm, evaluate or page" >&2
            exit 2
            ;;
    esac
done

wanted() { # PART   was it asked for?
    [[ " $PARTS " == *" all "* || " $PARTS " == *" $1 "* ]]
}
PARTS="${*:-all}"

if wanted bench; then
    measure samplers.parataa_options --threads "$THREADS"
    # A name that occurs twice is measured once.
    bench bench_ddpm100 "sequential,paradigms,benchmarks.peers:paradigms,parataa,$(found best),$(found fewest_rounds),x0,chord,chord:window=none,chord:tolerance=1e-3,collocation,collocation:tolerance=1e-3,asd,auto,benchmarks.peers:ddpm,benchmarks.peers:ddim:num_steps=10,benchmarks.peers:ddim:num_steps=16"
    bench bench_ddim16 "sequential,paradigms,parataa,x0,chord,collocation,auto" --scheduler ddim --steps 16
    THREADS=1 OBSERVATIONS=24 bench bench_one_thread "sequential,x0,chord,collocation,auto"
fi

if wanted benchmarks; then
    [[ -f $OUT/parataa_options.json ]] || measure samplers.parataa_options --threads "$THREADS"
    best=$(found best)
    measure samplers.pareto --threads "$THREADS" --observations 6 --parataa-options "${best#parataa:}"
    measure samplers.residuals --threads "$THREADS" --observations 8
    measure samplers.rounds_vs_steps --threads "$THREADS" --observations 8
    measure engine.latency_vs_batch
fi

if wanted bounds; then
    for run in {chord,collocation}:{ddpm:100:${CASES_DDPM:-2000},ddim:16:${CASES:-10000}}; do
        IFS=: read -r sampler kind steps cases <<<"$run"
        "$BIN/python" -m benchmarks.samplers.error_bounds --checkpoint "$CHECKPOINT" --device "$DEVICE" \
            --sampler "$sampler" --scheduler "$kind" --steps "$steps" --cases "$cases" --threads "$THREADS" \
            --json "$OUT/error_bounds_${sampler}_$kind$steps.json"
    done
fi

if wanted engine; then
    measure engine --threads "$THREADS"
    "$BIN/python" -m benchmarks.engine.results "$OUT" docs/performance.md
fi

models() { # RUN ...   as benchmarks.samplers.error_per_round names them
    for run in "$@"; do
        [[ ! -d $MODELS/$run/checkpoint ]] || printf '%s=%s,' "$run" "$MODELS/$run/checkpoint"
    done | sed 's/,$//'
}

if wanted pcm; then
    whole="paradigms,paradigms:start=prior,x0,chord,chord:window=none,lookahead=none"
    measure samplers.error_per_round --threads "$THREADS" --samplers "$whole" --options "$PCM_OPTIONS" \
        --models "$(models identity_picard identity x0 chord_picard chord_full chord)"
    "$BIN/python" -m benchmarks.samplers.error_per_round --checkpoint "$CHECKPOINT" --device "$DEVICE" \
        --json "$OUT/error_per_round_ddim16.json" --plot "$OUT/error_per_round_ddim16.png" \
        --threads "$THREADS" --scheduler ddim --steps 16 --samplers "$whole" --options "$PCM_OPTIONS" \
        --models "$(models ddim_identity ddim_chord)"
    bench bench_pcm "sequential,paradigms,chord,chord:window=none,lookahead=none,pcm,pcm:splitting=identity,window=20"
    bench bench_pcm_ddim16 "sequential,paradigms,chord,pcm,pcm:splitting=identity,window=20" --scheduler ddim --steps 16
    evaluate evaluate_pcm "sequential,pcm" "$EPISODES_PCM"
    evaluate evaluate_pcm_guess "sequential,chord,pcm,pcm+guess" "$EPISODES_CUT" --check-errors
    # Approximate: cut after so many rounds, without going on to convergence.
    cut=sequential
    for k in 1 2 3; do
        cut+=",pcm:horizon=9,max_rounds=$k,chord:max_rounds=$k,x0:max_rounds=$k,paradigms:max_rounds=$k"
    done
    evaluate evaluate_cut "$cut" "$EPISODES_CUT"
    for k in 2 4; do
        evaluate "evaluate_ddim$k" sequential "$EPISODES_CUT" --scheduler ddim --steps "$k"
    done
fi

if wanted evaluate; then
    evaluate evaluate "$EVALUATED" "$EPISODES"
    ((EPISODES_DDIM == 0)) || evaluate evaluate_ddim16 "sequential,paradigms,parataa,chord,collocation" \
        "$EPISODES_DDIM" --scheduler ddim --steps 16
    ((EPISODES_GUESS == 0)) || evaluate evaluate_guess "sequential,chord,chord+guess,sequential+noise,chord+guess+noise" \
        "$EPISODES_GUESS" --check-errors
fi

if wanted page; then
    "$BIN/python" -m scripts.results_page "$OUT" "$PAGE" "$PICTURES"
fi
