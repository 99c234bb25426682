"""The benchmark: names with options, fair turns, and figures that mean what they say."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from para_policy import comparison, load_policy, samplers
from para_policy.calibration import measure as calibrate
from para_policy.comparison import Benchmark, summary
from para_policy.errors import InputError
from para_policy.policies.policy import ActionResult, DiffusionPolicy
from para_policy.policies.sampler_spec import SamplerSpec, split_samplers
from tests.checkpoint import save_tiny_checkpoint
from tests.policies.test_encoder import image_policy
from tests.policies.test_encoder import observation as image_observation

STEPS = 10
PARADIGMS = "benchmarks.peers:paradigms"
DDPM = "benchmarks.peers:ddpm"
DDIM = "benchmarks.peers:ddim:num_steps=10"
OWN = """
from para_policy import samplers

def patient(policy, scheduler, steps, *, times, window=None):
    rounds = times * policy.process(scheduler, steps).num_steps
    return samplers.get("paradigms", window=window, max_rounds=rounds)

class Sure:  # no dataclass, and another sample
    same_sample = False

    def __init__(self, policy, scheduler, steps):
        self.exact = policy.sampler("sequential", scheduler=scheduler, steps=steps)

    def __call__(self, denoiser, process, noise, **given):
        return self.exact(denoiser, process, noise, **given)

def nothing(policy, scheduler, steps):
    return 3
"""


@pytest.fixture(scope="module")
def observations() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    widths = {"environment_state": 16, "agent_pos": 2}
    return {name: random.uniform(0, 512, (6, 2, size)) for name, size in widths.items()}


@pytest.fixture(scope="module")
def policy(
    tmp_path_factory: pytest.TempPathFactory, observations: dict[str, np.ndarray]
) -> DiffusionPolicy:
    folder = tmp_path_factory.mktemp("policy")
    loaded = load_policy(save_tiny_checkpoint(folder / "tiny", train_timesteps=STEPS))
    settings = calibrate.Settings(jacobians=2, cases=4)
    loaded.calibrations["ddpm", STEPS] = calibrate.calibrate(loaded.chain(), observations, settings)
    return loaded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b", ("a", "b")),
        (" a , ,b,", ("a", "b")),
        ("a:x=1,y=none,b", ("a:x=1,y=none", "b")),
        ("a:x=1, y=2, b:z=3,c", ("a:x=1,y=2", "b:z=3", "c")),
        (",", ()),
    ],
)
def test_lists_are_split_between_samplers_not_between_options(
    text: str, expected: tuple[str, ...]
) -> None:
    assert split_samplers(text) == expected


def test_values_are_numbers_or_none() -> None:
    spec = SamplerSpec.parse("parataa: order=none, history=3, tolerance=1e-4")
    assert spec.label == "parataa:order=none,history=3,tolerance=1e-4"
    assert spec.name == "parataa"
    assert spec.options == {"order": None, "history": 3, "tolerance": 1e-4}
    assert isinstance(spec.options["history"], int)


@pytest.mark.parametrize("name", [*samplers.names(), "benchmarks.peers:ddpm", "auto"])
def test_every_name_can_be_chosen_without_options(name: str) -> None:
    assert SamplerSpec.parse(name) == SamplerSpec(name, name, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "unknown sampler 'magic'"),
        ("", "unknown sampler ''"),
        ("x0:tol=1", r"no option \['tol'\]; it takes \['tolerance', 'window'"),
        ("x0:tolerance", "'tolerance' where OPTION=VALUE was expected"),
        ("x0:", "'' where OPTION=VALUE was expected"),
        ("x0:tolerance=", "'tolerance=' where"),
        ("x0:tolerance=1,tolerance=2", "'tolerance' twice"),
        ("x0:tolerance=much", "tolerance is 'much'"),
        ("x0:tolerance=-1", "tolerance is -1"),
        ("chord:window=0", "window is 0"),
        ("chord:matrices=3", r"no option \['matrices'\]"),
        ("parataa:regularisation=x", "regularisation"),
        ("sequential:window=3", "it takes none"),
        ("auto:window=3", "it takes none"),
        ("magic:window=3", "unknown sampler 'magic'"),
        (":wand", "unknown sampler ''"),
        ("magic.:wand", "unknown sampler 'magic.'"),
        ("magic:wand", "no module 'magic' is installed or in "),
        ("benchmarks.magic:wand", "no module 'benchmarks.magic'"),
        ("benchmarks.peers:wand", "module 'benchmarks.peers' has no function 'wand'"),
        ("benchmarks.peers:ddpm:steps=3", "multiple values for argument 'steps'; it takes none"),
        ("benchmarks.peers:paradigms:order=3", r"it takes \['window', 'tolerance'\]"),
        ("benchmarks.peers:paradigms:window", "'window' where OPTION=VALUE was expected"),
    ],
)
def test_wrong_choices_are_refused_before_anything_is_loaded(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Benchmark((text,))


@pytest.mark.parametrize(
    ("former", "now", "options"),
    [
        ("diffusers-paradigms", "benchmarks.peers:paradigms", {}),
        ("diffusers-paradigms:window=10", "benchmarks.peers:paradigms", {"window": 10}),
        ("diffusers-ddpm", "benchmarks.peers:ddpm", {}),
        ("diffusers-ddim10", "benchmarks.peers:ddim", {"num_steps": 10}),
        ("diffusers-ddim16", "benchmarks.peers:ddim", {"num_steps": 16}),
    ],
)
def test_former_names_are_read_and_the_present_one_is_said(
    former: str, now: str, options: dict[str, int]
) -> None:
    with pytest.warns(FutureWarning, match=f"is now '{now}"):
        spec = SamplerSpec.parse(former)
    assert spec == SamplerSpec(former, now, options)


def test_former_names_need_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.path", [path for path in sys.path if not Path(path, "benchmarks").exists()]
    )
    for module in ("benchmarks", "benchmarks.peers"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with (
        pytest.warns(FutureWarning, match="is now"),
        pytest.raises(InputError, match=r"no module 'benchmarks' is .* run in a checkout"),
    ):
        SamplerSpec.parse("diffusers-ddpm")


@pytest.fixture
def own_samplers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user in the working directory, which is not on the path."""
    (tmp_path / "own_samplers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_samplers", raising=False)


