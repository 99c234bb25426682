"""What all benchmarks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common import Common, circumstances, load
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.checkpoints.observations import save_observations
from para_policy.errors import CheckpointError
from tests.checkpoint import put_in_hub_cache, random_observations, save_tiny_checkpoint


def test_a_checkpoint_of_the_hub_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = save_tiny_checkpoint(tmp_path / "tiny", 8)
    save_observations(tiny, random_observations(4))
    put_in_hub_cache(tiny, tmp_path / "hub", monkeypatch)
    options = Common(tmp_path / "numbers.json", checkpoint=Path("someone/tiny"))
    subject = load(options)
    assert subject.available == 4
    told = circumstances(options, subject.policy)
    assert told["checkpoint"] == "someone/tiny"
    assert told["checkpoint_sha256"] == checkpoint_hash(tiny)
    with pytest.raises(CheckpointError, match="someone/else"):
        load(Common(tmp_path / "numbers.json", checkpoint=Path("someone/else")))
