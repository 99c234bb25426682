#!/usr/bin/env bash
# LeRobot 0.6.1: lerobot-eval does not find its own PushT, unless it plays one episode at a time.
#
# It makes its environments as below. Asynchronous ones are the default for more than one, and live in
# processes of a fork server, which have not imported gym_pusht: the name is registered in the parent
# alone. With --eval.use_async_envs=false or --eval.batch_size=1 it plays.
#
# Seen: in the processes NamespaceNotFound: Namespace gym_pusht not found. Have you installed the proper
# package for gym_pusht? The program itself ends with a ConnectionResetError.
#
# Takes a few minutes and 6 GB on disk for the time: LeRobot brings PyTorch. Needs Python 3.12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.12 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'lerobot[pusht]==0.6.1' gym-pusht==0.1.8 gymnasium==1.4.0
cd "$folder"
# A file, as the processes of a fork server read it.
cat > play.py <<'PY'
import sys

from lerobot.configs.default import EvalConfig
from lerobot.envs.configs import PushtEnv
from lerobot.envs.factory import make_env

if __name__ == "__main__":
    evaluation = EvalConfig(n_episodes=2, batch_size=2)
    assert evaluation.use_async_envs, "no longer the default"
    in_processes = sys.argv[1] == "default"
    boards = make_env(PushtEnv(), evaluation.batch_size, in_processes)["pusht"][0]
    seen, _ = boards.reset(seed=[0, 1])
    print(f"{sys.argv[1]}: two boards, images {seen['pixels'].shape}")
PY
if "$folder/venv/bin/python" play.py default > log 2>&1; then
    tail -1 log
    exit 1
fi
echo "default: $(grep -o -m 1 'NamespaceNotFound: Namespace gym_pusht not found.*' log)"
"$folder/venv/bin/python" play.py use_async_envs=false 2> log | tail -1 | grep 'two boards' || { tail log; exit 1; }
