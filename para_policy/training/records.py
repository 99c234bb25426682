"""Records of a training run: losses and learning rate over steps, one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from para_policy.files import write_text


@dataclass(frozen=True)
class Records:
    """The file `metrics.jsonl`.

    Attributes:
        path: of it; it need not be there.
    """

    path: Path

    def read(self) -> list[dict[str, float]]:
        """All whole lines; one that a crash has cut off is passed over."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def add(self, record: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def cut(self, step: int) -> None:
        """Forget what came after `step`."""
        kept = [record for record in self.read() if record["step"] <= step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
