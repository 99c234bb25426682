"""Unfinished calibration beside a checkpoint, from which a stopped measurement goes on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from para_policy.calibration import Calibration
from para_policy.checkpoints.calibration import read_calibration, write_calibration
from para_policy.errors import CheckpointError


@dataclass(frozen=True)
class PartialCalibration:
    """The file `<scheduler>_<steps>.partial`.

    Attributes:
        path: of it; it need not be there.
        identity: all that is measured depends on, as JSON; `weights_sha256` and `noise_scheduler`
            are part of it.
    """

    path: Path
    identity: Mapping[str, Any]

    def load(self) -> Calibration | None:
        """What was measured; None if there is nothing, or something else.

        What an earlier release kept may lack parts. It is not completed: `collocation` in it was measured
        without them.
        """
        if not self.path.exists():
            return None
        try:
            calibration, facts = read_calibration(self.path)
        except CheckpointError:  # measuring again is the remedy
            return None
        if any(facts.get(key) != value for key, value in self.identity.items()):
            return None
        if not calibration.complete:
            warnings.warn(
                f"'{self.path}' was begun by an earlier release, which measured less: the calibration "
                "begins anew",
                stacklevel=2,
            )
            return None
        return calibration

    def keep(self, calibration: Calibration) -> None:
        write_calibration(self.path, calibration, self.identity)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
