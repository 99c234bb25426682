"""Nodes are put where interpolation costs most."""

from __future__ import annotations

import pytest
import torch

from para_policy import Denoiser, samplers
from para_policy.calibration import fit_nodes, jacobians
from para_policy.samplers import LowRankChord
from tests.problems import Mixture, problem

N, BATCH, D = 24, 16, 8
TASK = problem("ddpm", N, Mixture())
NOISE = TASK.noise(BATCH)
EXACT = TASK.solve(samplers.get("sequential"), NOISE).trajectory
CLEAN = EXACT[:, -1].flatten(1).mean(dim=0).expand(BATCH, D)
MATRICES, SPREAD = jacobians(Denoiser(TASK.network), TASK.process, NOISE, EXACT)


def remainders() -> tuple[torch.Tensor, torch.Tensor]:
    """(N, BATCH, d) e_s, and the (N,) clean weights."""
    process, X = TASK.process.to("cpu", torch.float64), EXACT.flatten(2)
    w, B = process.clean_weight, process.B
    G = (MATRICES - B[:, None, None] * torch.eye(D)) / w[:, None, None]
    r = CLEAN
    scale = process.signal
    e = torch.stack(
        [
            (X[:, s + 1] - B[s] * X[:, s] - process.c[s] * NOISE.steps.flatten(2)[:, s]) / w[s]
            - r
            - (X[:, s] - scale[s] * r) @ G[s].T
            for s in range(N)
        ]
    )
    return e, w


def interpolated(e: torch.Tensor, chosen: list[int], s: int) -> torch.Tensor:
    a = max(node for node in chosen if node <= s)
    b = min(node for node in chosen if node >= s)
    share = (s - a) / max(b - a, 1)
    return (1 - share) * e[a] + share * e[b]


def by_hand(chosen: list[int]) -> torch.Tensor:
    """(BATCH, d) what X_N is off by, from the recurrence of the error itself."""
    e, w = remainders()
    off = torch.zeros(BATCH, D, dtype=torch.float64)
    for s in range(N):
        off = off @ MATRICES[s].T + w[s] * (interpolated(e, chosen, s) - e[s])
    return off


def test_the_errors_are_those_of_the_recurrence() -> None:
    nodes = fit_nodes(TASK.process, [NOISE], [EXACT], CLEAN, MATRICES, SPREAD)
    assert sorted(nodes.order.tolist()) == list(range(N))
    assert nodes.order[:2].tolist() == [0, N - 1]
    found = [
        float(by_hand(nodes.order[:n].tolist()).abs().amax(dim=1).quantile(0.95))
        for n in range(2, N + 1)
    ]
    # An error is never smaller than with more nodes: a total that is small by luck is not believed.
    largest = torch.tensor(found).flip(0).cummax(dim=0).values.flip(0)
    torch.testing.assert_close(nodes.error[1:-1], largest[:-1], rtol=1e-4, atol=1e-9)
    assert nodes.error[-1] == 0
    assert nodes.error[0] > 1e6


def test_the_defect_is_that_of_the_step_formula_before_a_step_is_a_node() -> None:
    nodes = fit_nodes(TASK.process, [NOISE], [EXACT], CLEAN, MATRICES, SPREAD)
    order, (e, w) = nodes.order.tolist(), remainders()
    assert nodes.defect is not None
    for n in range(2, N):
        s = order[n]
        off = w[s] * (interpolated(e, order[:n], s) - e[s])
        expected = float(off.abs().amax(dim=1).quantile(0.95))
        assert float(nodes.defect[s]) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert nodes.defect[[0, N - 1]].tolist() == [0, 0], "nodes from the first"


def test_chosen_nodes_are_better_than_evenly_spaced_ones() -> None:
    nodes = fit_nodes(TASK.process, [NOISE], [EXACT], CLEAN, MATRICES, SPREAD)
    even = torch.linspace(0, N - 1, 9).round().int().tolist()
    chosen = by_hand(nodes.order[:9].tolist()).square().mean()
    assert chosen < 0.25 * by_hand(even).square().mean()


def test_factors_of_full_rank_give_the_same_nodes() -> None:
    factors = LowRankChord.compress(MATRICES, TASK.process.to("cpu", torch.float64), D)
    dense = fit_nodes(TASK.process, [NOISE], [EXACT], CLEAN, MATRICES, SPREAD)
    low = fit_nodes(TASK.process, [NOISE], [EXACT], CLEAN, (factors.left, factors.right), SPREAD)
    assert torch.equal(dense.order, low.order)
    torch.testing.assert_close(dense.error, low.error, rtol=1e-4, atol=1e-9)


def test_sensitivity_is_the_products_norm_times_the_spread() -> None:
    nodes = fit_nodes(TASK.process, [NOISE], [EXACT], CLEAN, MATRICES, SPREAD)
    after = torch.eye(D, dtype=torch.float64)
    for s in reversed(range(N)):
        expected = torch.linalg.matrix_norm(after, 2) * SPREAD[s]
        assert float(nodes.sensitivity[s]) == pytest.approx(float(expected), rel=1e-4)
        after = after @ MATRICES[s]


def test_spread_is_the_deviation_from_the_mean() -> None:
    each = [
        jacobians(Denoiser(TASK.network), TASK.process, NOISE.select([b]), EXACT[[b]])
        for b in range(BATCH)
    ]
    assert all(float(spread.max()) == 0 for _, spread in each)
    deviation = torch.stack([matrix - MATRICES for matrix, _ in each]).square().sum(dim=(2, 3))
    torch.testing.assert_close(SPREAD, deviation.mean(dim=0).sqrt(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(steps: int) -> None:
    task = problem("ddpm", steps, Mixture())
    noise = task.noise(4)
    exact = task.solve(samplers.get("sequential"), noise).trajectory
    matrices, spread = jacobians(Denoiser(task.network), task.process, noise, exact)
    nodes = fit_nodes(task.process, [noise], [exact], exact[:, -1].flatten(1), matrices, spread)
    assert sorted(nodes.order.tolist()) == list(range(steps))
    assert len(nodes.levels(1e-2)) == 0


def test_multistep_schedulers_have_no_sparse_level() -> None:
    task = problem("dpmsolver++", N, Mixture())
    noise = task.noise(4)
    exact = task.solve(samplers.get("sequential"), noise).trajectory
    matrices, spread = jacobians(Denoiser(task.network), task.process, noise, exact)
    nodes = fit_nodes(task.process, [noise], [exact], exact[:, -1].flatten(1), matrices, spread)
    assert nodes.levels(1e-2).nodes.all()
