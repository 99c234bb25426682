"""Recorded rounds give the floats of rounds that are launched one by one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Noise, samplers
from para_policy.diffusion.inpainting import Inpainting
from para_policy.errors import InputError
from para_policy.inference.graphs import CudaGraphs, Recorder, Repeat
from para_policy.inference.graphs.recording import Work
from para_policy.samplers import FromCleanSample, RoundInfo, Status
from para_policy.samplers.deadline import Deadline
from tests.inference.rounds import (
    SAMPLERS,
    STEPS,
    WIDTH,
    Counted,
    Network,
    assert_same,
    matrices,
    problem,
    process_of,
    recorded_by,
)


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("label", SAMPLERS)
@pytest.mark.parametrize("block", [1, 3])
def test_replays_give_the_same_floats_for_new_observations_and_noise(
    label: str, kind: str, block: int
) -> None:
    name, options = SAMPLERS[label]
    sampler, process, network = samplers.get(name, **options), process_of(kind), Network()
    recorder, counts = Counted(), []
    replayed = recorded_by(sampler, recorder, block=block)
    for seed in range(3):
        condition, noise = problem(seed)
        usual = sampler(Denoiser(network, condition), process, noise)
        assert_same(replayed(Denoiser(network, condition), process, noise), usual)
        counts.append(recorder.recorded)
    assert counts[0] > 0
    assert counts[0] == counts[-1]
    assert recorder.replayed > 0


@pytest.mark.parametrize("kind", ["ddpm", "dpmsolver++"])
@pytest.mark.parametrize("label", SAMPLERS)
def test_the_rows_of_recorded_rounds_are_known_beforehand(label: str, kind: str) -> None:
    name, options = SAMPLERS[label]
    sampler, process = samplers.get(name, **options), process_of(kind)
    condition, noise = problem(0)
    denoiser = Denoiser(Network(), condition)
    solve: Any = sampler.begin(denoiser, process, noise, None)
    launches = [solve.launch(solve.opening, denoiser, 1 + k) for k in range(solve.sizes)]
    assert [launch.rows // noise.batch for launch in launches] == list(sampler.round_sizes(process))


def test_what_inference_mode_has_recorded_is_replayed_outside_of_it() -> None:
    sampler, process, network, recorder = (
        samplers.get("x0"),
        process_of("ddpm"),
        Network(),
        Counted(),
    )
    replayed, counts = recorded_by(sampler, recorder), []
    for seed, within in enumerate((True, False, True)):
        condition, noise = problem(seed)
        usual = sampler(Denoiser(network, condition), process, noise)
        with torch.inference_mode(within):
            found = replayed(Denoiser(network, condition.clone()), process, noise)
        assert_same(found, usual)
        counts.append(recorder.recorded)
    assert counts[0] == counts[-1] > 0


def test_the_samples_of_a_batch_stop_each_by_itself() -> None:
    sampler, network = samplers.get("x0", tolerance=1e-4), Network()
    condition, noise = problem(3, batch=5)
    usual = sampler(Denoiser(network, condition), process_of("ddpm"), noise)
    assert len(set(usual.rounds.tolist())) > 1
    recorded = recorded_by(sampler, Repeat())
    assert_same(recorded(Denoiser(network, condition), process_of("ddpm"), noise), usual)


def test_other_shapes_processes_and_networks_are_recorded_anew() -> None:
    sampler, recorder = samplers.get("x0"), Counted()
    replayed, first, other = recorded_by(sampler, recorder, block=1), Network(), Network(seed=9)
    ddpm, ddim = process_of("ddpm"), process_of("ddim")
    cases = [
        (first, ddpm, 2),
        (first, ddpm, 3),
        (first, ddim, 2),
        (other, ddpm, 2),
        (first, ddpm, 2),
    ]
    for network, process, batch in cases:
        condition, noise = problem(0, batch)
        usual = sampler(Denoiser(network, condition), process, noise)
        assert_same(replayed(Denoiser(network, condition), process, noise), usual)
    assert recorder.recorded == 4


def test_few_recordings_are_kept() -> None:
    sampler, recorder, network = samplers.get("x0"), Counted(), Network()
    replayed = recorded_by(sampler, recorder, block=1, most=4)
    process = process_of("ddpm")
    for batch in (1, 2, 3, 4, 5, 1):
        condition, noise = problem(0, batch)
        replayed(Denoiser(network, condition), process, noise)
    assert recorder.recorded == 6
    assert replayed.recordings is not None
    assert len(replayed.recordings) == 4


def test_known_samples_and_guesses_are_taken_over() -> None:
    sampler, network, process = samplers.get("x0"), Network(), process_of("ddpm")
    replayed = recorded_by(sampler, Repeat())
    for seed in range(3):
        condition, noise = problem(seed)
        known = Inpainting(noise.steps[:, 0].tanh(), (noise.initial > 0.5).float())
        guess = FromCleanSample(noise.steps[:, 1].tanh())
        denoisers = [Denoiser(network, condition, known=known) for _ in range(2)]
        usual = sampler(denoisers[0], process, noise, guess=guess)
        assert_same(replayed(denoisers[1], process, noise, guess=guess), usual)


def test_an_unconditional_network_is_replayed() -> None:
    sampler, process = samplers.get("x0"), process_of("ddim")
    network = Network()
    fixed = network.bind(torch.zeros(1, WIDTH))

    def plain(x: Tensor, t: Tensor) -> Tensor:
        return fixed(x, t, torch.zeros_like(t))

    replayed = recorded_by(sampler, Repeat())
    for seed in range(2):
        noise = problem(seed)[1]
        assert_same(
            replayed(Denoiser(plain), process, noise), sampler(Denoiser(plain), process, noise)
        )


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_limit_of_rounds_holds(limit: int) -> None:
    sampler = samplers.get("x0", tolerance=1e-6, max_rounds=limit)
    condition, noise = problem(1)
    network, process = Network(), process_of("ddpm")
    usual = sampler(Denoiser(network, condition), process, noise)
    assert usual.status[0] is Status.ROUND_BUDGET
    denoiser = Denoiser(network, condition)
    result = recorded_by(sampler, Repeat(), block=3)(denoiser, process, noise)
    assert_same(result, usual)
    assert denoiser.rounds == limit


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 3, 8])
@pytest.mark.parametrize("label", sorted(SAMPLERS.keys() - {"collocation"}))
def test_a_solve_may_be_over_before_a_block_is(label: str, block: int, steps: int) -> None:
    name, options = SAMPLERS[label]
    if "matrices" in options:
        options = {**options, "matrices": matrices(steps)}
    sampler, process, network = samplers.get(name, **options), process_of("ddim", steps), Network()
    condition, noise = problem(0, steps=steps)
    usual = sampler(Denoiser(network, condition), process, noise)
    replayed = recorded_by(sampler, Repeat(), block=block)
    assert_same(replayed(Denoiser(network, condition), process, noise), usual)


def test_callbacks_see_every_round() -> None:
    sampler, network, process = samplers.get("x0"), Network(), process_of("ddpm")
    condition, noise = problem(0)
    seen: list[list[RoundInfo]] = [[], []]

    def keep(into: list[RoundInfo]) -> Callable[[RoundInfo], None]:
        return lambda info: into.append(
            dataclasses.replace(info, trajectory=info.trajectory.clone())
        )

    sampler(Denoiser(network, condition), process, noise, callback=keep(seen[0]))
    replayed = recorded_by(sampler, Repeat())
    replayed(Denoiser(network, condition), process, noise, callback=keep(seen[1]))
    assert len(seen[0]) == len(seen[1]) > 2
    for usual, recorded in zip(*seen, strict=True):
        assert recorded.round == usual.round
        assert torch.equal(recorded.trajectory, usual.trajectory)
        assert torch.equal(recorded.accepted, usual.accepted)


def test_a_deadline_stops_between_rounds() -> None:
    sampler, process = samplers.get("x0", tolerance=1e-6), process_of("ddpm")
    condition, noise = problem(0)
    replayed = recorded_by(sampler, Repeat())
    assert replayed(Denoiser(Network(), condition), process, noise).converged.all()
    late = Deadline(at=0.0)
    result = replayed(Denoiser(Network(), condition), process, noise, deadline=late)
    assert result.status[0] is Status.DEADLINE
    assert result.rounds.tolist() == [1, 1]
    assert result.sample.isfinite().all()
    with pytest.raises(InputError, match="no deadline"):
        recorded_by(samplers.get("sequential"), Repeat())(
            Denoiser(Network(), condition), process, noise, deadline=late
        )


def test_nan_of_one_sample_stays_with_it() -> None:
    condition, noise = problem(0, batch=3)
    condition[1] = torch.nan
    sampler, network, process = samplers.get("x0"), Network(), process_of("ddpm")
    usual, result = (
        solver(Denoiser(network, condition), process, noise, partial=True)
        for solver in (sampler, recorded_by(sampler, Repeat()))
    )
    assert result.status == usual.status
    assert result.status[1] is Status.NON_FINITE
    assert torch.equal(result.sample[[0, 2]], usual.sample[[0, 2]])
    assert result.trajectory[1, :-1].isfinite().all() == usual.trajectory[1, :-1].isfinite().all()


def test_what_cannot_be_recorded_is_sampled_as_usual() -> None:
    class Broken(Repeat):
        def record(self, work: Work, restart: Work) -> Work:
            raise torch.OutOfMemoryError("no memory for a graph")

    sampler, network, process = samplers.get("x0"), Network(), process_of("ddpm")
    replayed = recorded_by(sampler, Broken())
    condition, noise = problem(0)
    usual = sampler(Denoiser(network, condition), process, noise)
    with pytest.warns(UserWarning, match="no memory for a graph"):
        assert_same(replayed(Denoiser(network, condition), process, noise), usual)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(replayed(Denoiser(network, condition), process, noise), usual)


def test_large_batches_are_not_recorded() -> None:
    recorder, process = Counted(), process_of("ddpm")
    replayed = recorded_by(samplers.get("x0"), recorder, most_rows=2 * STEPS)
    for batch in (2, 3):
        condition, noise = problem(0, batch)
        assert replayed(Denoiser(Network(), condition), process, noise).converged.all()
        assert recorder.recorded > 0
    assert replayed.recordings is not None
    assert len(replayed.recordings) == 1


def test_results_outlive_the_next_replay() -> None:
    replayed, process, network = (
        recorded_by(samplers.get("x0"), Repeat()),
        process_of("ddpm"),
        Network(),
    )
    condition, noise = problem(0)
    first = replayed(Denoiser(network, condition), process, noise)
    kept = first.sample.clone(), first.residual.clone(), first.rounds.clone()
    replayed(Denoiser(network, problem(1)[0]), process, problem(1)[1])
    for value, then in zip((first.sample, first.residual, first.rounds), kept, strict=True):
        assert torch.equal(value, then)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("label", SAMPLERS)
def test_cuda_graphs_agree_with_launched_kernels(label: str) -> None:
    name, options = SAMPLERS[label]
    if "consistency" in options:
        networks = {share: Network(5 if share else 0, "cuda") for share in (0.0, 1.0)}
        options = {**options, "consistency": lambda share: networks[1.0 if share else 0.0]}
    sampler, process, network = (
        samplers.get(name, **options),
        process_of("ddpm"),
        Network(0, "cuda"),
    )
    recorder: Recorder = CudaGraphs(torch.device("cuda"))
    replayed = recorded_by(sampler, recorder)
    for seed in range(3):
        condition, drawn = problem(seed)
        condition, noise = condition.cuda(), Noise(drawn.initial.cuda(), drawn.steps.cuda())
        usual = sampler(Denoiser(network, condition), process, noise)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = replayed(Denoiser(network, condition), process, noise)
        assert torch.allclose(result.sample, usual.sample, atol=1e-5)
        assert result.rounds.tolist() == usual.rounds.tolist()
