"""Arguments of a call that do not fit each other: refused by every sampler, before the network is asked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, samplers
from para_policy.diffusion.inpainting import Inpainting
from para_policy.errors import InputError
from tests.problems import Problem, problem

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ["sequential", "x0", "parataa", "paradigms", "asd"]
SHAPE = (4, 2)


def conditional(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    return 0.5 * x + condition.mean()


@pytest.fixture
def solved() -> Problem:
    return problem("ddpm", 10)


@pytest.mark.parametrize("rows", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_each_sample_has_a_row_of_the_condition(solved: Problem, name: str, rows: int) -> None:
    """With more rows the first ones would be taken, which need not be those that were meant."""
    denoiser = Denoiser(conditional, torch.zeros(rows, 3))
    with pytest.raises(InputError, match=rf"noise holds 3 samples, .* condition {rows} rows"):
        samplers.get(name)(denoiser, solved.process, solved.noise(3))
    assert denoiser.rounds == 0


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_has_a_row_of_what_is_known(solved: Problem, name: str) -> None:
    known = Inpainting(torch.zeros(4, *SHAPE), torch.zeros(4, *SHAPE))
    with pytest.raises(InputError, match=r"noise holds 3 samples, .* known 4 rows"):
        samplers.get(name)(Denoiser(solved.network, known=known), solved.process, solved.noise(3))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_cannot_be_sampled(solved: Problem, name: str) -> None:
    noise = solved.noise(3).select([])
    with pytest.raises(InputError, match="noise holds no sample"):
        samplers.get(name)(Denoiser(solved.network), solved.process, noise)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("name", NAMES)
def test_solvers_compute_in_single_precision_or_better(
    solved: Problem, name: str, dtype: torch.dtype
) -> None:
    """In half precision a solve ended "converged" at ten times its tolerance from its own loop."""
    noise = solved.noise(3, dtype=dtype)
    with pytest.raises(InputError, match=f"dtype {dtype}; expected float32 or float64"):
        samplers.get(name)(Denoiser(solved.network), solved.process, noise)
