"""Answers of every sampler on the shipped policy, to be stored before a change and compared after it.

    python -m scripts.answers store FILE        in the old checkout
    python -m scripts.answers compare FILE      in the new one, on the same machine

Floats depend on the processor's kernels, and these on the number of rows. Where the network has the
stored floats at all of some numbers of rows, the machine computes as the one that stored them, and
every other float must be the stored one, too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from para_policy import DiffusionPolicy, load_policy
from para_policy.checkpoints.files import write_tensors
from para_policy.errors import InputError

CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "pusht_state"
DDPM: Mapping[str, Any] = {}
DDIM: Mapping[str, Any] = {"scheduler": "ddim", "steps": 16}
SOLVER: Mapping[str, Any] = {"scheduler": "dpmsolver++", "steps": 16}

Observations = dict[str, np.ndarray]
"""{name: (n, To, *shape)}, physical units."""


@dataclass(frozen=True)
class Case:
    """One chunk, or one batch of them.

    Attributes:
        sampler, options: as for `DiffusionPolicy.sampler`.
        process: scheduler and steps, as for `DiffusionPolicy.sample`.
        seeds: of the observations from the first on; one of them alone is no batch.
        follows: the chunk of the observation before is given as `previous`, with these options.
    """

    sampler: str
    process: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    follows: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        kind = f"{self.process.get('scheduler', 'ddpm')}-{self.process.get('steps', 100)}"
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        follows = "" if self.follows is None else f" after {dict(self.follows)}"
        return f"{self.sampler}:{options} {kind} seeds {self.seeds}{follows}"

    def solve(self, policy: DiffusionPolicy, observations: Observations) -> dict[str, Tensor]:
        """Every number of the answer."""
        sampler = policy.sampler(self.sampler, **self.process, **self.options)
        one = len(self.seeds) == 1
        seed = self.seeds[0] if one else list(self.seeds)

        def sample(first: int, **more: Any) -> Any:
            index = first if one else slice(first, first + len(self.seeds))
            obs = {name: value[index] for name, value in observations.items()}
            return policy.sample(obs, sampler=sampler, seed=seed, **self.process, **more)

        follows = self.follows
        result = sample(0) if follows is None else sample(1, previous=sample(0), **follows)
        stats = result.stats
        numbers = {
            "actions": result.actions,
            "sample": result.sample,
            "rounds": stats.rounds,
            "evals": stats.evals,
            "residual": stats.residual,
            "residuals": stats.residuals,
            "correction": stats.correction,
            "error_bound": stats.error_bound,
            "converged": stats.converged,
        }
        return {name: torch.tensor(np.array(value)) for name, value in numbers.items()}


BATCH = (3, 4, 5, 6)
PROCESSES = (DDPM, DDIM, SOLVER)
CASES = (
    *(Case("sequential", process) for process in PROCESSES),
    *(Case("sequential", process, seeds=BATCH) for process in PROCESSES),
    *(
        Case(name, process, seeds=seeds)
        for process in PROCESSES
        for name in ("paradigms", "parataa", "x0")
        for seeds in ((0,), BATCH)
    ),
    *(
        Case(name, process, options, seeds)
        for process in (DDPM, DDIM)
        for name, options in (
            ("chord", {}),
            ("chord", {"window": None, "lookahead": None, "tolerance": 1e-3}),
            ("chord", {"tolerance": 0.0, "max_rounds": 3}),
            ("x0", {"window": 12, "lookahead": 3, "history": 1}),
            ("parataa", {"order": 10, "history": 3, "window": 20}),
            ("pcm", {}),
            ("pcm", {"horizon": 2, "blend": "features"}),
            ("pcm", {"splitting": "identity", "horizon": 3, "blend": "weights", "window": 20}),
        )
        for seeds in ((1,), BATCH)
    ),
    *(Case("asd", DDPM, seeds=seeds) for seeds in ((0,), BATCH)),
    *(
        Case(name, process, follows=follows)
        for process in (DDPM, DDIM)
        for name in ("sequential", "chord")
        for follows in (
            {"executed": 8},
            {"executed": 3, "shift_noise": True},
            {"executed": 4, "frozen": 2, "overlap": "soft"},
        )
    ),
)


ROWS = (1, 2, 3, 4, 5, 8, 12, 16, 20, 26, 32, 40, 52, 64, 80, 100)
"""Of the network calls that tell one kind of machine from another."""


def answers(cases: tuple[Case, ...] = CASES) -> Iterator[tuple[Case, dict[str, Tensor]]]:
    """Solve the cases one after the other, on one thread."""
    policy, observations = _policy()
    for case in cases:
        yield case, case.solve(policy, observations)


def _policy() -> tuple[DiffusionPolicy, Observations]:
    torch.set_num_threads(1)
    stored = load_file(CHECKPOINT / "observations.safetensors")
    return load_policy(CHECKPOINT), {name: value.numpy() for name, value in stored.items()}


def machine() -> dict[str, Tensor]:
    """What the network says to the last row in calls of as many rows as in ROWS."""
    policy, observations = _policy()
    chain = policy.chain()
    denoiser = chain.denoiser({name: value[:1] for name, value in observations.items()})
    shape = (max(ROWS), policy.config.horizon, policy.config.action_dim)
    x = torch.linspace(-2, 2, math.prod(shape)).reshape(shape)
    numbers = {}
    for rows in ROWS:
        steps = torch.arange(rows) % chain.process.num_steps
        said = denoiser(x[:rows], chain.process.timesteps[steps], 0 * steps)
        numbers[f"machine/{rows}"] = said[-1].contiguous()
    return numbers


def differences(
    stored: Mapping[str, Tensor], cases: tuple[Case, ...] = CASES
) -> tuple[list[str], bool]:
    """What is not as it was stored, in words; and whether this machine computes as the one before.

    On another machine rounding differs, and with it, now and then, the round in which a solve ends:
    there samples are compared within the tolerance of the samplers.
    """
    alike = all(torch.equal(stored[name], value) for name, value in machine().items())
    found: list[str] = []
    for case, numbers in answers(cases):
        for name, value in numbers.items():
            expected = stored[f"{case.name}/{name}"]
            if torch.equal(value.nan_to_num(nan=-1.0), expected.nan_to_num(nan=-1.0)):
                continue
            if alike:
                found.append(f"{case.name}: {name} is {value.tolist()}, was {expected.tolist()}")
            elif name == "sample" and not torch.allclose(value, expected, atol=2e-2):
                largest = float((value - expected).abs().max())
                found.append(f"{case.name}: {name} is off by {largest:.1e}")
    return found, alike


def main(argv: list[str]) -> int:
    """Store or compare; returns the exit code."""
    commands: dict[str, Callable[[Path], int]] = {"store": _store, "compare": _compare}
    if len(argv) != 2 or argv[0] not in commands:
        raise InputError(f"arguments are {argv}; expected: store FILE, or: compare FILE")
    return commands[argv[0]](Path(argv[1]))


def _store(path: Path) -> int:
    numbers = {f"{case.name}/{name}": v for case, all_ in answers() for name, v in all_.items()}
    write_tensors(path, machine() | numbers)
    print(f"{len(CASES)} answers: {path}")
    return 0


def _compare(path: Path) -> int:
    found, alike = differences(load_file(path))
    print("\n".join(found))
    how = "to the bit" if alike else "within the samplers' tolerance (another kind of machine)"
    print(f"{len(CASES)} answers compared {how}: {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