@pytest.mark.usefixtures("own_samplers")
def test_a_function_of_the_user_makes_a_sampler(policy: DiffusionPolicy) -> None:
    spec = SamplerSpec.parse("own_samplers:patient:times=2,window=none")
    assert spec.options == {"times": 2, "window": None}
    made = spec.make(policy, "ddim", 5)
    assert made == samplers.get("paradigms", window=None, max_rounds=10)


@pytest.mark.usefixtures("own_samplers")
def test_any_sampler_of_the_user_is_compared(
    policy: DiffusionPolicy, observations: dict[str, np.ndarray]
) -> None:
    names = ("own_samplers:patient:times=1", "own_samplers:Sure")
    found = comparison.run(Benchmark(names, observations=1), policy, observations)
    assert list(found) == ["sequential", *names]
    patient, sure = (found[name] for name in names)
    assert (patient["options"]["max_rounds"], patient["note"]) == (STEPS, None)
    assert patient["max_abs_error"]["max"] < 0.5
    assert (sure["options"], sure["max_abs_error"]) == ({}, None)
    assert sure["note"].startswith("another sample")


@pytest.mark.usefixtures("own_samplers")
def test_a_function_of_the_user_that_makes_none_is_named(policy: DiffusionPolicy) -> None:
    with pytest.raises(InputError, match="missing a required argument: 'times'"):
        SamplerSpec.parse("own_samplers:patient")
    spec = SamplerSpec.parse("own_samplers:nothing")
    with pytest.raises(
        InputError, match=r"returned an object of type int; expected a sampler.*extending\.md"
    ):
        spec.make(policy, None, None)


def test_what_a_module_lacks_is_no_fault_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        SamplerSpec.parse("own_broken:make")


