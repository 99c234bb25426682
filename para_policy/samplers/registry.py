"""Registry of named samplers: each a choice of parts, in one place."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import Tensor

from para_policy.arguments import check_kind
from para_policy.errors import InputError
from para_policy.samplers.acceptance import (
    CorrectionBelowNoise,
    ResidualBelow,
    ResidualBelowEither,
)
from para_policy.samplers.anderson import TriangularAnderson
from para_policy.samplers.asd import Asd
from para_policy.samplers.checks import check_count
from para_policy.samplers.collocation import Collocation
from para_policy.samplers.draft import Blend, Consistency, Draft
from para_policy.samplers.fixed_point import FixedPoint
from para_policy.samplers.guess import Copy, Prior, Trajectory
from para_policy.samplers.nodes import Nodes
from para_policy.samplers.sampler import Sampler
from para_policy.samplers.sequential import Sequential
from para_policy.samplers.splitting import Chord, LowRankChord, Scalar, Splitting

SplittingName = Literal["identity", "x0", "chord"]
SPLITTINGS: tuple[SplittingName, ...] = get_args(SplittingName)
"""Linear parts for which `pcm` can be trained."""


def sequential() -> Sequential:
    """One network call after the other: the reference."""
    return Sequential()


def paradigms(
    window: int | None = 20,
    tolerance: float = 0.1,
    max_rounds: int | None = None,
    start: Literal["copy", "prior"] = "copy",
) -> FixedPoint:
    """ParaDiGMS (Shih et al. 2023): Picard iteration in a sliding window.

    Args:
        window: rows in flight; None for all N. With 20 a 100-step DDPM takes the rounds and rows
            that the paper reports for robots (25 and 390); the reference code's default is 10.
        tolerance: largest RMS correction of an accepted state, in noise stds of the step that leaves it.
        max_rounds: stop early with `Status.ROUND_BUDGET`.
        start: "copy", the paper's, of the cleanest state in flight, or "prior", where `x0`, `chord` and
            `pcm` begin, too: with a calibration, at its linear guess.
    """
    guesses = {"copy": Copy(), "prior": Prior()}
    if start not in guesses:
        raise InputError(f"start is {start!r}; expected one of {', '.join(guesses)}")
    return FixedPoint(
        Scalar("identity"),
        CorrectionBelowNoise(tolerance),
        guesses[start],
        window=window,
        max_rounds=max_rounds,
    )


def parataa(
    order: int | None = None,
    history: int = 2,
    window: int | None = None,
    tolerance: float = 1e-3,
    relative_tolerance: float = 1e-3,
    regularisation: float = 1e-6,
    max_rounds: int | None = None,
    trajectory: Tensor | None = None,
    solve_last: int | None = None,
) -> FixedPoint:
    """ParaTAA (Tang et al. 2024): order-k triangular systems with triangular Anderson acceleration.

    The defaults are those of the reference scripts: all steps in the window, order N, one stored
    difference, both tolerances 1e-3.

    Args:
        order: k, steps that each equation integrates; None for all N.
        history: m, stored iterates; 1 for plain iteration.
        window: rows in flight; None for all N.
        tolerance: RMS first-order residual of a finished row, normalised action units.
        relative_tolerance: the same in noise stds of the step; a row needs only one of the two.
        regularisation: of the Gram matrix, relative to its mean diagonal entry.
        max_rounds: s_max, stop early with `Status.ROUND_BUDGET`.
        trajectory: (batch, N + 1, *shape) solution of a similar problem to start from.
        solve_last: T_init, with `trajectory`: solve only so many steps at the clean end.
    """
    if trajectory is None and solve_last is not None:
        raise InputError(f"solve_last is {solve_last} without a trajectory; give both")
    return FixedPoint(
        Scalar("epsilon", order),
        ResidualBelowEither(tolerance, relative_tolerance),
        Copy() if trajectory is None else Trajectory(trajectory, solve_last),
        _anderson(history, regularisation),
        window=window,
        max_rounds=max_rounds,
    )


def x0(
    tolerance: float = 1e-2,
    window: int | None = None,
    lookahead: int | None = None,
    history: int = 3,
    max_rounds: int | None = None,
) -> FixedPoint:
    """Clean-sample splitting from the prior: needs no calibration.

    Args:
        tolerance: largest coordinate of the first-order residual of an accepted state, normalised
            action units; half of it for the propagated correction.
        window: rows in flight; None for all N.
        lookahead: stride of the rows evaluated beyond the window; None for none.
        history: stored iterates of triangular Anderson acceleration; 1 for plain sweeps.
        max_rounds: stop early with `Status.ROUND_BUDGET`.
    """
    return _ours(Scalar("clean"), tolerance, window, lookahead, history, max_rounds)


def chord(
    matrices: Tensor | tuple[Tensor, Tensor],
    tolerance: float = 1e-2,
    window: int | None = 60,
    lookahead: int | None = 4,
    history: int = 3,
    max_rounds: int | None = None,
) -> FixedPoint:
    """Fixed-Jacobian Newton (chord) method: the fewest rounds, with matrices measured once.

    Args:
        matrices: (N, d, d) mean Jacobian of each step, or its factors (N, d, r) and (N, r, d) as in
            `LowRankChord`, from `para-policy calibrate`.
        tolerance, window, lookahead, history, max_rounds: as for `x0`.
    """
    splitting = LowRankChord(*matrices) if isinstance(matrices, tuple) else Chord(matrices)
    return _ours(splitting, tolerance, window, lookahead, history, max_rounds)


def collocation(
    matrices: Tensor | tuple[Tensor, Tensor],
    nodes: Nodes,
    tolerance: float = 1e-2,
    window: int | None = 60,
    history: int = 3,
    max_rounds: int | None = None,
) -> Collocation:
    """Chord at a few nodes, interpolated between them: fewer network rows than steps.

    Args:
        matrices: as for `chord`.
        nodes: from `para-policy calibrate`.
        tolerance: of the estimated error of a finished sample, twice, normalised action units.
        window, history: of the rounds over all steps, for samples that the nodes do not suffice for;
            beyond the window every fourth row is evaluated.
        max_rounds: stop early with `Status.ROUND_BUDGET`.
    """
    solver = chord(matrices, tolerance, window, 4, history, max_rounds)
    parts = {item.name: getattr(solver, item.name) for item in dataclasses.fields(solver)}
    return Collocation(**parts, nodes=nodes)


def pcm(
    consistency: Consistency,
    splitting: str = "chord",
    matrices: Tensor | tuple[Tensor, Tensor] | None = None,
    tolerance: float | None = None,
    window: int | None = None,
    lookahead: int | None = None,
    history: int = 3,
    stiffness: float = 1.0,
    horizon: int = 1,
    blend: Blend = "none",
    stride: int = 1,
    max_rounds: int | None = None,
) -> FixedPoint:
    """Picard Consistency Model (So et al. 2025): a fine-tuned network begins, the base network ends.

    Args:
        consistency: the fine-tuned network, from `para-policy distill`.
        splitting: "identity" (the paper's: Picard sweeps, accepted as in `paradigms`), "x0" or
            "chord" (accepted as in those).
        matrices: for "chord", as there.
        tolerance: as in the sampler of that splitting; None for its default.
        window, lookahead: of the rounds after the switch, as for `x0`.
        history: stored iterates of triangular Anderson acceleration after the switch; "identity" has
            none.
        stiffness, horizon, blend, stride: of the rounds before the switch, see `Draft`.
        max_rounds: stop early with `Status.ROUND_BUDGET`; all network calls count.
    """
    if not isinstance(splitting, str) or splitting not in SPLITTINGS:
        raise InputError(f"splitting is {splitting!r}; expected one of {', '.join(SPLITTINGS)}")
    draft = Draft(consistency, stiffness, horizon, blend, stride)
    if splitting == "identity":
        if lookahead is not None:
            raise InputError(f"lookahead is {lookahead}; splitting 'identity' has none")
        solver = paradigms(window, 0.1 if tolerance is None else tolerance, max_rounds)
        return dataclasses.replace(solver, guess=draft)
    ours = (1e-2 if tolerance is None else tolerance, window, lookahead, history, max_rounds)
    if splitting == "x0":
        solver = x0(*ours)
    else:
        if matrices is None:
            raise InputError("splitting 'chord' needs matrices; run para-policy calibrate")
        solver = chord(matrices, *ours)
    return dataclasses.replace(solver, guess=draft)


def asd(window: int | None = 20) -> Asd:
    """Autospeculative decoding (Hu et al. 2025): exact in law, but not the sequential sample.

    Args:
        window: rows in flight; None for all N.
    """
    return Asd(window)


def _ours(
    splitting: Splitting,
    tolerance: float,
    window: int | None,
    lookahead: int | None,
    history: int,
    max_rounds: int | None,
) -> FixedPoint:
    return FixedPoint(
        splitting,
        ResidualBelow(tolerance),
        Prior(),
        _anderson(history, 1e-6),
        window,
        lookahead,
        max_rounds,
    )


def _anderson(history: int, regularisation: float) -> TriangularAnderson | None:
    check_count("history", history)
    return None if history == 1 else TriangularAnderson(history, regularisation)


_PRESETS: dict[str, Callable[..., Sampler]] = {
    "sequential": sequential,
    "paradigms": paradigms,
    "parataa": parataa,
    "x0": x0,
    "chord": chord,
    "collocation": collocation,
    "pcm": pcm,
    "asd": asd,
}


def names() -> tuple[str, ...]:
    """Return the registered names."""
    return tuple(_PRESETS)


def options(name: str) -> tuple[str, ...]:
    """Return the names of a sampler's options.

    Raises:
        InputError: for an unknown sampler.

    >>> options("paradigms")
    ('window', 'tolerance', 'max_rounds', 'start')
    """
    check_kind("sampler", name, str)
    if name not in _PRESETS:
        raise InputError(f"unknown sampler {name!r}; expected one of {', '.join(_PRESETS)}")
    return tuple(inspect.signature(_PRESETS[name]).parameters)


def get(name: str, **chosen: Any) -> Sampler:
    """Make a sampler by name.

    Raises:
        InputError: for an unknown name or option, or a value out of range.

    >>> get("paradigms", window=10).window
    10
    """
    known = options(name)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise InputError(
            f"sampler {name!r} has no option {unknown}; it takes {list(known) or 'none'}"
        )
    parameters = inspect.signature(_PRESETS[name]).parameters.values()
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in chosen]
    if missing:
        raise InputError(
            f"sampler {name!r} needs {' and '.join(missing)}, which is measured or trained for a "
            "checkpoint: give it, or take a sampler that needs nothing, such as 'x0'"
        )
    try:
        return dataclasses.replace(_PRESETS[name](**chosen), name=name)
    except TypeError as error:
        raise InputError(f"sampler {name!r}: {error}") from error
