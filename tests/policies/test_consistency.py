"""The fine-tuned network of PCM: what it computes, how a policy finds it, and what it may not change."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from para_policy import Denoiser, DiffusionPolicy, Noise, Process, load_policy, samplers
from para_policy.checkpoints.consistency import save_consistency
from para_policy.checkpoints.native import checkpoint_hash, read_config
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import InputError
from para_policy.inference.runtime import EngineNetwork
from para_policy.policies.consistency import Change, PicardConsistencyModel
from para_policy.policies.sampler_spec import SamplerSpec, split_samplers
from para_policy.samplers import Draft, FixedPoint, Sampler
from sim.evaluation.variants import Variant
from tests.checkpoint import random_observations
from tests.training.demonstrations import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHIPPED = REPOSITORY / "checkpoints" / "pusht_state"
SOLVES = [("ddim", 16), ("ddpm", 100)]
SPLITTINGS = ["identity", "x0", "chord"]
DDIM: dict[str, Any] = {"scheduler": "ddim", "steps": 8}
SMALL, ABSURD = 0.05, 1e3


def random_changes(network: nn.Module, size: float = SMALL, seed: int = 0) -> dict[str, Change]:
    """Low-rank factors for each linear map, whole changes for the rest; `size` relative to it."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    changes: dict[str, Change] = {}
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            columns = weight[0].numel()
            scale = size * float(weight.std())
            changes[name] = (scale * random(len(weight), 2), random(2, columns))
        else:
            changes[name] = 0.1 * size * random(*weight.shape)
    return changes


def model(
    network: nn.Module,
    scheduler: str = "ddim",
    steps: int = 8,
    splitting: str = "chord",
    size: float = SMALL,
    **facts: Any,
) -> PicardConsistencyModel:
    defaults = {"rounds": 2, "stride": 2, "changes": random_changes(network, size)}
    return PicardConsistencyModel(scheduler, steps, splitting, **(defaults | facts))


def trained(policy: DiffusionPolicy, *splittings: str, **facts: Any) -> DiffusionPolicy:
    """The policy with PCM weights for DDIM with 8 steps."""
    for splitting in splittings:
        made = model(policy.network, splitting=splitting, **facts)
        policy.consistency_models["ddim", 8, splitting] = made
    return policy


def engine(sampler: Sampler) -> FixedPoint:
    assert isinstance(sampler, FixedPoint)
    return sampler


def draft(sampler: Sampler) -> Draft:
    guess = engine(sampler).guess
    assert isinstance(guess, Draft)
    return guess