def test_the_reference_comes_first_and_nothing_twice() -> None:
    labels = [c.label for c in Benchmark(("x0", "sequential", "x0", "x0:window=3")).specs()]
    assert labels == ["sequential", "x0", "x0:window=3"]


@pytest.fixture(scope="module")
def report(policy: DiffusionPolicy, observations: dict[str, np.ndarray]) -> dict[str, Any]:
    names = ("paradigms", PARADIGMS, "x0:tolerance=1e-4,history=1", "chord", "auto")
    names += (DDPM, DDIM, "asd")
    return comparison.make_report(Benchmark(names, observations=4, first=1), policy, observations)


def test_the_report_says_what_was_measured_on_what(report: dict[str, Any]) -> None:
    assert (report["scheduler"], report["steps"]) == ("ddpm", STEPS)
    assert (report["observations"], report["seeds"]) == (4, [1, 4])
    assert {"device", "engine", "dtype", "threads", "date", "versions"} <= set(report)
    entries = report["samplers"]
    assert next(iter(entries)) == "sequential"
    options = entries["x0:tolerance=1e-4,history=1"]["options"]
    assert (options["tolerance"], options["acceleration"], options["window"]) == (1e-4, None, None)
    assert entries["auto"]["sampler"] in samplers.names()
    assert entries[PARADIGMS]["options"] == {"window": 20, "tolerance": 0.1}


def test_figures_of_the_reference_are_those_of_itself(report: dict[str, Any]) -> None:
    entry = report["samplers"]["sequential"]
    assert set(entry["max_abs_error"].values()) == {0.0}
    assert entry["speedup_vs_sequential"] == 1.0
    assert entry["error_bound"] is None
    assert entry["rounds_p95"] == entry["evals_max"] == STEPS
    assert entry["residual_per_round"] == {"p50": [], "p95": [], "in_flight": []}


