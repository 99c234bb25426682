#!/usr/bin/env bash
# Trains every Picard consistency model that docs/results.md compares, and the ones that ship.
#
#   scripts/distill.sh [RUN ...]     runs below; default all of them, one after the other
#
# One CPU thread takes about two hours for all; runs resume, and independent runs may share a machine.
# Copy what is to be used from OUT/<run>/checkpoint to checkpoints/pusht_state_pcm.
set -euo pipefail
cd "$(dirname "$0")/.."

CHECKPOINT=${CHECKPOINT:-checkpoints/pusht_state}
DATA=${DATA:-../shared/pusht/pusht_cchi_v7_replay.zarr}
OUT=${OUT:-outputs/pcm}
THREADS=${THREADS:-1}
export OMP_NUM_THREADS=$THREADS
mkdir -p "$OUT"

trajectories() { # SCHEDULER STEPS SPLITTING COUNT
    .venv/bin/para-policy trajectories --checkpoint "$CHECKPOINT" --data "$DATA" --threads "$THREADS" \
        --scheduler "$1" --steps "$2" --splitting "$3" --count "$4" --output "$OUT/$1_$2_$3.zarr"
}

distill() { # RUN STORE ARGUMENT...
    local output=$OUT/$1 store=$OUT/$2.zarr resume=()
    shift 2
    compgen -G "$output/state/step_*" > /dev/null && resume=(--resume)
    .venv/bin/para-policy distill --checkpoint "$CHECKPOINT" --data "$store" --threads "$THREADS" \
        --device cpu --output "$output" "${resume[@]}" "$@"
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
        *)
            echo "unknown run '$run'; expected some of ${runs[*]}" >&2
            exit 2
            ;;
    esac
done
