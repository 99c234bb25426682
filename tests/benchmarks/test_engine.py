"""The benchmark of the engine: its plan, its arithmetic, its goals, and one run on a tiny network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.engine import __main__ as engine
from benchmarks.engine import goals, parts, report, results, roofline, synthetic
from benchmarks.engine import options as engine_options
from benchmarks.engine.chunks import DDIM_16, LEAST_CHUNKS, Turns, find, make_cases
from benchmarks.engine.network import fastest
from benchmarks.engine.plan import Budget, Clock, counts, takes_part
from benchmarks.engine.roofline import Roof, Work
from benchmarks.engine.rounds import cut, whole_round
from para_policy import load_policy
from para_policy.checkpoints.observations import save_observations
from para_policy.errors import InputError, ParaPolicyError
from para_policy.inference import EngineConfig
from para_policy.samplers.deadline import LatencyTable
from sim import plots
from tests.checkpoint import (
    THREE_LEVELS,
    calibrate_tiny_checkpoint,
    random_observations,
    save_tiny_checkpoint,
    tiny_config,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_checkpoint(
        tmp_path_factory.mktemp("policy") / "tiny", down_dims=THREE_LEVELS
    )
    save_observations(directory, random_observations(8))
    calibrate_tiny_checkpoint(directory, "ddim", 16)
    return directory


class Hand:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_what_a_part_leaves_the_later_ones_have() -> None:
    hand = Hand()
    budget = Budget(100.0, {"a": 1, "b": 1, "c": 2}, hand)
    assert budget.share("a").left == 25.0
    hand.now += 10.0
    second = budget.share("b")
    assert second.left == 30.0
    hand.now += 200.0
    assert second.left == 0.0
    assert budget.share("c").left == 0.0


@pytest.mark.parametrize(
    ("costs", "seconds", "expected"),
    [
        ([0.1, 0.2], 1000, [200, 200]),
        ([0.125, 0.25], 37.5, [100, 100]),
        ([0.125, 1.0, 3.0], 65, [200, 10, 10]),
        ([0.125, 1.0], 11.75, [70, 3]),  # the dear one is measured three times in any case
        ([2.0], 1, [1]),  # but no more often than there is time for, after the first
        ([0.125, 2.0], 6, [32, 1]),
        ([2.0], 1e6, [200]),
    ],
)
def test_cheap_chunks_come_first(costs: list[float], seconds: float, expected: list[int]) -> None:
    assert counts(costs, seconds, most=200) == expected


@pytest.mark.parametrize(("count", "turns"), [(1, 1), (3, 200), (67, 200), (200, 200)])
def test_a_case_has_all_its_turns_spread_evenly(count: int, turns: int) -> None:
    taken = [turn for turn in range(turns) if takes_part(count, turn, turns)]
    assert len(taken) == count
    gaps = np.diff([-1, *taken])
    assert gaps.max() - gaps.min() <= 1


def test_a_roof_is_the_slower_of_arithmetic_and_traffic() -> None:
    roof = Roof(1e9, {"float32": 1e10, "bfloat16": 1e11})
    work = Work(flops=2e10, values=1e9)
    assert roof.seconds(work, "float32") == 4.0  # four bytes each
    assert roof.seconds(Work(2e11, 1e9), "float32") == 20.0
    assert roof.seconds(work, "bfloat16") == 2.0
    assert work.intensity("float32") == 5.0
    assert work.intensity("bfloat16") == 10.0


def test_work_is_that_of_the_layers_that_a_call_uses() -> None:
    config = tiny_config()
    one, ten = (roofline.work_of(config, rows) for rows in (1, 10))
    assert ten.flops == 10 * one.flops
    with torch.device("meta"):
        network = synthetic.build_network(config)
    # The encoders of step and observation are tabulated: their weights do not move.
    blocks = {id(v) for block in network.blocks() for v in block.cond_encoder.parameters()}
    step = {id(v) for v in network.diffusion_step_encoder.parameters()}
    weights = sum(
        layer.weight.numel()
        for layer in network.modules()
        if isinstance(layer, roofline._LAYERS) and id(layer.weight) not in blocks | step
    )
    # Weights are read once, whatever the rows.
    assert (10 * one.values - ten.values) / 9 == weights


def test_points_say_how_far_from_the_roof_they_are() -> None:
    entry = {"engine": "eager", "rows": 4, "ms": {"p50": 8.0}}
    roof = Roof(1e9, {"float32": 1e12})
    at = roofline.point("shipped", entry, "float32", Work(1e9, 1e6), roof)
    assert at["times_roof"] == pytest.approx(2.0)
    assert at["gflop_per_s"] == pytest.approx(125.0)


def test_synthetic_chunks_replay_the_rows_of_every_round() -> None:
    slow = LatencyTable((1, 100), (0.01, 0.109))
    solves = {("ddpm 100", "chord"): [[70, 30], [70, 30], [70, 60, 9]]}
    own = {("ddpm 100", "chord", "fast"): 0.002}
    (entry,) = synthetic.synthetic_chunks("huge", {"fast": slow, "x": slow}, solves, own)
    assert entry["engine"] == "fast"
    assert entry["network_ms"] == pytest.approx(1e3 * (0.079 + 0.039))
    assert entry["chunk_ms"] == pytest.approx(entry["network_ms"] + 2)
    assert entry["rounds_mean"] == pytest.approx(7 / 3)


def test_time_outside_of_the_network_is_the_rest_of_a_chunk() -> None:
    calls = [{"engine": "e", "rows": rows, "ms": {"p50": 1.0 * rows}} for rows in (1, 10)]
    key = {"process": "ddpm 100", "sampler": "chord"}
    chunks = [{**key, "engine": name, "latency_ms": {"p50": 30.0}} for name in ("e", "unknown")]
    solves = {("ddpm 100", "chord"): [[10, 5]]}
    own = synthetic.time_outside(chunks, calls, solves)
    assert own == {("ddpm 100", "chord", "e"): pytest.approx(0.015)}
    chunks[0]["latency_ms"] = {"p50": 3.0}  # noise: never less than nothing
    assert synthetic.time_outside(chunks, calls, solves)["ddpm 100", "chord", "e"] == 0.0


def test_rows_of_rounds_are_counted_as_the_sampler_counts_them(checkpoint: Path) -> None:
    policy = load_policy(checkpoint)
    process = DDIM_16
    turns = Turns(random_observations(3), process)
    cases, left_out = make_cases({"eager": policy}, ("sequential", "chord", "pcm"), process)
    assert "was not trained" in left_out["pcm"]
    for case in cases:
        for turn, solve in enumerate(synthetic.round_rows(case, turns, 3, Clock(60))):
            stats = turns.play(case, turn).stats
            assert (len(solve), sum(solve)) == (stats.rounds, stats.evals)


def test_references_are_the_sequential_samples_of_each_turn(checkpoint: Path) -> None:
    policy = load_policy(checkpoint)
    turns = Turns(random_observations(3), DDIM_16)
    exact = turns.reference(policy, 5)
    (case,), _ = make_cases({"eager": policy}, ("sequential",), turns.process)
    for turn in range(5):
        assert np.abs(turns.play(case, turn).sample - exact[turn]).max() < 1e-5


def test_cut_chunks_have_the_rounds_that_they_are_given(checkpoint: Path) -> None:
    trained = load_policy(checkpoint)
    config = tiny_config().changed({"inputs": {"features": (5,)}})
    policy = synthetic.random_policy(config, "cpu", EngineConfig())
    one = {name: value[0] for name, value in synthetic.random_observation(config).items()}
    key: dict[str, Any] = {"scheduler": DDIM_16.scheduler, "steps": DDIM_16.steps}
    for rounds in (1, 3):
        solver = cut(trained, "chord", DDIM_16, rounds)
        assert policy.sample(one, sampler=solver, **key).stats.rounds <= rounds
        whole = whole_round(trained, DDIM_16, rounds)
        stats = policy.sample(one, sampler=whole, **key).stats
        assert stats.rounds == rounds
        # Each round but the first has a row or two less than the one before.
        assert stats.evals >= 16 * rounds - rounds * (rounds - 1)


@pytest.mark.parametrize("name", synthetic.PUBLISHED)
def test_published_networks_have_as_many_weights_as_their_names_say(name: str) -> None:
    config = synthetic.random_config(name, tiny_config())
    with torch.device("meta"):
        network = synthetic.build_network(config)
    assert f"{sum(value.numel() for value in network.parameters()) / 1e6:.1f} M" == name


def test_sizes_that_are_measured_first_span_the_range() -> None:
    calls = [
        {"engine": "a", "rows": 1, "ms": {"p50": 4.0}},
        {"engine": "b", "rows": 1, "ms": {"p50": 9.0}},
        {"engine": "b", "rows": 128, "ms": {"p50": 20.0}},
        {"engine": "a", "rows": 128, "ms": {"p50": 90.0}},
        {"engine": "c", "rows": 1, "ms": {"p50": 0.1}},
        {"engine": "c", "rows": 128, "failure": "out of memory"},
    ]
    assert fastest(calls, ["a", "b", "c"]) == "b"  # c is not known at 64 rows
    assert fastest(calls, ["c"]) == "c"


def document(device: str, **times: float) -> dict[str, Any]:
    """What the goals read: chunks named sampler_steps_engine, in ms."""
    chunks: list[dict[str, Any]] = []
    for name, value in times.items():
        sampler, steps, used = name.split("_")
        process = f"{'ddpm' if steps == '100' else 'ddim'} {steps}"
        quantiles = {"p50": value, "p99": value + 1}
        entry = {"network": "65.8 M", "process": process, "sampler": sampler, "engine": used}
        often = {"chunks": LEAST_CHUNKS, "latency_ms": quantiles}
        chunks.append({**entry, **often, "error": {"p100": 5e-3}})
    rounds = [{"network": "65.8 M", "engine": "best", "times_roof": 5.0}]
    loop = [{**entry, "converged_rate": 0.9} for entry in chunks if entry["sampler"] == "chord"]
    robots = [
        {**entry, "robots": 8, "chunks_per_s": 1e3 / entry["latency_ms"]["p50"]} for entry in chunks
    ]
    return {
        **{"device": device, "best": "best", "chunks": chunks, "cut_chunks": chunks},
        **{"rounds": rounds, "loop": loop, "robots": robots},
    }


def test_goals_are_judged_on_the_device_they_are_meant_for() -> None:
    times = {"sequential_100_eager": 300.0, "sequential_100_best": 150.0, "chord_100_best": 50.0}
    times |= {"sequential_16_best": 40.0, "chord_16_best": 20.0, "collocation_100_best": 25.0}
    on_cpu = goals.rows(document("cpu (chip)", **times), "cpu")
    assert [row[2:] for row in on_cpu] == [
        ["2", "reached"],
        ["-", "not measured"],
        ["6", "reached"],
        ["2", "reached"],
        ["2", "reached"],
        ["6", "reached"],
        ["0.9", "reached"],
        ["-", "not measured"],
    ]
    on_gpu = goals.rows(document("cuda:0 (chip)", **times), "cuda")
    assert [row[2:] for row in on_gpu] == [
        ["50", "missed"],
        ["0.005", "reached"],
        ["3", "missed"],
        ["6", "missed"],
        ["2", "missed"],
        ["5", "missed"],
    ]
    for row in goals.rows(document("cuda:0 (chip)", **times), "cpu"):
        assert row[2:] == ["-", "not measured"]


def test_no_goal_is_judged_by_a_handful_of_chunks() -> None:
    found = document("cpu (chip)", sequential_100_best=150.0, collocation_100_best=25.0)
    ratio = goals.rows(found, "cpu")[2]
    assert ratio[2:] == ["6", "reached"]
    found["chunks"][0]["chunks"] -= 1
    assert goals.rows(found, "cpu")[2][2:] == ["-", "not measured"]


@pytest.mark.slow
def test_one_run_measures_everything_and_fills_the_page(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate_tiny_checkpoint(checkpoint, "ddpm", 100)
    tiny = tiny_config().network
    monkeypatch.setattr(synthetic, "PUBLISHED", {"tiny": (tiny, 3)})
    for module in ("large", "rounds"):
        monkeypatch.setattr(f"benchmarks.engine.{module}._MOST", 3)
    monkeypatch.setattr(engine_options, "PUBLISHED", {"tiny": (tiny, 3)})
    settings = engine.Options(
        json=tmp_path / "engine.json",
        checkpoint=checkpoint,
        engines=("eager",),
        samplers=("chord", "sequential"),
        chunks=3,
        rows=(1, 9, 100),
        robots=(1, 2),
        networks=("tiny",),
        image=None,
        budget_s=600.0,
    )
    measured: dict[str, Any] = json.loads(json.dumps(engine.measure(settings)))
    assert measured["best"] == "eager"
    for process in ("ddpm 100", "ddim 16"):
        for sampler in settings.samplers:
            entry = find(measured["chunks"], process, sampler, "eager")
            assert entry is not None
            assert entry["chunks"] == 3
            assert entry["error"]["p100"] <= (2e-2 if sampler == "chord" else 1e-5)
    assert {entry["robots"] for entry in measured["robots"]} == {1, 2}
    assert {entry["sampler"] for entry in measured["loop"]} == {"chord", "auto"}
    assert {entry["sampler"] for entry in measured["synthetic"]} == {"chord", "sequential"}
    assert {at["network"] for at in roofline.points_of(measured)} == {"shipped", "tiny"}
    plots.save(roofline.figure, measured, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").stat().st_size > 1000
    settings.json.write_text(json.dumps(measured))
    page = tmp_path / "performance.md"
    places = [f"<!-- cpu {name} -->\nold\n<!-- end -->" for name in report.TABLES]
    places += ["<!-- cpu facts -->\nold\n<!-- end -->", "<!-- gpu goals -->\nold\n<!-- end -->"]
    page.write_text("\n".join(["# Text", *places]))
    for _ in range(2):  # a second time changes nothing
        results.main(tmp_path, page)
        written = page.read_text()
        assert "old" not in written
        assert written.startswith("# Text\n<!-- cpu goals -->\n| goal | limit |")
        assert f"<!-- gpu goals -->\n{results.NOTHING}\n<!-- end -->" in written


def few(checkpoint: Path, tmp_path: Path, **options: Any) -> engine.Options:
    """The least that can be measured."""
    least: dict[str, Any] = {"engines": ("eager",), "samplers": ("sequential",), "chunks": 1}
    least |= {"rows": (1,), "robots": (1,), "networks": (), "image": None, "budget_s": 600.0}
    return engine.Options(
        json=tmp_path / "engine.json", checkpoint=checkpoint, **{**least, **options}
    )


def test_a_part_that_fails_costs_no_other_one(checkpoint: Path, tmp_path: Path) -> None:
    settings = few(checkpoint, tmp_path, image=str(tmp_path / "missing.yaml"))
    with pytest.raises(ParaPolicyError, match=r"some parts failed: image \(.*missing\.yaml"):
        engine.measure(settings)
    written = json.loads(settings.json.read_text())
    assert [e["part"] for e in written["parts"] if "failure" in e] == ["image"]
    assert find(written["chunks"], "ddim 16", "sequential", "eager") is not None


def test_what_was_measured_is_kept_when_the_run_is_stopped(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.loop, "robots", stop)
    settings = few(checkpoint, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        engine.measure(settings)
    written = json.loads(settings.json.read_text())
    assert {e["process"] for e in written["chunks"]} == {"ddpm 100", "ddim 16"}
    assert written["network"]
    unfinished = [e["part"] for e in written["parts"] if e.get("left_out") == "not finished"]
    assert unfinished[0] == "robots"
    assert not {"ddpm 100", "ddim 16", "network"} & set(unfinished)


def test_nothing_is_begun_without_time(checkpoint: Path, tmp_path: Path) -> None:
    settings = few(checkpoint, tmp_path, networks=tuple(synthetic.PUBLISHED), budget_s=1e-9)
    measured = engine.measure(settings)
    assert {entry["left_out"] for entry in measured["parts"]} == {"no time left"}
    assert [entry["part"] for entry in measured["parts"]][:4] == [
        *("ddpm 100", "ddim 16", "network", "65.8 M")
    ]
    assert measured["parts"][-1]["part"] == "251.5 M"
    assert all("not measured" in row for row in goals.rows(measured, "cpu"))


def test_cases_that_were_not_begun_in_time_are_named(checkpoint: Path, tmp_path: Path) -> None:
    run = engine.start(few(checkpoint, tmp_path, samplers=("sequential", "x0")))
    parts._chunks(DDIM_16, run, Clock(0))
    assert run.document["chunks"] == []
    assert run.document["samplers_left_out"] == {
        f"ddim 16, {sampler} on eager": "no time left" for sampler in ("sequential", "x0")
    }
    run.document["samplers_left_out"] = {}
    parts._robots(run, Clock(0))
    assert run.document["robots"] == []
    # And `chord`, if another test has calibrated this checkpoint.
    named = {f"ddpm 100, sequential, robots: {count}" for count in run.options.robots}
    assert named <= run.document["samplers_left_out"].keys()
    assert set(run.document["samplers_left_out"].values()) == {"no time left"}


@pytest.mark.parametrize("missing", ["matplotlib", "zarr", "gymnasium", "pymunk", "accelerate"])
def test_packages_that_it_can_do_without(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import benchmarks.engine.__main__"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_page_with_an_unknown_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cpu speed'; expected one of"):
        results.fill("<!-- cpu speed -->\n<!-- end -->", {}, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunks": 0}, "--chunks is 0"),
        ({"rows": (0,)}, "--rows is"),
        ({"robots": ()}, "--robots is"),
        ({"networks": ("7 B",)}, "unknown; expected some of"),
        ({"engines": ("eager",), "best": "cuda-graph", "rows": (1,)}, "--best cuda-graph"),
        ({"engines": ("eager",), "precision": "float16", "rows": (1,)}, "no engine has it"),
    ],
)
def test_options_that_cannot_be_used(
    checkpoint: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    settings = engine.Options(json=tmp_path / "o.json", checkpoint=checkpoint, **options)
    with pytest.raises(InputError, match=words):
        engine.measure(settings)
