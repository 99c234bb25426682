"""Every benchmark runs, on a tiny network, and draws what it measured."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import common
from benchmarks.engine import latency_vs_batch
from benchmarks.samplers import (
    error_bounds,
    error_per_round,
    parataa_options,
    pareto,
    pcm_oracle,
    residuals,
    reward_per_round,
    rounds_vs_steps,
)
from para_policy import load_policy, samplers
from para_policy.calibration import mean_jacobian
from para_policy.checkpoints.consistency import save_consistency
from para_policy.checkpoints.native import checkpoint_hash, read_config
from para_policy.checkpoints.observations import save_observations
from para_policy.errors import DataError, InputError
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.training.pcm.problem import Settings
from para_policy.training.pcm.trajectories import generate
from tests.checkpoint import (
    calibrate_tiny_checkpoint,
    random_observations,
    save_tiny_checkpoint,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, so the samplers have nothing to find; 100 steps as the benchmarks expect."""
    directory = save_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "tiny")
    random = np.random.default_rng(0)
    widths = {"environment_state": 16, "agent_pos": 2}
    save_observations(
        directory, {name: random.uniform(0, 512, (6, 2, size)) for name, size in widths.items()}
    )
    return directory


def run(module: Any, checkpoint: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """Measure, and draw from what the JSON file holds."""
    settings = module.Options(json=folder / "out.json", checkpoint=checkpoint, **options)
    document: dict[str, Any] = json.loads(json.dumps(module.measure(settings)))
    common.plots.save(module.figure, document, folder / "out.png")
    assert (folder / "out.png").stat().st_size > 1000
    assert {"device", "threads", "dtype", "date", "checkpoint_sha256"} <= set(document)
    return document


def test_pareto_shows_every_tolerance(checkpoint: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"paradigms": (0.1,), "parataa": (1e-2, 1e-3), "x0": (1e-2,)}
    options |= {"chord": (), "observations": 2, "parataa_options": "order=10,window=20"}
    document = run(pareto, checkpoint, tmp_path, **options)
    assert document["curves"]["parataa: order=10, window=20"] == [
        "parataa:tolerance=0.01,order=10,window=20",
        "parataa:tolerance=0.001,order=10,window=20",
    ]
    assert set(document["curves"]) == {"paradigms", "parataa: order=10, window=20", "x0"}
    drawn = [label for labels in document["curves"].values() for label in labels]
    assert {*drawn, "sequential", "benchmarks.peers:ddim:num_steps=10"} <= set(document["samplers"])


def test_residual_curves_are_those_of_the_bench_report(checkpoint: Path, tmp_path: Path) -> None:
    document = run(
        residuals, checkpoint, tmp_path, samplers="paradigms,x0,x0:history=1", observations=2
    )
    for name in ("paradigms", "x0", "x0:history=1"):
        entry = document["samplers"][name]
        assert len(entry["residual_per_round"]["p50"]) == entry["rounds_max"]


def test_options_of_parataa_are_tuned_on_other_observations(
    checkpoint: Path, tmp_path: Path
) -> None:
    grid: dict[str, Any] = {"orders": ("none", "10"), "histories": (2,), "windows": ("20",)}
    document = run(parataa_options, checkpoint, tmp_path, observations=2, **grid)
    assert document["seeds"] == [3, 4]
    entries = document["samplers"]
    best, fewest = entries[document["best"]], entries[document["fewest_rounds"]]
    others = [entry for name, entry in entries.items() if name != "sequential"]
    assert best["latency_ms"]["p50"] == min(entry["latency_ms"]["p50"] for entry in others)
    assert fewest["rounds_mean"] == min(entry["rounds_mean"] for entry in others)


def test_error_bounds_are_counted_per_sample(checkpoint: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"scheduler": "ddim", "steps": 8, "cases": 5, "batch": 3}
    with pytest.raises(InputError, match="needs a calibration for ddim with 8 steps"):
        run(error_bounds, checkpoint, tmp_path, **options)
    calibrate_tiny_checkpoint(checkpoint, "ddim", 8)
    document = run(error_bounds, checkpoint, tmp_path, **options)
    assert document["cases"] == len(document["shown"]["error"]) == 5
    inside = [e <= b for e, b in zip(*document["shown"].values(), strict=True)]
    assert document["holds"] <= sum(inside) / 5
    assert len(error_bounds.row(document)) == len(error_bounds.COLUMNS)


def test_reward_of_samplers_that_are_cut_short(checkpoint: Path, tmp_path: Path) -> None:
    model = PicardConsistencyModel("ddpm", 6, "x0", 1, 2, {"final_conv.1.bias": torch.ones(2)})
    schedule = read_config(checkpoint).noise_scheduler
    save_consistency(tmp_path / "mine", model, checkpoint_hash(checkpoint), schedule)
    pcm = "pcm:splitting=x0"
    options: dict[str, Any] = {"rounds": (1, 6), "episodes": 1, "steps": 6}
    options |= {"samplers": f"x0,{pcm}", "engine": "eager", "observations": 3}
    options["consistency"] = tmp_path / "mine"
    document = run(reward_per_round, checkpoint, tmp_path, **options)
    found = {(point["method"], point["rounds"]): point for point in document["points"]}
    assert len(found) == 7 == len(reward_per_round.rows(document))
    assert found[pcm, 1]["evals_mean"] == 4  # every second row, and the last
    whole, cut, solved = found["sequential", None], found["x0", 1], found["x0", 6]
    assert whole["rounds_mean"] == 6
    assert whole["error"] is None
    assert whole["difference"] == 0
    assert found["sequential DDIM", 1]["rounds_mean"] == cut["rounds_mean"] == 1
    assert cut["error"]["median"] > 1e-2 >= solved["error"]["median"]
    assert solved["converged_rate"] == 1 > cut["converged_rate"]
    assert cut["evals_mean"] < solved["evals_mean"]
    with pytest.raises(InputError, match="rounds is"):
        run(reward_per_round, checkpoint, tmp_path, **{**options, "rounds": (0,)})


def test_episodes_without_a_cut_chunk_are_not_played_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[tuple[str, int]] = []
    play = reward_per_round.Variant.play

    def count(variant: Any, policy: Any, seeds: Any, *process: Any) -> Any:
        played.append((variant.name, len(seeds)))
        return play(variant, policy, seeds, *process)

    monkeypatch.setattr(reward_per_round.Variant, "play", count)
    options: dict[str, Any] = {"rounds": (7, 1, 6), "episodes": 2, "steps": 6, "samplers": "x0"}
    document = run(
        reward_per_round, checkpoint, tmp_path, **options, engine="eager", observations=1
    )
    ours = [(name, count) for name, count in played if name.startswith("x0")]
    assert ours == [("x0:max_rounds=1", 2), ("x0:max_rounds=6", 2)]
    *_, six, seven = document["points"]
    assert (six["rounds"], seven["rounds"]) == (6, 7)
    assert {**six, "rounds": 7} == seven
    assert [n for name, n in played if name == "sequential"] == [2] * 4  # of other steps each


def test_kept_outcomes_are_not_played_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More episodes, another engine and another folder: what was played counts."""
    options: dict[str, Any] = {"rounds": (1, 6), "steps": 6, "samplers": "x0", "engine": "eager"}
    options |= {"batch": 1, "observations": 1, "outcomes": tmp_path / "kept" / "outcomes.jsonl"}
    played: list[int] = []
    play = reward_per_round.Variant.play

    def count(variant: Any, policy: Any, seeds: Any, *process: Any) -> Any:
        played.extend(seeds)
        return play(variant, policy, seeds, *process)

    monkeypatch.setattr(reward_per_round.Variant, "play", count)
    first = run(reward_per_round, checkpoint, tmp_path, episodes=1, **options)
    assert set(played) == {100000}
    played.clear()
    more = run(reward_per_round, checkpoint, tmp_path, episodes=2, **options)
    assert set(played) == {100001}
    played.clear()
    again = run(reward_per_round, checkpoint, tmp_path, episodes=1, **options)
    assert not played
    assert again["points"] == first["points"] != more["points"]
    lines = [json.loads(line) for line in options["outcomes"].read_text().split("\n") if line]
    assert [(line["sampler"], line["seeds"]) for line in lines] == [
        (reward_per_round.Point(point["method"], point["rounds"], "", None, None).label, [seed])
        for seed in (100000, 100001)
        for point in first["points"]
    ]
    with pytest.raises(InputError, match="given twice"):
        run(
            reward_per_round, checkpoint, tmp_path, **{**options, "outcomes": tmp_path / "out.json"}
        )


def test_a_finished_run_leaves_what_another_one_has_played(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same numbers: one that was stopped, and one of other seeds."""
    options: dict[str, Any] = {"rounds": (6,), "steps": 6, "samplers": "x0", "engine": "eager"}
    options |= {"batch": 1, "observations": 1}
    play = reward_per_round.Variant.play

    def stop(variant: Any, policy: Any, seeds: Any, *process: Any) -> Any:
        if seeds == [100001]:
            raise KeyboardInterrupt
        return play(variant, policy, seeds, *process)

    kept = tmp_path / "out.partial.jsonl"
    with monkeypatch.context() as stopped:
        stopped.setattr(reward_per_round.Variant, "play", stop)
        with pytest.raises(KeyboardInterrupt):
            run(reward_per_round, checkpoint, tmp_path, episodes=2, **options)
    played = kept.read_text().split()
    run(reward_per_round, checkpoint, tmp_path, episodes=1, seed=100002, **options)
    assert kept.read_text().split() == played
    run(reward_per_round, checkpoint, tmp_path, episodes=2, **options)
    assert not kept.exists()


def test_latency_grows_with_rows(checkpoint: Path, tmp_path: Path) -> None:
    document = run(latency_vs_batch, checkpoint, tmp_path, rows=(1, 2000), repeats=3, threads=1)
    (curve,) = document["curves"]
    assert curve["threads"] == 1
    assert curve["ms_p50"][0] < curve["ms_p50"][1]
    assert len(latency_vs_batch.rows(document)) == 2
    with pytest.raises(InputError, match="must be 1 or more"):
        latency_vs_batch.measure(
            latency_vs_batch.Options(json=tmp_path, checkpoint=checkpoint, repeats=0)
        )


def test_rounds_are_counted_for_every_number_of_steps(checkpoint: Path, tmp_path: Path) -> None:
    document = run(
        rounds_vs_steps,
        checkpoint,
        tmp_path,
        steps=(25, 200),
        observations=3,
        few=1,
        jacobians=2,
        fitted=3,
    )
    points = document["points"]
    assert len(points) == 2 * len(rounds_vs_steps.SAMPLERS) == len(rounds_vs_steps.rows(document))
    assert {(point["steps"], point["observations"]) for point in points} == {
        (25, 3),
        (25, 1),
        (200, 2),
        (200, 1),
    }
    assert all(point["converged"] and point["rounds_max"] <= point["steps"] for point in points)


def schedule(checkpoint: Path) -> tuple[common.Subject, rounds_vs_steps.Schedule]:
    subject = common.load(common.Common(json=Path("unused"), checkpoint=checkpoint))
    return subject, rounds_vs_steps.Schedule.of(subject)


def test_fine_timesteps_have_the_noise_level_of_the_trained_ones(checkpoint: Path) -> None:
    _, trained = schedule(checkpoint)
    coarse, fine = trained.process(100), trained.process(1000)
    assert fine.timesteps.dtype == torch.float32
    at = {round(float(t), 4): i for i, t in enumerate(fine.timesteps)}
    index = [at[float(t)] for t in coarse.timesteps]
    # The first step is cut off where beta would reach 1.
    torch.testing.assert_close(coarse.signal[1:-1], fine.signal[index[1:]], rtol=5e-5, atol=0)
    assert float(fine.timesteps[-1]) == pytest.approx(-0.9)


def test_jacobians_at_measured_levels_are_those_of_the_process(checkpoint: Path) -> None:
    subject, trained = schedule(checkpoint)
    jacobian = rounds_vs_steps.MeanJacobian.measure(subject, trained, 1)
    assert jacobian.levels.tolist() == [*range(9), *range(9, 1000, 10)]
    process = trained.process(1000)
    noise = rounds_vs_steps._noise(
        subject, range(rounds_vs_steps._JACOBIAN_SEED, rounds_vs_steps._JACOBIAN_SEED + 1), 1000
    )
    denoiser = subject.policy.denoiser(subject.some(3, 1))
    exact = samplers.get("sequential")(denoiser, process, noise)
    full = mean_jacobian(denoiser, process, noise, exact.trajectory).double()
    rows = 999 - jacobian.levels
    found, spread = jacobian.at(trained, process)
    assert float(spread.abs().max()) == 0  # of one observation
    torch.testing.assert_close(found[rows], full[rows], rtol=0, atol=1e-3)


def test_jacobians_between_levels_are_interpolated(checkpoint: Path) -> None:
    _, trained = schedule(checkpoint)
    eye = torch.eye(3, dtype=torch.float64)
    jacobian = rounds_vs_steps.MeanJacobian(
        torch.stack([0 * eye, 10 * eye]),
        torch.tensor([0.0, 10.0], dtype=torch.float64),
        torch.tensor([100, 200]),
    )
    process = trained.process(500)  # every second fine timestep
    t = trained.fine_timesteps(process).double()
    expected = process.B + process.A * ((t - 100) / 10).clamp(0, 10)
    matrices, spread = jacobian.at(trained, process)
    torch.testing.assert_close(matrices, expected[:, None, None] * eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(spread, expected - process.B, rtol=0, atol=1e-12)


def test_command_lines_end_bad_input_with_one_line(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--json", str(tmp_path / "out.json"), "--checkpoint", str(checkpoint)]
    monkeypatch.setattr(sys, "argv", ["residuals", *arguments, "--samplers", "magic"])
    with pytest.raises(SystemExit) as end:
        common.main(residuals.Options, residuals.measure, residuals.figure)
    assert end.value.code == 2
    assert "unknown sampler 'magic'" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_error_per_round_follows_each_sampler_and_each_pcm(
    checkpoint: Path, tmp_path: Path
) -> None:
    model = PicardConsistencyModel("ddim", 8, "x0", 1, 2, {"final_conv.1.bias": torch.ones(2)})
    schedule = read_config(checkpoint).noise_scheduler
    save_consistency(tmp_path / "mine", model, checkpoint_hash(checkpoint), schedule)
    options: dict[str, Any] = {"scheduler": "ddim", "steps": 8, "observations": 3}
    document = run(
        error_per_round,
        checkpoint,
        tmp_path,
        samplers="paradigms,paradigms:start=prior,x0:tolerance=1e-3",
        models=f"mine={tmp_path / 'mine'}",
        options="horizon=2,blend=features",
        **options,
    )
    pcm, blended = "pcm mine x0", "pcm mine x0 horizon=2,blend=features"
    start = "paradigms:start=prior"
    assert list(document["samplers"]) == ["paradigms", start, "x0:tolerance=1e-3", pcm, blended]
    for entry in document["samplers"].values():
        assert entry["converged_rate"] == 1
        assert entry["final_p95"] <= 2e-2
        assert entry["error"]["p95"][-1] <= 2e-2
        assert 1 <= entry["rounds_to_near_mean"] <= len(entry["error"]["p95"]) + 1
    # Features: two calls in the second round, and one more round of drafting.
    rounds = {name: entry["rounds_mean"] for name, entry in document["samplers"].items()}
    assert rounds[blended] > rounds[pcm] >= 2
    assert len(error_per_round.rows(document)) == 5


def test_rounds_to_a_small_error_are_those_after_which_it_stays_small() -> None:
    errors = torch.tensor([[1.0, 1e-3, 1.0], [1e-3, 1.0, 1.0], [1e-3, 1e-3, 1.0]])
    whole = {key: torch.ones(3) for key in ("rounds", "evals", "final", "converged")}
    found = error_per_round._summarise([{"errors": errors, **whole}])
    assert found["rounds_to_near_mean"] == pytest.approx((2 + 3 + 4) / 3)


def test_the_oracle_measures_every_set_of_inputs_on_every_row(
    checkpoint: Path, tmp_path: Path
) -> None:
    # Other tests calibrate the one that they share.
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint, bare, ignore=shutil.ignore_patterns("calibration"))
    policy = load_policy(bare)

    def store(count: int, weights: str, observed: int = 64) -> Path:
        settings = Settings("ddim", 8, "x0", count=count, rounds=1)
        path = tmp_path / f"{count}{weights}{observed}"
        return generate(policy, random_observations(observed), settings, path, weights)

    own = checkpoint_hash(bare)
    document = run(pcm_oracle, bare, tmp_path, data=store(64, own), updates=60, fewer=(8, 32))
    assert (document["trajectories"], document["splitting"]) == (64, "x0")
    assert document["rows"] == list(range(1, 8))
    assert len(document["left"]) == 4
    for left in document["left"].values():
        assert len(left) == 7
        assert all(0 < share < 2 for share in left)
    for label, left in document["left"].items():
        assert document["fewer"]["32"][label] == pytest.approx(np.mean(left))
    assert set(document["fewer"]["8"]) == set(document["left"])
    with pytest.raises(InputError, match="--fewer is 33; half of the trajectories are 32"):
        run(pcm_oracle, bare, tmp_path, data=store(64, own), fewer=(33,))
    with pytest.raises(InputError, match="has 7 trajectories; expected at least 8"):
        run(pcm_oracle, bare, tmp_path, data=store(7, own))
    with pytest.raises(InputError, match="has 8 trajectories from 6 observations; expected each"):
        run(pcm_oracle, bare, tmp_path, data=store(8, own, observed=6))
    with pytest.raises(DataError, match="was made with other weights"):
        run(pcm_oracle, bare, tmp_path, data=store(8, "other"))
    calibrated = Path(shutil.copytree(bare, tmp_path / "calibrated"))
    calibrate_tiny_checkpoint(calibrated, "ddim", 8)
    with pytest.raises(DataError, match=r"was made with other calibration \(none, here "):
        run(pcm_oracle, calibrated, tmp_path, data=store(64, own))


def test_the_oracle_learns_what_there_is_from_enough_trajectories(tmp_path: Path) -> None:
    options = pcm_oracle.Options(json=tmp_path / "o.json", data=tmp_path, updates=400)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1024, 2, 32, generator=generator)
    noise = torch.randn(1024, 2, 3, generator=generator)
    known = inputs @ torch.randn(32, 3, generator=generator)
    left = {
        count: float(pcm_oracle._left(options, inputs, known, count).mean()) for count in (16, 512)
    }
    assert left[512] < 0.1 < 0.3 < left[16]
    assert float(pcm_oracle._left(options, inputs, noise, 512).mean()) > 0.95


@pytest.mark.parametrize("models", ["mine", "=outputs", "mine=nowhere"])
def test_error_per_round_names_models_that_are_not_there(
    checkpoint: Path, tmp_path: Path, models: str
) -> None:
    with pytest.raises(InputError, match="expected LABEL=DIRECTORY"):
        run(error_per_round, checkpoint, tmp_path, samplers="x0", models=models, observations=1)
