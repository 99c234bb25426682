#!/usr/bin/env bash
# Trains every Picard consistency model that docs/results.md compares, and the ones that ship.
#
#   scripts/distill.sh [RUN ...]     runs below; default all short ones, one after the other
#
# One CPU thread takes about two hours for the short ones; runs resume, and independent runs may share a
# machine. Copy what is to be used from OUT/<run>/checkpoint to checkpoints/pusht_state_pcm.
#
# A long run is SOLVE+VARIANT, as ddim_chord+informed: STEPS steps on COUNT trajectories, 3 to 25 hours of a
# thread. DEVICE=cuda takes a GPU. ROUNDS=1 BATCH=4 has a quarter of the network rows of what is below in each
# step, and one drafted round is what `pcm` makes by itself; it needs an OUT of its own.
#   SOLVE     chord, identity (DDPM, 100 steps), ddim_chord, ddim_identity (DDIM, 16)
#   VARIANT   rank64: the plain one, of which each other one differs in one thing:
#             rank16, full (all weights, a tenth of the learning rate), picard (iterates of the base model,
#             the paper's), informed (sees round and spread), rows (loss row by row), parts (all three parts
#             of the loss), sparse (every eighth row)
set -euo pipefail
cd "$(dirname "$0")/.."

CHECKPOINT=${CHECKPOINT:-checkpoints/pusht_state}
DATA=${DATA:-../shared/pusht/pusht_cchi_v7_replay.zarr}
OUT=${OUT:-outputs/pcm}
DEVICE=${DEVICE:-cpu}
THREADS=${THREADS:-1}
STEPS=${STEPS:-20000}
COUNT=${COUNT:-10240}
export OMP_NUM_THREADS=$THREADS
mkdir -p "$OUT"

trajectories() { # SCHEDULER STEPS SPLITTING COUNT [STORE ARGUMENT...]
    local store=${5:-$1_$2_$3}
    .venv/bin/para-policy trajectories --checkpoint "$CHECKPOINT" --data "$DATA" --device "$DEVICE" \
        --threads "$THREADS" --scheduler "$1" --steps "$2" --splitting "$3" --count "$4" --output "$OUT/$store.zarr" "${@:6}"
}

distill() { # RUN STORE ARGUMENT...
    local output=$OUT/$1 store=$OUT/$2.zarr resume=()
    shift 2
    compgen -G "$output/state/step_*" > /dev/null && resume=(--resume)
    .venv/bin/para-policy distill --checkpoint "$CHECKPOINT" --data "$store" --device "$DEVICE" \
        --threads "$THREADS" --output "$output" "${resume[@]}" "$@"
}

long() { # SOLVE VARIANT
    local rank=64 rate=1e-3 stride=1 rounds=2 batch=8 process options=()
    case $1 in
        chord) process=(ddpm 100 chord) stride=2 ;;
        identity) process=(ddpm 100 identity) rounds=4 batch=4 ;;
        ddim_chord) process=(ddim 16 chord) ;;
        ddim_identity) process=(ddim 16 identity) rounds=4 ;;
        *) unknown "$1+$2" ;;
    esac
    case $2 in
        rank64) ;;
        rank16) rank=16 ;;
        full) rank=0 rate=1e-4 ;;
        picard) options=(--objective picard) ;;
        informed) options=(--informed) ;;
        rows) options=(--trajectory-loss 0 --row-loss 1) ;;
        parts) options=(--row-loss 1 --neighbour-loss 1) ;;
        sparse) stride=8 ;;
        *) unknown "$1+$2" ;;
    esac
    rounds=${ROUNDS:-$rounds} batch=${BATCH:-$batch}
    local store=long_$1
    trajectories "${process[@]}" "$COUNT" "$store" --rounds "$rounds"
    distill "$1+$2" "$store" --rank "$rank" --learning-rate "$rate" --stride "$stride" --batch-size "$batch" \
        --steps "$STEPS" --warmup-steps 500 --log-every 250 --checkpoint-every 500 "${options[@]}"
}

unknown() { # RUN
    echo "unknown run '$1'; expected some of ${runs[*]}, or SOLVE+VARIANT as above" >&2
    exit 2
}

runs=(chord chord_picard chord_full x0 identity identity_picard ddim_chord ddim_identity)
for run in "${@:-${runs[@]}}"; do
    case $run in
        chord)
            trajectories ddpm 100 chord 4096
            distill chord ddpm_100_chord --stride 2 --steps 1000
            ;;
        chord_picard)
            trajectories ddpm 100 chord 4096
            distill chord_picard ddpm_100_chord --stride 2 --steps 500 --objective picard
            ;;
        chord_full)
            trajectories ddpm 100 chord 4096
            distill chord_full ddpm_100_chord --stride 2 --steps 300 --rank 0 --learning-rate 1e-4
            ;;
        x0)
            trajectories ddpm 100 x0 2048
            distill x0 ddpm_100_x0 --stride 2 --steps 500
            ;;
        identity)
            trajectories ddpm 100 identity 2048
            distill identity ddpm_100_identity --steps 500 --batch-size 4
            ;;
        identity_picard)
            trajectories ddpm 100 identity 2048
            distill identity_picard ddpm_100_identity --steps 500 --batch-size 4 --objective picard
            ;;
        ddim_chord)
            trajectories ddim 16 chord 4096
            distill ddim_chord ddim_16_chord --steps 1000
            ;;
        ddim_identity)
            trajectories ddim 16 identity 4096
            distill ddim_identity ddim_16_identity --steps 1000
            ;;
        *+*) long "${run%%+*}" "${run#*+}" ;;
        *) unknown "$run" ;;
    esac
done
