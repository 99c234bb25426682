"""What a drafted round can be worth: noise given a row, and networks whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import common
from benchmarks.samplers import pcm_drafts
from para_policy import load_policy
from para_policy.checkpoints.native import save_checkpoint
from para_policy.checkpoints.observations import save_observations
from para_policy.errors import InputError
from para_policy.policies.build import build_network
from para_policy.policies.normalizer import LinearNormalizer
from tests.checkpoint import calibrate_tiny_checkpoint, random_observations, tiny_config


def save(directory: Path, *, blind: bool = False) -> Path:
    """A random network, calibrated for both schedulers; a `blind` one predicts the clean sample from the
    observation and the step alone."""
    small = tiny_config(train_timesteps=10)
    schedule = {**small.noise_scheduler, "prediction_type": "sample" if blind else "epsilon"}
    config = small.model_copy(update={"noise_scheduler": schedule})
    torch.manual_seed(0)
    weights = build_network(config).state_dict()
    sees_the_state = [name for name, w in weights.items() if w.ndim == 3 and w.shape[1] == 2]
    assert len(sees_the_state) == 2, "a convolution and the one past its block"
    for name in sees_the_state:
        weights[name] *= not blind
    board = np.array([[0.0] * 16, [512.0] * 16], dtype=np.float32)
    widths = {"environment_state": 16, "agent_pos": 2, "action": 2}
    normalizers = {name: LinearNormalizer.fit(board[:, :n]) for name, n in widths.items()}
    save_checkpoint(directory, config, weights, normalizers)
    save_observations(directory, random_observations(6))
    for scheduler in ("ddpm", "ddim"):
        calibrate_tiny_checkpoint(directory, scheduler, 10)
    return directory


def measure(checkpoint: Path, scheduler: str = "ddpm", **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"observations": 3, "draws": 3, "engine": "eager", **changes}
    json = checkpoint / "out.json"
    made = pcm_drafts.Options(
        json=json, checkpoint=checkpoint, scheduler=scheduler, steps=10, **options
    )
    document = pcm_drafts.measure(made)
    common.plots.save(pcm_drafts.figure, document, json.with_suffix(".png"))
    return document


def test_noise_drawn_again_keeps_the_state_shown_and_is_free_otherwise() -> None:
    shown = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(1, 4, 3, dtype=torch.float64, generator=generator)
    fresh = torch.randn(20_000, 4, 3, dtype=torch.float64, generator=generator)
    again = pcm_drafts.redrawn(shown, known, fresh)
    state = torch.einsum("s,nsd->nd", shown, again)
    torch.testing.assert_close(state, torch.einsum("s,nsd->nd", shown, known).expand_as(state))
    # A standard normal vector given its product with `shown`.
    along = shown / shown.norm()
    expected = torch.eye(4, dtype=torch.float64) - torch.outer(along, along)
    torch.testing.assert_close(torch.cov(again[:, :, 0].T), expected, atol=0.03, rtol=0)
    mean = along[:, None] * torch.einsum("s,sd->d", along, known[0])
    torch.testing.assert_close(again.mean(dim=0), mean, atol=0.03, rtol=0)


def test_where_a_row_knows_all_its_sweep_lands(tmp_path: Path) -> None:
    document = measure(save(tmp_path, blind=True))
    assert document["unknown"]["identity"]["share"] == pytest.approx(0, abs=1e-9)
    assert document["drafts"]["identity"][pcm_drafts.SWEPT]["error_median"] > 1e-3
    # Chord's own sweep lands, too: there are no Jacobians to be wrong.
    assert document["drafts"]["chord"][pcm_drafts.SWEPT]["error_median"] < 1e-5
    for splitting in pcm_drafts.SPLITTINGS:
        drafts = document["drafts"][splitting]
        assert drafts[pcm_drafts.START]["error_median"] > 1e-3
        assert drafts[pcm_drafts.BEST]["error_median"] < 1e-5
        assert drafts[pcm_drafts.BEST]["rounds_mean"] <= 2


def test_what_other_noise_decides_a_row_cannot_know(tmp_path: Path) -> None:
    document = measure(save(tmp_path), draws=4)
    for splitting in pcm_drafts.SPLITTINGS:
        share = document["unknown"][splitting]
        assert 1e-4 < share["share"] < 1.5
        assert share["share_ci95"][0] <= share["share"] <= share["share_ci95"][1]
        drafts = document["drafts"][splitting]
        assert drafts[pcm_drafts.BEST]["error_median"] > 1e-5
        nearer = [drafts[f"{share:g} of its error"] for share in pcm_drafts.SHARES]
        swept = drafts[pcm_drafts.SWEPT]
        for known, draft in zip(pcm_drafts.SHARES, nearer, strict=True):
            assert draft["error_median"] == pytest.approx(known * swept["error_median"], rel=0.02)
            assert draft["rounds_mean"] <= swept["rounds_mean"]


def test_a_draft_for_collocation_is_what_its_solve_goes_on_from(tmp_path: Path) -> None:
    """From its own start, and from the solution."""
    checkpoint = save(tmp_path)
    drafts = measure(checkpoint)["drafts"][pcm_drafts.NODES]
    policy = load_policy(checkpoint)
    sampler = policy.sampler(pcm_drafts.NODES, scheduler="ddpm", steps=10)
    observations = random_observations(6)
    rows = []
    for i in range(3):
        observation = {name: values[i] for name, values in observations.items()}
        rows.append(policy.sample(observation, sampler=sampler, seed=i).stats.evals)
    start = drafts[pcm_drafts.START]
    assert start["rows"] == np.ravel(rows).tolist()
    assert start["rows_saved_mean"] == start["rounds_saved_mean"] == 0
    nearest = drafts["0.01 of its error"]
    assert nearest["error_median"] == pytest.approx(
        0.01 * drafts[pcm_drafts.SWEPT]["error_median"], rel=0.02
    )
    saved = np.subtract(start["rows"], nearest["rows"])
    assert nearest["rows_saved_mean"] == pytest.approx(saved.mean())
    assert nearest["rows_mean"] < start["rows_mean"]
    low, high = nearest["rows_saved_ci95"]
    assert low <= saved.mean() <= high


def test_without_noise_of_steps_there_is_nothing_to_draw_again(tmp_path: Path) -> None:
    checkpoint = save(tmp_path)
    document = measure(checkpoint, "ddim")
    assert document["draws"] is None
    assert document["unknown"] == dict.fromkeys(pcm_drafts.SPLITTINGS)
    assert all(pcm_drafts.BEST not in drafts for drafts in document["drafts"].values())
    with pytest.raises(InputError, match="--draws is 1; expected at least 2"):
        measure(checkpoint, draws=1)
