"""Problems, fine-tuned networks and checks that the tests of model switching (PCM) share."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from para_policy import Denoiser, Noise, samplers
from para_policy.samplers import Consistency, Draft, FixedPoint, Guess, SampleResult, Status
from tests.problems import Hashed, Network, Problem, Rational, problem

KINDS = ["ddpm", "ddim", "dpmsolver++"]
BLENDS = ["weights", "features", "none"]
SEQUENTIAL = samplers.get("sequential")
N = 8
SHAPE = (2, 2)
D = 4
WRONG = Hashed(seed=5)


def constant(value: float) -> Network:
    return lambda x, t: torch.full(x.shape, value, dtype=torch.float64).to(x.dtype)


def broken_in_places(x: Tensor, t: Tensor) -> Tensor:
    """NaN in one coordinate of every third row, infinite in another, huge elsewhere."""
    out = 1e30 * torch.ones_like(x)
    out[t % 3 == 0, 0] = torch.nan
    out[t % 3 == 1, -1] = torch.inf
    return out


ADVERSARIES: dict[str, Network] = {
    "random": WRONG,
    "large": Hashed(seed=6, gain=1e3),
    "1e30": constant(1e30),
    "1e300": constant(1e300),
    "random 1e300": Hashed(seed=7, gain=1e300),
    "nan": constant(math.nan),
    "inf": constant(math.inf),
    "-inf": constant(-math.inf),
    "in places": broken_in_places,
    "expansive": lambda x, t: 1e3 * x,
}

LAYOUTS: dict[str, dict[str, Any]] = {
    "all rows": {},
    "plain sweeps": {"history": 1},
    "window": {"window": 4},
    "window of one": {"window": 1, "stride": 3},
    "lookahead": {"window": 4, "lookahead": 3, "stride": 2},
    "long history": {"window": 5, "history": 4},
}


def matrices(steps: int, scale: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(steps, D, D, generator=generator, dtype=torch.float64)
    return 0.8 * torch.eye(D, dtype=torch.float64) + scale * noise


def pcm(consistency: Consistency, splitting: str, steps: int = N, **options: Any) -> FixedPoint:
    if splitting == "chord":
        options.setdefault("matrices", matrices(steps))
    if splitting == "identity":  # it has none
        options.pop("lookahead", None)
    made: FixedPoint = samplers.get("pcm", consistency=consistency, splitting=splitting, **options)
    return made


def exact_problem(kind: str, steps: int = N) -> Problem:
    """Its network computes with basic arithmetic, so that bitwise claims can be checked."""
    return Problem(Rational(), problem(kind, steps).process)


def noise_of(solved: Problem, batch: int = 2, **options: Any) -> Noise:
    return solved.noise(batch=batch, shape=SHAPE, **options)


def always(network: Network) -> Consistency:
    return lambda share: network


def named(share: float) -> Any:
    return f"tuned {share}"


def between(base: Network, tuned: Network) -> Consistency:
    """As the merged weights of a linear network: `share` of the change in its output."""
    return lambda share: lambda x, t: base(x, t) + share * (tuned(x, t) - base(x, t))


def base_only(sampler: FixedPoint) -> FixedPoint:
    """The sampler without the rounds of the fine-tuned network."""
    assert isinstance(sampler.guess, Draft)
    return dataclasses.replace(sampler, guess=sampler.guess.begin)


def draft_calls(draft: Guess) -> int:
    """Network calls before the switch."""
    assert isinstance(draft, Draft)
    parts = map(draft.networks, itertools.count())
    return sum(
        len(networks)
        for networks in itertools.takewhile(lambda networks: networks != ((None, 1.0),), parts)
    )


def assert_exact(solved: Problem, sampler: FixedPoint, noise: Noise, **options: Any) -> None:
    """The sequential floats within N rounds after the drafts."""
    result = solved.solve(sampler, noise, **options)
    assert set(result.status) == {Status.CONVERGED}
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert isinstance(sampler.guess, Draft)
    assert result.rounds.max() <= solved.process.num_steps + draft_calls(sampler.guess)


def iterates(
    solved: Problem, sampler: FixedPoint, noise: Noise, **options: Any
) -> tuple[SampleResult, list[Tensor]]:
    """The result, and all states after each round."""
    seen: list[Tensor] = []
    result = solved.solve(
        sampler, noise, callback=lambda info: seen.append(info.trajectory.clone()), **options
    )
    return result, seen


@st.composite
def options_of(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "blend": draw(st.sampled_from(BLENDS)),
        "stiffness": draw(st.floats(0.3, 5.0)),
        "horizon": draw(st.integers(1, 5)),
        "stride": draw(st.integers(1, 12)),
        "window": draw(st.none() | st.integers(1, 12)),
        "lookahead": draw(st.none() | st.integers(1, 12)),
        "history": draw(st.integers(1, 4)),
    }


@dataclass
class Log:
    """Every network call: the share of the fine-tuning (0 for the base network), and its rows."""

    solved: Problem
    tuned: Network = WRONG
    calls: list[tuple[float, list[int]]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)

    def recorded(self, share: float, inner: Network) -> Network:
        steps = {int(t): s for s, t in enumerate(self.solved.process.timesteps)}

        def network(x: Tensor, t: Tensor) -> Tensor:
            self.calls.append((share, [steps[int(value)] for value in t]))
            return inner(x, t)

        return network

    def consistency(self, share: float) -> Network:
        self.asked.append(share)
        return self.recorded(share, between(self.solved.network, self.tuned)(share))

    def solve(
        self, sampler: FixedPoint, noise: Noise, **options: Any
    ) -> tuple[SampleResult, Denoiser]:
        denoiser = Denoiser(self.recorded(0.0, self.solved.network))
        return sampler(denoiser, self.solved.process, noise, **options), denoiser


def swept(solved: Problem, X: Tensor, noise: Noise, phi: Tensor) -> Tensor:
    """One sweep of all rows by hand; `phi` (N, d, d)."""
    batch, steps = len(X), torch.arange(N)
    s, x = steps.repeat(batch), X[:, :N].flatten(0, 1)
    clean = solved.process.predict_clean(x, solved.network(x, solved.process.timesteps[s]), s)
    clean = clean.reshape(batch, N, *SHAPE)
    before = torch.cat([clean[:, :1], clean[:, :-1]], dim=1)
    new, E = [X[:, 0]], torch.zeros(batch, D, dtype=X.dtype)
    for k in range(N):
        step = torch.full((batch,), k)
        target = solved.process.mean(X[:, k], clean[:, k], before[:, k], step)
        target = target + solved.process.noise(noise.steps[:, k], step)
        E = E @ phi[k].T + (target - X[:, k + 1]).flatten(1)
        new.append(X[:, k + 1] + E.reshape(batch, *SHAPE))
    return torch.stack(new, dim=1)


def linear_part(splitting: str, solved: Problem) -> Tensor:
    eye = torch.eye(D, dtype=torch.float64)
    if splitting == "chord":
        return matrices(N)
    return eye.repeat(N, 1, 1) if splitting == "identity" else solved.process.B[:, None, None] * eye
