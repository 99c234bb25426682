"""Every sampler gives the sequential sample, on problems without a trained network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from para_policy import samplers
from para_policy.samplers import Status
from tests.problems import SOLVERS, Data, Gaussian, Mixture, problem, solver

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["ddpm", "ddim", "dpmsolver++"]
DATA = {"gaussian": Gaussian(0.2, 0.25), "mixture": Mixture()}
# Tolerance, in whatever unit the sampler measures it, and the error in the sample that we claim for it.
TIGHT = {torch.float64: (1e-8, 1e-7), torch.float32: (1e-5, 1e-4)}


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("dtype", TIGHT, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_tight_tolerance_gives_the_sequential_sample(
    name: str, kind: str, dtype: torch.dtype, data: Data, prediction: str
) -> None:
    tolerance, bound = TIGHT[dtype]
    solved = problem(kind, 24, data, prediction_type=prediction)
    noise = solved.noise(batch=4, dtype=dtype)
    expected = solved.solve(samplers.get("sequential"), noise)
    result = solved.solve(solver(name, solved.process, tolerance=tolerance), noise)
    assert result.sample.dtype == dtype
    assert set(result.status) == {Status.CONVERGED}
    assert (result.trajectory - expected.trajectory).abs().max() < bound


@pytest.mark.parametrize("kind", [*KINDS, "flow_match_euler", "flow_match_heun"])
@pytest.mark.parametrize("name", SOLVERS)
def test_the_default_tolerance_stays_close(name: str, kind: str) -> None:
    """Half a percent of the workspace in the median; a rare sample may commit to another mode."""
    solved = problem(kind, 50 if kind == "ddpm" else 20)
    noise = solved.noise(batch=40)
    expected = solved.solve(samplers.get("sequential"), noise)
    result = solved.solve(solver(name, solved.process), noise)
    error = (result.sample - expected.sample).abs().amax(dim=(1, 2))
    assert error.median() < 0.01
    assert (error < 0.05).double().mean() >= 0.95
    assert result.rounds.max() <= solved.process.num_steps


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "ddim", "eta": 0.5},
        {"kind": "ddim", "eta": 1.0},
        {"kind": "dpmsolver++", "solver_type": "heun", "final_sigmas_type": "sigma_min"},
        {"kind": "dpmsolver++", "solver_order": 1},
        {"kind": "ddpm", "variance_type": "fixed_large"},
        {"kind": "ddpm", "clip_sample": False},
        {"kind": "ddpm", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"kind": "unipc"},
        {"kind": "deis"},
        {"kind": "flow_match_euler"},
        {"kind": "flow_match_euler", "shift": 3.0, "use_karras_sigmas": True},
        {"kind": "flow_match_euler", "stochastic_sampling": True},
        {"kind": "flow_match_heun"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", SOLVERS)
def test_every_variant_of_the_process_agrees(name: str, options: dict[str, Any]) -> None:
    solved = problem(num_steps=24, **options)
    noise = solved.noise(batch=3)
    expected = solved.solve(samplers.get("sequential"), noise)
    result = solved.solve(solver(name, solved.process, tolerance=1e-8), noise)
    assert (result.trajectory - expected.trajectory).abs().max() < 1e-6


@pytest.mark.parametrize("kind", [*KINDS, "flow_match_euler", "flow_match_heun"])
def test_a_converged_solve_takes_fewer_rounds_than_steps(kind: str) -> None:
    """Otherwise the other tests could pass with a solver that merely steps."""
    solved = problem(kind, 50)
    result = solved.solve(samplers.get("paradigms"), solved.noise(batch=8))
    assert result.rounds.max() < 30
    assert result.evals.min() >= 50


@pytest.mark.parametrize("shape", [(16, 2), (16, 14)], ids=str)
@pytest.mark.parametrize("num_steps", [20, 100])
def test_one_tolerance_serves_any_number_of_steps_and_dimensions(
    num_steps: int, shape: tuple[int, int]
) -> None:
    """Defects that are small one by one add up, over 100 steps to another mode of a mixture."""
    solved = problem("flow_match_euler", num_steps, Mixture(modes=6))
    noise = solved.noise(batch=24, shape=shape, dtype=torch.float32)
    expected = solved.solve(samplers.get("sequential"), noise)
    result = solved.solve(samplers.get("x0", tolerance=1e-2), noise)
    assert (result.sample - expected.sample).abs().max() < 1e-2
