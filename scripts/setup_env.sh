#!/usr/bin/env bash
# Makes .venv/ with everything that `make demo` and `make test` need. Safe to run again: it does
# nothing while the requirement files are unchanged, and no GPU has come or gone. PYTHON=python3.12 chooses
# the interpreter.
#
# On a 64-bit ARM board with a GPU (Jetson) the torch that NVIDIA built for it is taken from that interpreter:
# the builds of the package index do not run there. ROS 2 is the robot's own, from apt.
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

# "none", "cpu" or "cuda": what the torch of an interpreter was built for, without loading it.
torch_of() {
    "$1" - <<'PY'
import runpy
from importlib.util import find_spec

torch = find_spec("torch")
if torch is None:
    print("none")
else:
    said = runpy.run_path(torch.submodule_search_locations[0] + "/version.py")
    print("cuda" if said.get("cuda") else "cpu")
PY
}

machine=cpu site=
if [ -e /etc/nv_tegra_release ] || { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }; then
    machine=gpu
    if [ "$(uname -m)" = aarch64 ] && [ "$(torch_of "$PYTHON")" = cuda ]; then site=--system-site-packages; fi
fi

stamp=$VENV/.setup-$(cat constraints.txt requirements-ros.txt setup.py "$0" <(echo "$machine $site") | sha256sum | cut -c1-16)
if [ -e "$stamp" ]; then exit 0; fi

if [ ! -x $VENV/bin/python ]; then
    say "making $VENV"
    "$PYTHON" -m venv $site $VENV
elif [ -n "$site" ]; then
    "$PYTHON" -m venv $site $VENV # it sees what is installed outside from now on
fi
pins=constraints.txt
pip() { $VENV/bin/python -m pip --disable-pip-version-check --quiet "$@" -c "$pins"; }

version=$(sed -n 's/^torch==//p' constraints.txt)
if [ -n "$site" ]; then
    say "using the PyTorch of $PYTHON, which was built for this board"
    if [ "$(torch_of $VENV/bin/python)" = cpu ]; then $VENV/bin/python -m pip --quiet uninstall -y torch; fi
    pins=$VENV/constraints.txt # its versions of torch, and of the numpy that it was built against
    grep -v -e '^torch==' -e '^numpy==' constraints.txt >"$pins"
    "$PYTHON" -m pip --disable-pip-version-check freeze --all | grep -E '^(torch|numpy)==' >>"$pins" \
        || fail "the pip of $PYTHON does not know the torch that it has"
elif [ $machine = gpu ] && [ "$(torch_of $VENV/bin/python)" != cuda ]; then
    say "installing PyTorch for the NVIDIA GPU"
    # A CPU build of the same version would do for pip.
    pip install --force-reinstall "torch==$version" || fail "PyTorch could not be installed; check the network"
    if [ "$(torch_of $VENV/bin/python)" != cuda ]; then
        say "no build for the GPU of this machine ($(uname -m)) is on the package index: the CPU is used."
        say "Install the one that NVIDIA offers for this board, for $PYTHON, and run again"
    fi
elif ! $VENV/bin/python -c 'import torch' 2>/dev/null; then
    say "installing PyTorch (CPU build)"
    # A package index that cannot be reached is skipped at once instead of after many retries.
    pip install --retries 1 --extra-index-url $CPU_INDEX "torch==$version+cpu" \
        || pip install "torch==$version" || fail "PyTorch could not be installed; check the network"
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
