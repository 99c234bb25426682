#!/usr/bin/env bash
# draccus 0.10 and 0.11: a text on the command line is read as YAML 1.1, and what comes of it made a text again.
#
# draccus is the command line of LeRobot. The field says `str`, and yet --single_task="Stage 1: open the drawer"
# is a dictionary in YAML, so the task of the data set becomes "{'Stage 1': 'open the drawer'}"; in
# "Push block #2" the number is a comment; a robot's id "010" is the octal 8, "1.10" is 1.1 and "on" is True.
# No error, no warning; floats, too, take 010 for 8. A value in two pairs of quotes,
# --single_task='"Stage 1: open the drawer"', is kept.
#
# Seen: as said, with 0.10.0 and with 0.11.6, the oldest that LeRobot 0.6.1 takes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 0.10.0 0.11.6; do
    python3 -m venv --clear "$folder/venv"
    "$folder/venv/bin/pip" install --quiet draccus==$version pyyaml==6.0.4
    "$folder/venv/bin/python" -W error - <<'PY'
from dataclasses import dataclass
from importlib.metadata import version

import draccus

KEPT = ["Push the block", "left arm", "2026-11-30", "1e3", "08"]
CHANGED = {
    "Stage 1: open the drawer": "{'Stage 1': 'open the drawer'}",
    "Push block #2": "Push block",
    "010": "8",
    "1_000": "1000",
    "1.10": "1.1",
    "12:30": "750",
    "on": "True",
}


@dataclass
class Config:
    text: str = ""
    speed: float = 0.0


def read(text: str) -> str:
    return draccus.parse(Config, args=[f"--text={text}"]).text


print(f"draccus {version('draccus')}")
for text in KEPT:
    assert read(text) == text
for text, expected in CHANGED.items():
    found = read(text)
    print(f"  {text} -> {found}")
    assert found == expected and isinstance(found, str)
    assert read(f'"{text}"') == text
speed = draccus.parse(Config, args=["--speed=010"]).speed
print(f"  --speed=010 -> {speed}")
assert speed == 8.0
PY
done