def test_every_sampler_has_consistent_figures(report: dict[str, Any]) -> None:
    for entry in report["samplers"].values():
        assert entry["rounds_mean"] <= entry["rounds_p95"] + 1 <= entry["rounds_max"] + 1
        assert entry["evals_mean"] <= entry["evals_max"]
        latency = entry["latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        assert entry["speedup_ci95"] is None  # of four observations
    curve = report["samplers"]["paradigms"]["residual_per_round"]
    assert len(curve["p50"]) == report["samplers"]["paradigms"]["rounds_max"]
    assert curve["in_flight"][0] == 4
    assert sorted(curve["in_flight"], reverse=True) == curve["in_flight"]


def test_peers_agree_with_ours(report: dict[str, Any]) -> None:
    entries = report["samplers"]
    assert entries[DDPM]["max_abs_error"]["max"] < 1e-4
    for key in ("rounds_mean", "evals_mean"):
        assert entries[PARADIGMS][key] == entries["paradigms"][key]
    assert entries[PARADIGMS]["residual_per_round"]["p50"] == []


@pytest.mark.parametrize("name", [DDIM, "asd"])
def test_another_sample_has_no_error(report: dict[str, Any], name: str) -> None:
    entry = report["samplers"][name]
    assert entry["max_abs_error"] is None
    assert entry["error_bound"] is None
    assert "another sample" in entry["note"]
    row = next(row for row in comparison.rows(report) if row[0] == name)
    assert "another sample" in row


def test_calibrated_samplers_say_how_often_their_bound_held(report: dict[str, Any]) -> None:
    bound = report["samplers"]["chord"]["error_bound"]
    assert bound["observations"] == 4
    assert bound["coverage_ci95"][0] <= bound["coverage"] <= bound["coverage_ci95"][1]
    assert report["samplers"][PARADIGMS]["error_bound"] is None


def test_a_bound_holds_only_if_it_holds_in_every_coordinate(
    policy: DiffusionPolicy, observations: dict[str, np.ndarray]
) -> None:
    obs = {name: values[0] for name, values in observations.items()}
    exact = policy.sample(obs)

    def chunk(off: tuple[float, float], bound: tuple[float, float]) -> ActionResult:
        stats = dataclasses.replace(exact.stats, error_bound=np.array(bound))
        moved = exact.prediction.astype(float)
        moved[3] += off
        return dataclasses.replace(exact, prediction=moved, stats=stats)

    chunks = [
        chunk((1.0, 1.0), (1.1, 1.1)),
        chunk((1.0, 1.2), (1.1, 1.1)),
        chunk((-1.2, 0.0), (1.1, 1.1)),
        chunk((9.0, 9.0), (np.nan, np.nan)),
    ]
    found = summary.coverage(chunks, [exact] * 4)
    assert found is not None
    assert (found["coverage"], found["observations"]) == (1 / 3, 3)
    assert summary.coverage(chunks[3:], [exact]) is None


def test_speed_up_is_paired(policy: DiffusionPolicy, observations: dict[str, np.ndarray]) -> None:
    """A machine that slows down for both meets both alike: the ratio stays."""
    exact = policy.sample({name: values[0] for name, values in observations.items()})

    def chunks(seconds: list[float]) -> list[ActionResult]:
        return [
            dataclasses.replace(exact, stats=dataclasses.replace(exact.stats, wall_s=value))
            for value in seconds
        ]

    slow = [1.0, 2.0, 8.0, 1.0, 3.0, 1.0]
    entry = summary.summarise(chunks([s / 4 for s in slow]), chunks(slow), solves=True)
    assert entry["speedup_vs_sequential"] == 4.0
    assert entry["speedup_ci95"] == [4.0, 4.0]
    single = summary.summarise(chunks([0.5]), chunks([1.0]), solves=True)
    assert (single["speedup_vs_sequential"], single["speedup_ci95"]) == (2.0, None)
    assert summary.median_interval(np.arange(5.0)) is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_report_says_what_the_engine_computes_in(
    tmp_path: Path, observations: dict[str, np.ndarray], precision: Any
) -> None:
    tiny = save_tiny_checkpoint(tmp_path / "tiny", train_timesteps=STEPS)
    policy = load_policy(tiny, precision=precision)
    found = comparison.make_report(Benchmark(("x0",), observations=1), policy, observations)
    assert found["dtype"] == precision
    assert comparison.title(found).endswith(f"thread(s), {precision}")
    elsewhere = {**found, "engine": found["engine"].replace("eager", "openvino")}
    assert comparison.title(elsewhere).endswith(f"thread(s), {precision}, engine openvino")


def test_tables_have_a_cell_for_every_column(report: dict[str, Any]) -> None:
    rows = comparison.rows(report)
    assert all(len(row) == len(comparison.COLUMNS) for row in rows)
    assert comparison.table(report).row_count == len(rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"first": 3, "observations": 4},
            r"4 observations from 3 on asked for, .* at most 3 \(--observations\).*--data",
        ),
        ({"scheduler": "ddim"}, "solves ddpm only, not ddim"),
        ({"steps": 5, "samplers": ("chord",)}, "needs a calibration for ddpm with 5 steps"),
        ({"samplers": ("benchmarks.peers:ddim:num_steps=16",)}, "num_steps is 16"),
    ],
)
def test_what_does_not_fit_the_policy_is_refused_before_measuring(
    policy: DiffusionPolicy,
    observations: dict[str, np.ndarray],
    changes: dict[str, Any],
    message: str,
) -> None:
    benchmark = dataclasses.replace(Benchmark((PARADIGMS,), observations=2), **changes)
    with pytest.raises(InputError, match=message):
        comparison.run(benchmark, policy, observations)


def test_camera_encoders_are_reported_apart() -> None:
    policy = image_policy()
    few = {name: np.stack([value] * 2) for name, value in image_observation().items()}
    report = comparison.make_report(Benchmark(("x0",), observations=2), policy, few)
    assert report["cameras"] == ["left", "right"]
    for entry in report["samplers"].values():
        assert 0 < entry["encode_ms"]["p50"] < entry["latency_ms"]["p50"]
    assert "the camera encoders take" in str(comparison.table(report).caption)


def test_a_policy_without_cameras_has_nothing_to_say_about_them(report: dict[str, Any]) -> None:
    assert report["cameras"] == []
    assert "encoders" not in str(comparison.table(report).caption)