def network_inputs(policy: DiffusionPolicy, rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(rows, 16, 2, generator=generator)
    condition = torch.randn(rows, policy.config.condition_dim, generator=generator)
    return x, torch.arange(rows), condition


def whole(changes: dict[str, Change]) -> dict[str, Tensor]:
    return {
        name: change[0] @ change[1] if isinstance(change, tuple) else change
        for name, change in changes.items()
    }


def test_share_0_is_the_base_network_itself(bare_policy: DiffusionPolicy) -> None:
    network = bare_policy.network
    inputs = network_inputs(bare_policy)
    expected = EngineNetwork(network, 100)(*inputs)
    assert torch.equal(model(network).on(network, 100)(0.0)(*inputs), expected)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_share_equals_weights_that_were_merged_by_hand(
    bare_policy: DiffusionPolicy, share: float
) -> None:
    made, inputs = model(bare_policy.network), network_inputs(bare_policy)
    copy = deepcopy(bare_policy.network)
    for name, change in whole(dict(made.changes)).items():
        weight = copy.get_parameter(name)
        weight += share * change.reshape(weight.shape)
    network = made.on(bare_policy.network, 100)(share)
    assert torch.equal(network(*inputs), EngineNetwork(copy, 100)(*inputs))
    assert not torch.allclose(network(*inputs), bare_policy.network(*inputs), atol=1e-4)


def test_no_change_is_the_base_network(bare_policy: DiffusionPolicy) -> None:
    inputs, base = network_inputs(bare_policy), bare_policy.network
    for made in (model(base, size=0.0), model(base, changes={})):
        assert torch.equal(made.on(base, 100)(1.0)(*inputs), EngineNetwork(base, 100)(*inputs))


shares = st.floats(0, 1)


class Linear(nn.Linear):
    """A network that looks at neither timestep nor condition."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return super().forward(x)


@given(shares, shares, st.booleans(), st.booleans())
def test_a_linear_network_is_linear_in_the_share(
    share: float, other: float, low_rank: bool, half: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    network = Linear(4, 3).requires_grad_(False)
    up, down = (torch.randn(n, m, generator=generator) for n, m in ((3, 2), (2, 4)))
    if half:
        up, down = up.half(), down.half()
    change: Change = (up, down) if low_rank else up @ down
    bound = model(network, changes={"weight": change}).on(network, 100)
    x = torch.randn(5, 4, generator=generator)
    inputs = x, torch.zeros(5, dtype=torch.int64), torch.zeros(5, 1)
    slope = x @ (up.float() @ down.float()).T
    atol = 1e-5 if low_rank else 1e-2  # a product that was rounded to half precision
    for value in (share, other):
        moved = bound(value)(*inputs) - network(*inputs)
        torch.testing.assert_close(moved, value * slope, rtol=0, atol=atol)
    both = bound((share + other) / 2)(*inputs)
    torch.testing.assert_close(
        both, (bound(share)(*inputs) + bound(other)(*inputs)) / 2, rtol=0, atol=1e-5
    )


def test_weights_are_merged_once_for_each_share(bare_policy: DiffusionPolicy) -> None:
    bound = model(bare_policy.network).on(bare_policy.network, 100)
    assert bound(0.5) is bound(0.5)
    assert bound(1.0) is bound(1.0)
    assert bound(0.5) is not bound(1.0)


def test_a_round_of_the_fine_tuned_network_is_one_call(bare_policy: DiffusionPolicy) -> None:
    sampler = trained(bare_policy, "x0").sampler("pcm", splitting="x0", blend="weights", **DDIM)
    denoiser = bare_policy.denoiser(random_observations(1))
    noise = Noise.from_seeds([0], (16, 2), 8)
    result = sampler(denoiser, bare_policy.process("ddim", 8), noise)
    assert int(result.rounds) == denoiser.rounds > 2


@pytest.mark.parametrize("blend", ["weights", "features", "none"])
def test_the_base_weights_are_never_touched(bare_policy: DiffusionPolicy, blend: str) -> None:
    before = deepcopy(bare_policy.network.state_dict())
    sampler = trained(bare_policy, "x0").sampler("pcm", splitting="x0", blend=blend, **DDIM)
    exact = bare_policy.sample(random_observations(2), seed=[0, 1], **DDIM)
    bare_policy.sample(random_observations(2), sampler=sampler, seed=[0, 1], **DDIM)
    after = bare_policy.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    again = bare_policy.sample(random_observations(2), seed=[0, 1], **DDIM)
    np.testing.assert_array_equal(again.sample, exact.sample)


BIAS, WEIGHT = "final_conv.1.bias", "final_conv.0.block.0.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lost.weight": torch.zeros(2)}, "'lost.weight', which the network does not have"),
        ({BIAS: torch.zeros(3)}, rf"'{BIAS}' by \(3,\); the network needs \(2,\)"),
        ({BIAS: torch.zeros(())}, rf"'{BIAS}' by \(\)"),
        (
            {WEIGHT: (torch.zeros(8, 2), torch.zeros(2, 8))},
            rf"'{WEIGHT}' by \[\(8, 2\), \(2, 8\)\]; the network needs \[\(8, 2\), \(2, 24\)\]",
        ),
        ({WEIGHT: torch.zeros(8, 8, 5)}, rf"'{WEIGHT}' by \(8, 8, 5\)"),
        ({BIAS: torch.zeros(2), "lost": torch.zeros(1)}, "'lost'"),
    ],
    ids=["unknown", "wide", "one number", "small factors", "wide kernel", "one of two"],
)
def test_changes_that_do_not_fit_the_network_are_refused(
    bare_policy: DiffusionPolicy, changes: dict[str, Change], message: str
) -> None:
    with pytest.raises(InputError, match=rf"PCM changes .*{message}"):
        model(bare_policy.network, changes=changes).on(bare_policy.network, 100)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("diffusion_step_encoder.1.weight", torch.zeros(8, 32)),
        ("diffusion_step_encoder.1.weight", (torch.zeros(8, 2), torch.zeros(2, 32))),
        (WEIGHT, torch.zeros(8, 3, 8)),
    ],
    ids=["transposed", "transposed factors", "permuted kernel"],
)
def test_changes_with_other_axes_are_refused(
    bare_policy: DiffusionPolicy, name: str, change: Change
) -> None:
    network = bare_policy.network
    assert network.get_parameter(name).shape in ((32, 8), (8, 8, 3))
    with pytest.raises(InputError, match=re.escape(name)):
        model(network, changes={name: change}).on(network, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scheduler": "ddim", "steps": 7, "splitting": "x0"},
            "ddim with 7 steps and splitting 'x0'",
        ),
        (
            {"scheduler": "ddpm", "steps": 8, "splitting": "x0"},
            "ddpm with 8 steps and splitting 'x0'",
        ),
        (DDIM, "ddim with 8 steps and splitting 'chord'"),
        ({**DDIM, "splitting": "magic"}, "ddim with 8 steps and splitting 'magic'"),
        ({}, "ddpm with 20 steps and splitting 'chord'"),
    ],
    ids=["steps", "scheduler", "splitting", "unknown splitting", "defaults"],
)
def test_what_was_not_trained_names_what_there_is(
    policy: DiffusionPolicy, options: dict[str, Any], message: str
) -> None:
    trained(policy, "identity", "x0")
    with pytest.raises(InputError) as caught:
        policy.sampler("pcm", **options)
    text = str(caught.value)
    assert f"not trained for {message}" in text
    assert "(there: ddim 8 identity, ddim 8 x0)" in text
    assert "para-policy distill" in text


def test_without_pcm_weights_the_message_says_so(policy: DiffusionPolicy) -> None:
    for attempt in (lambda: policy.sampler("pcm"), lambda: policy.sample({}, sampler="pcm")):
        with pytest.raises(
            InputError, match=r"'pcm' was not trained for ddpm with 20 .*there: none"
        ):
            attempt()


def test_chord_needs_a_calibration_and_the_others_do_not(bare_policy: DiffusionPolicy) -> None:
    trained(bare_policy, *SPLITTINGS)
    with pytest.raises(InputError, match=r"'pcm' needs a calibration for ddim with 8 .*calibrate"):
        bare_policy.sampler("pcm", **DDIM)
    for splitting in ("identity", "x0"):
        assert draft(bare_policy.sampler("pcm", splitting=splitting, **DDIM)).rounds == 1
    assert draft(bare_policy.sampler("pcm", matrices=torch.zeros(8, 32, 32), **DDIM)).rounds == 1


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_calibration_gives_the_start_and_the_matrices(
    policy: DiffusionPolicy, splitting: str
) -> None:
    sampler = trained(policy, splitting).sampler("pcm", splitting=splitting, **DDIM)
    parts, matrices = engine(sampler), policy.calibrations["ddim", 8].matrices
    plain = {
        "identity": samplers.get("paradigms").splitting,  # type: ignore[attr-defined]
        "x0": samplers.get("x0").splitting,  # type: ignore[attr-defined]
        "chord": samplers.get("chord", matrices=matrices).splitting,  # type: ignore[attr-defined]
    }
    assert type(parts.splitting) is type(plain[splitting])
    if splitting == "chord":
        assert parts.splitting.matrices is matrices  # type: ignore[attr-defined]
    else:
        assert parts.splitting == plain[splitting]


def test_the_file_says_how_it_is_used_and_options_say_more(policy: DiffusionPolicy) -> None:
    trained(policy, "x0", rounds=5, stride=4)

    def made(**options: Any) -> Draft:
        return draft(policy.sampler("pcm", splitting="x0", **options, **DDIM))

    usual = made()
    assert (usual.horizon, usual.stride) == (1, 4)
    assert usual.consistency.model is policy.consistency_models["ddim", 8, "x0"]  # type: ignore[attr-defined]
    own = made(horizon=2, stride=1, stiffness=0.5, blend="features")
    assert (own.horizon, own.stride, own.stiffness, own.blend) == (2, 1, 0.5, "features")
    bound = model(policy.network).on(policy.network, 100)
    assert made(consistency=bound).consistency is bound
    parts = engine(policy.sampler("pcm", splitting="x0", tolerance=3e-3, window=4, **DDIM))
    assert (parts.acceptance.tolerance, parts.window) == (3e-3, 4)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"stiffness": 0.0}, "stiffness is 0"),
        ({"blend": "half"}, "blend is 'half'"),
        ({"colour": "red"}, r"no option \['colour'\]"),
    ],
)
def test_bad_options_are_named(
    policy: DiffusionPolicy, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trained(policy, "chord").sampler("pcm", **options, **DDIM)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shipped(
    one_thread: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[float], DiffusionPolicy]:
    """The shipped policy with PCM weights of some size, which went through files."""
    base = load_policy(SHIPPED, calibrated=False)
    loaded: dict[float, DiffusionPolicy] = {}

    def load(size: float) -> DiffusionPolicy:
        if size not in loaded:
            directory = tmp_path_factory.mktemp("pcm")
            for kind, steps in SOLVES:
                for splitting in SPLITTINGS:
                    made = model(base.network, kind, steps, splitting, size, stride=4)
                    schedule = base.config.noise_scheduler
                    save_consistency(directory, made, checkpoint_hash(SHIPPED), schedule)
            loaded[size] = load_policy(SHIPPED, consistency=directory)
        return loaded[size]

    return load


def shipped_observations(count: int) -> dict[str, np.ndarray]:
    return {
        name: values[:count]
        for name, values in read_observations(SHIPPED, read_config(SHIPPED)).items()
    }


@pytest.fixture(scope="module")
def exact(shipped: Callable[[float], DiffusionPolicy]) -> dict[tuple[str, int], np.ndarray]:
    obs = shipped_observations(2)
    return {
        (kind, steps): shipped(SMALL).sample(obs, seed=[3, 4], scheduler=kind, steps=steps).sample
        for kind, steps in SOLVES
    }


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize(
    ("kind", "steps", "size"),
    [("ddim", 16, SMALL), ("ddim", 16, ABSURD), ("ddpm", 100, SMALL)],
)
def test_pcm_returns_the_sample_of_sequential(
    shipped: Callable[[float], DiffusionPolicy],
    exact: dict[tuple[str, int], np.ndarray],
    kind: str,
    steps: int,
    splitting: str,
    size: float,
) -> None:
    policy, solve = shipped(size), {"scheduler": kind, "steps": steps}
    sampler = policy.sampler("pcm", splitting=splitting, **solve)
    result = policy.sample(shipped_observations(2), sampler=sampler, seed=[3, 4], **solve)
    assert result.stats.converged.all()
    # Two drafts freeze nothing, so a solve in two rounds would have skipped the base network.
    assert result.stats.rounds.min() > 2
    assert result.stats.rounds.max() < steps
    np.testing.assert_allclose(result.sample, exact[kind, steps], rtol=0, atol=2e-2)


def test_the_name_alone_takes_chord_and_its_training(
    shipped: Callable[[float], DiffusionPolicy],
) -> None:
    policy, obs = shipped(SMALL), shipped_observations(1)
    solve: dict[str, Any] = {"seed": [3], "scheduler": "ddim", "steps": 16}
    named = policy.sample(obs, sampler="pcm", **solve)
    made = policy.sampler("pcm", scheduler="ddim", steps=16, splitting="chord")
    np.testing.assert_array_equal(named.sample, policy.sample(obs, sampler=made, **solve).sample)
    alone = policy.sample(
        {name: value[0] for name, value in obs.items()}, sampler="pcm", **{**solve, "seed": 3}
    )
    np.testing.assert_array_equal(alone.sample, named.sample[0])


def padded(
    policy: DiffusionPolicy, process: Process, sampler: Sampler, pad_to: int
) -> samplers.SampleResult:
    denoiser = Denoiser(
        policy.network, policy.denoiser(shipped_observations(1)).condition, pad_to=pad_to
    )
    return sampler(denoiser, process, Noise.from_seeds([3], (16, 2), process.num_steps))


@pytest.mark.parametrize(
    ("blend", "size"), [("weights", SMALL), ("features", SMALL), ("none", ABSURD)]
)
def test_sixteen_steps_return_the_very_floats(
    shipped: Callable[[float], DiffusionPolicy], blend: str, size: float
) -> None:
    policy, process = shipped(size), shipped(size).process("ddim", 16)
    reference = padded(policy, process, samplers.get("sequential"), 16)
    for splitting in SPLITTINGS:
        strict = {"splitting": splitting, "blend": blend, "tolerance": 0.0}
        sampler = policy.sampler("pcm", scheduler="ddim", steps=16, **strict)
        result = padded(policy, process, sampler, 16)
        assert result.converged.all()
        assert torch.equal(result.trajectory, reference.trajectory), splitting


def test_a_hundred_steps_return_the_very_floats(
    shipped: Callable[[float], DiffusionPolicy],
) -> None:
    """After the drafts every call holds at most a window of rows, so all are filled up alike."""
    policy, process = shipped(SMALL), shipped(SMALL).process("ddpm", 100)
    reference = padded(policy, process, samplers.get("sequential"), 4)
    sampler = policy.sampler("pcm", scheduler="ddpm", steps=100, tolerance=0.0, window=4)
    result = padded(policy, process, sampler, 4)
    assert result.converged.all()
    assert torch.equal(result.trajectory, reference.trajectory)


def test_a_previous_chunk_is_a_start_like_another(
    shipped: Callable[[float], DiffusionPolicy], exact: dict[tuple[str, int], np.ndarray]
) -> None:
    policy, solve = shipped(SMALL), {"scheduler": "ddim", "steps": 16, "seed": [3, 4]}
    obs = shipped_observations(2)
    before = policy.sample(obs, **solve)
    result = policy.sample(obs, sampler="pcm", previous=before, executed=0, **solve)
    np.testing.assert_allclose(result.sample, exact["ddim", 16], rtol=0, atol=2e-2)


def test_new_pcm_weights_count_before_they_are_first_used(policy: DiffusionPolicy) -> None:
    obs = random_observations(2)
    with pytest.raises(InputError, match="not trained"):
        policy.sample(obs, sampler="pcm", seed=[0, 1], **DDIM)
    trained(policy, "chord")
    assert policy.sample(obs, sampler="pcm", seed=[0, 1], **DDIM).stats.converged.all()


def test_other_pcm_weights_replace_those_before(policy: DiffusionPolicy) -> None:
    obs = random_observations(2)
    trained(policy, "chord", stride=1).sample(obs, sampler="pcm", seed=[0, 1], **DDIM)
    trained(policy, "chord", stride=4)
    named, made = (
        policy.sample(obs, sampler=sampler, seed=[0, 1], **DDIM).stats.evals
        for sampler in ("pcm", policy.sampler("pcm", **DDIM))
    )
    np.testing.assert_array_equal(named, made)


def test_pcm_runs_at_the_tolerance_that_was_measured(policy: DiffusionPolicy) -> None:
    measured = dataclasses.replace(policy.calibrations["ddim", 8], tolerance=1e-3)
    policy.calibrations["ddim", 8] = measured
    tolerances = [
        engine(sampler).acceptance.tolerance  # type: ignore[attr-defined]
        for sampler in (
            policy.sampler("chord", **DDIM),
            trained(policy, "chord").sampler("pcm", **DDIM),
        )
    ]
    assert tolerances == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("pcm", {}),
        ("pcm:splitting=identity,blend=weights", {"splitting": "identity", "blend": "weights"}),
        (
            "pcm:splitting=x0,stiffness=2e+0,horizon=3,stride=4,tolerance=1e-3,window=none",
            {
                "splitting": "x0",
                "stiffness": 2.0,
                "horizon": 3,
                "stride": 4,
                "tolerance": 1e-3,
                "window": None,
            },
        ),
    ],
)
def test_pcm_on_the_command_line(text: str, options: dict[str, object]) -> None:
    spec = SamplerSpec.parse(text)
    assert (spec.label, spec.name, spec.options) == (text, "pcm", options)
    assert split_samplers(f"sequential, {text}, x0") == ("sequential", text, "x0")
    for suffix, start in (("", "cold"), ("+guess", "guess"), ("+guess+noise", "guess+noise")):
        variant = Variant.parse(text + suffix)
        assert (variant.name, variant.sampler, variant.start) == (text + suffix, "pcm", start)
        assert variant.options == options
        assert variant.approximates


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pcm:splitting=magic", "splitting is 'magic'; expected one of identity, x0, chord"),
        ("pcm:splitting=none", "splitting is None"),
        ("pcm:blend=half", "blend is 'half'; expected one of weights, features, none"),
        ("pcm:horizon=0", "horizon is 0"),
        ("pcm:stride=1.5", "stride is 1.5"),
        ("pcm:stiffness=-1", "stiffness is -1"),
        ("pcm:stiffness=nan", "stiffness is nan"),
        ("pcm:consistency=1", "no option ['consistency']"),
        ("pcm:matrices=1", "no option ['matrices']"),
    ],
)
def test_bad_choices_are_named(text: str, message: str) -> None:
    for parse in (SamplerSpec.parse, Variant.parse):
        with pytest.raises(InputError, match=re.escape(message)):
            parse(text)


def test_a_choice_makes_the_sampler_of_the_policy(policy: DiffusionPolicy) -> None:
    trained(policy, "identity", rounds=3)
    text = "pcm:splitting=identity,blend=weights,horizon=3"
    for made in (SamplerSpec.parse(text), Variant.parse(f"{text}+guess")):
        guess = draft(made.make(policy, "ddim", 8))
        assert (guess.blend, guess.horizon) == ("weights", 3)
        with pytest.raises(InputError, match="there: ddim 8 identity"):
            made.make(policy, "ddpm", 8)
