#!/usr/bin/env bash
# Makes .venv/ with everything that `make demo` and `make test` need. Safe to run again: it does
# nothing while the requirement files are unchanged. PYTHON=python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv
CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 2; }

command -v "$PYTHON" >/dev/null || fail "$PYTHON not found; run: sudo apt install python3 python3-venv"
"$PYTHON" - <<'PY' || fail "$PYTHON is $("$PYTHON" -V 2>&1); Python 3.11, 3.12 or 3.13 is needed. Install one and run: make PYTHON=python3.12 ..."
import sys
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PY
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || fail "the venv module is missing; run: sudo apt install python3-venv"

stamp=$VENV/.setup-$(cat constraints.txt requirements-ros.txt setup.py "$0" | sha256sum | cut -c1-16)
if [ -e "$stamp" ]; then exit 0; fi

[ -x $VENV/bin/python ] || { say "making $VENV"; "$PYTHON" -m venv $VENV; }
pip() { $VENV/bin/python -m pip --disable-pip-version-check --quiet "$@" -c constraints.txt; }

if ! $VENV/bin/python -c 'import torch' 2>/dev/null; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
        say "installing PyTorch for the NVIDIA GPU"
        pip install torch || fail "PyTorch could not be installed; check the network"
    else
        say "installing PyTorch (CPU build)"
        version=$(sed -n 's/^torch==//p' constraints.txt)
        # A package index that cannot be reached is skipped at once instead of after many retries.
        pip install --retries 1 --extra-index-url $CPU_INDEX "torch==$version+cpu" \
            || pip install "torch==$version" || fail "PyTorch could not be installed; check the network"
    fi
fi

say "installing para_policy and its packages"
pip install setuptools
pip install --no-build-isolation -e '.[test,dev]' || fail "the packages could not be installed; check the network"

# opencv-python needs libGL, which a machine without a desktop lacks; the headless build does not.
if ! $VENV/bin/python -c 'import cv2' 2>/dev/null; then
    say "no libGL here: using the headless build of OpenCV"
    $VENV/bin/python -m pip --quiet uninstall -y opencv-python
    pip install --no-deps opencv-python-headless
fi

if $VENV/bin/python -c 'import rclpy' 2>/dev/null; then
    say "ROS 2: $($VENV/bin/python -c 'import rclpy; print(rclpy.__file__)')"
elif [ "$(uname -m)" = x86_64 ]; then
    say "installing ROS 2 Jazzy wheels (rclpy, Fast DDS)"
    pip install -r requirements-ros.txt || fail "the ROS 2 wheels could not be installed; check the network, or install ROS 2 and source it"
else
    fail "no ROS 2 wheels exist for $(uname -m); install ROS 2 with apt, source its setup.bash, and run again"
fi

rm -f $VENV/.setup-*
touch "$stamp"
say "ready"
