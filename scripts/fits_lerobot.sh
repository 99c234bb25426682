#!/usr/bin/env bash
# Shows that the plug-in fits into an installation of LeRobot, and changes nothing in it.
#
#   scripts/fits_lerobot.sh [VERSION ...]     releases of LeRobot; default 0.4.4 and 0.6.1
#
# In a new environment for each: LeRobot with its diffusion policies as its users install it (some GB), the
# plug-in, and what changed. Nothing may be replaced, removed, contradict a pin or bring a second
# OpenCV. Then the tests that need LeRobot run there. PYTHON chooses the interpreter (3.12 serves both).
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3.12}
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT

[ $# -gt 0 ] || set -- 0.4.4 0.6.1
for version in "$@"; do
    home=$FOLDER/$version
    "$PYTHON" -m venv "$home"
    pip() { "$home/bin/python" -m pip --disable-pip-version-check "$@"; }
    pip install --quiet "lerobot[diffusion]==$version"
    pip freeze | sort > "$home/before"
    pip check > "$home/check_before" || true
    pip install --quiet ./lerobot_plugin
    pip freeze | sort > "$home/after"
    pip check > "$home/check_after" || true

    echo "LeRobot $version: new are"
    comm -13 "$home/before" "$home/after" | sed 's/^/    /'
    if gone=$(comm -23 "$home/before" "$home/after") && [ -n "$gone" ]; then
        echo "replaced or removed: $gone"
        exit 1
    fi
    if ! diff "$home/check_before" "$home/check_after"; then
        echo "pip check finds more than before"
        exit 1
    fi
    if comm -13 "$home/before" "$home/after" | grep -i opencv; then
        echo "a second OpenCV"
        exit 1
    fi
    pip install --quiet pytest pytest-timeout hypothesis
    "$home/bin/python" -m pytest -q -rs tests/adapters/test_accelerate_lerobot.py tests/lerobot_plugin
    rm -rf "$home"
done
