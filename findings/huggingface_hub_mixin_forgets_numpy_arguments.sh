#!/usr/bin/env bash
# huggingface_hub 2.4: a model that was made with NumPy numbers has its defaults again when it is loaded.
#
# ModelHubMixin (PyTorchModelHubMixin, too) writes the arguments of __init__ into config.json, and in place of one
# that JSON cannot hold the default. np.int64, np.float32 and arrays are such: statistics of a data set, a grid
# of experiments. np.float64 is not, so it depends on the type of the data what is kept. Nothing is said
# when saving or loading, and unless the shape of a weight depends on the argument the policy then runs with
# another horizon, scale or limit. int(), float() and tolist() help, or coders={np.generic: ...}.
#
# Seen: steps=np.int64(100), scale=np.float32(0.5), limits=np.array([-2, 2]), rate=np.float64(30) come back as
# 10, 1.0, None and 30.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet huggingface_hub==2.4.0 jinja2==3.1.6 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W error - <<'PY'
import json
import logging
from pathlib import Path

import numpy as np
from huggingface_hub import ModelHubMixin

logged = []
handler = logging.Handler()
handler.emit = logged.append
logging.getLogger().addHandler(handler)
logging.getLogger("huggingface_hub").addHandler(handler)


class Policy(ModelHubMixin):
    def __init__(self, steps: int = 10, scale: float = 1.0, limits=None, rate: float = 10.0):
        self.arguments = {"steps": steps, "scale": scale, "limits": limits, "rate": rate}

    def _save_pretrained(self, save_directory: Path) -> None:
        """No weights here."""

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **kwargs) -> "Policy":
        return cls(**{name: kwargs[name] for name in ("steps", "scale", "limits", "rate")})


given = {
    "steps": np.int64(100),
    "scale": np.float32(0.5),
    "limits": np.array([-2.0, 2.0]),
    "rate": np.float64(30.0),
}
Policy(**given).save_pretrained("numpy")
found = Policy.from_pretrained("numpy").arguments
print("given: ", given)
print("config:", json.loads(Path("numpy/config.json").read_text()))
print("loaded:", found)
assert found == {"steps": 10, "scale": 1.0, "limits": None, "rate": 30.0}

plain = {"steps": 100, "scale": 0.5, "limits": [-2.0, 2.0], "rate": 30.0}
Policy(**plain).save_pretrained("plain")
assert Policy.from_pretrained("plain").arguments == plain
assert not logged, logged
PY
