#!/usr/bin/env bash
# Everything that needs a GPU, within fifteen minutes: the tests marked gpu, then the table of the engines.
#
#   scripts/gpu_check.sh [--wheels DIR] [--budget-s 900] [--device cuda] [--out outputs/gpu]
#
# The parts that matter most come first, and the numbers are written after each: what was measured is
# kept when the time is over. A failed test does not keep the table from being measured. Runs with
# .venv, or else with PYTHON or python3, with the torch that is installed there. Where packages cannot be
# fetched, it says which are missing, and --wheels DIR installs them from a folder, beside that torch.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
CHECKPOINT=${CHECKPOINT:-checkpoints/pusht_state}
# What the package needs, and its tests.
NEEDED="diffusers filelock numpy pillow pydantic pyyaml rich safetensors scipy torch tyro hypothesis pytest"
DEVICE=cuda BUDGET=900 OUT=outputs/gpu WHEELS=

fail() { printf 'gpu_check: %s\n' "$*" >&2; exit 2; }
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || fail "$1 needs a value"
    case $1 in
        --wheels) WHEELS=$2 ;;
        --budget-s) BUDGET=$2 ;;
        --device) DEVICE=$2 ;;
        --out) OUT=$2 ;;
        *) fail "unknown option '$1'; expected --wheels, --budget-s, --device or --out" ;;
    esac
    shift 2
done
[[ $BUDGET =~ ^[1-9][0-9]*$ ]] || fail "--budget-s is '$BUDGET'; expected whole seconds"
SECONDS=0 # bash counts them
left() { echo $((BUDGET > SECONDS ? BUDGET - SECONDS : 0)); }

missing() {
    "$PYTHON" - $NEEDED <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version

for name in sys.argv[1:]:
    try:
        version(name)
    except PackageNotFoundError:
        print(name, end=" ")
PY
}
command -v "$PYTHON" >/dev/null || fail "$PYTHON not found; PYTHON=... names another interpreter"
lacks=$(missing) || fail "$PYTHON does not work"
mkdir -p "$OUT"
if [ -n "$lacks" ] && [ -n "$WHEELS" ]; then
    [ -d "$WHEELS" ] || fail "--wheels $WHEELS is no folder"
    echo "installing from $WHEELS: $lacks"
    # An environment of its own that also sees what is installed where $PYTHON looks.
    "$PYTHON" -m venv --without-pip --clear "$OUT/venv" || fail "no environment could be made in $OUT/venv"
    "$PYTHON" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
        >"$(echo "$OUT"/venv/lib/python*/site-packages)/machine.pth"
    "$PYTHON" -m pip --disable-pip-version-check --python "$OUT/venv/bin/python" install --quiet \
        --no-index --find-links "$WHEELS" $lacks || fail "$WHEELS does not hold what is needed; see above"
    PYTHON=$OUT/venv/bin/python
    lacks=$(missing)
fi
if [ -n "$lacks" ]; then
    release=$("$PYTHON" -c 'import sys; print("{}.{}".format(*sys.version_info))')
    platforms=$(printf -- '--platform %s ' {manylinux_2_28,manylinux_2_17,manylinux2014}_"$(uname -m)")
    fail "not installed for $PYTHON: $lacks
Where there is a network, run
    python3 -m pip download --dest wheels --only-binary :all: --python-version $release $platforms$lacks
and here: scripts/gpu_check.sh --wheels wheels"
fi

export PYTHONUNBUFFERED=1 # the log shows how far it has come
"$PYTHON" - "$DEVICE" <<'PY' || fail "device $DEVICE cannot be used by this torch; for a GPU install a CUDA build"
import sys, torch
print("torch", torch.__version__, "on", torch.zeros(1, device=sys.argv[1]).device)
PY

# Recorded rounds and engines: what would be wrong is known before what is fast.
timeout -k 10 $((BUDGET < 480 ? BUDGET / 4 : 120)) "$PYTHON" -m pytest -m gpu -q -rs -p no:cacheprovider \
    tests/inference/test_recorded.py tests/inference/test_gpu.py tests/planning/test_statistics.py \
    2>&1 | tee "$OUT/tests.txt"
tests=${PIPESTATUS[0]}
# What has begun is brought to an end, for which a tenth is kept; the limit outside is for what hangs.
[ "$(left)" -ge 10 ] || fail "nothing is left of --budget-s $BUDGET for the table"
timeout -k 10 "$(left)" "$PYTHON" -m benchmarks.engine --checkpoint "$CHECKPOINT" --device "$DEVICE" \
    --budget-s $(($(left) * 9 / 10)) --json "$OUT/engine.json" 2>&1 | tee "$OUT/engine.txt"
table=${PIPESTATUS[0]}
echo "gpu_check: tests ended with $tests, the table with $table, after $SECONDS s; numbers: $OUT/engine.json"
exit $((tests ? tests : table))
