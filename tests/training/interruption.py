"""Stop a training run in the middle, as Ctrl-C does."""

from __future__ import annotations

from typing import Any

import pytest

from para_policy.training import trainer


def interrupt_at(monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    step = trainer.Trainer.step

    def interrupted(self: Any, k: int) -> Any:
        if k == stop:
            raise KeyboardInterrupt
        return step(self, k)

    monkeypatch.setattr(trainer.Trainer, "step", interrupted)
