"""Picard trajectories: iterates of the parallel solve and its fixed point, the data of PCM.

The store is a zarr group that grows by batches, so that an interrupted run can go on and memory
stays bounded. Noise is drawn up front from the seed of each trajectory and frozen; it is not
stored, `Noise.from_seeds` draws it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from para_policy.checkpoints.files import arrays_sha256
from para_policy.diffusion.noise import Noise
from para_policy.errors import DataError, InputError, WorkerLostError
from para_policy.extras import extra
from para_policy.files import check_output_folder, make_folder, writing
from para_policy.lock import sole_writer
from para_policy.memory import check_disk
from para_policy.policies.policy import DiffusionPolicy
from para_policy.stopping import keeping
from para_policy.terminal import progress_bars
from para_policy.training.pcm.problem import Batch, Problem, Rows, Settings

with extra("train", "making trajectories"):
    import zarr

FORMAT_VERSION = 1
_BATCH = 32
_CHUNK = 8

Place = Callable[[Iterable[Batch]], Generator[tuple[Batch, Rows]]]
"""Solves batches somewhere, and yields them in their order."""


def generate(
    policy: DiffusionPolicy,
    observations: Mapping[str, np.ndarray],
    settings: Settings,
    path: str | Path,
    weights_sha256: str,
    place: Place | None = None,
) -> Path:
    """Solve and store; goes on where an interrupted run stopped.

    Args:
        observations: {name: (n, To, *shape)}, physical units; with fewer than `settings.count`, each
            is used with several noises.
        path: of the zarr group.
        weights_sha256: of the policy, to which the store is bound.
        place: where to solve; None for this process.

    Raises:
        InputError: if `path` cannot be written, is being written, its disk is too small, or it holds
            something else, or trajectories of other settings, observations, weights or calibration;
            or for a multistep scheduler.
        NonFiniteError: if the policy returns NaN or infinity.
        WorkerLostError: from `place`; what is finished by then is kept.
    """
    problem = Problem.of(policy, settings.scheduler, settings.steps, settings.splitting)
    kind, N = policy.chain(settings.scheduler, settings.steps).key
    if bool((problem.process.H != 0).any()):
        raise InputError(f"PCM is not trained for the multistep scheduler {kind}; use ddpm or ddim")
    if settings.rounds > N + 1:
        raise InputError(
            f"rounds is {settings.rounds}; {N} steps are solved after {N}, so at most {N + 1} iterates"
        )
    if not len(next(iter(observations.values()))):
        raise InputError("there are no observations to start from; expected at least one")
    facts = {
        "format_version": FORMAT_VERSION,
        "weights_sha256": weights_sha256,
        "noise_scheduler": policy.config.noise_scheduler,
        "scheduler": kind,
        "steps": N,
        "splitting": settings.splitting,
        "rounds": settings.rounds,
        "count": settings.count,
        "given": len(next(iter(observations.values()))),
        "calibration": problem.digest,
        "observations": arrays_sha256(
            np.asarray(observations[name]) for name in policy.config.inputs
        ),
    }
    path = Path(path)
    shape = (policy.config.horizon, policy.config.action_dim)
    check_output_folder(path.parent)

    def here(batches: Iterable[Batch]) -> Generator[tuple[Batch, Rows]]:
        for batch in batches:
            yield batch, problem.solve(policy, batch, settings.rounds)

    with sole_writer(path):
        group = _open(path, facts, shape, policy.config.condition_dim)
        if (first := _finished(group)) < settings.count:
            batches = _batches(observations, first, settings.count)
            _fill(path, group, (place or here)(batches))
    Trajectories(path)  # whole?
    return path


def _batches(observations: Mapping[str, np.ndarray], first: int, count: int) -> Iterator[Batch]:
    given = len(next(iter(observations.values())))
    for start in range(first, count, _BATCH):
        part = slice(start, min(start + _BATCH, count))
        index = np.arange(part.start, part.stop) % given
        yield Batch(part, {name: values[index] for name, values in observations.items()})


def _fill(path: Path, group: zarr.Group, solved: Generator[tuple[Batch, Rows]]) -> None:
    """Store batches as they come."""
    with keeping(lambda: _progress(path, group)), progress_bars() as progress, closing(solved):
        count = _array(group, "seed").shape[0]
        bar = progress.add_task("trajectories", total=count, completed=_finished(group))
        try:
            for batch, rows in solved:
                # Otherwise zarr leaves out chunks of zeros only, which then look as if they were lost.
                with writing(path), zarr.config.set({"array.write_empty_chunks": True}):
                    for name, values in rows.items():
                        _array(group, name)[batch.part] = values
                    group.attrs["finished"] = batch.part.stop
                progress.update(bar, completed=batch.part.stop)
        except WorkerLostError as error:
            raise WorkerLostError(f"{error}; {_progress(path, group)}") from error


class Trajectories:
    """A finished store, read a few trajectories at a time.

    Attributes:
        facts: what it was generated with: `scheduler`, `steps`, `splitting`, `rounds`, `count`,
            `weights_sha256`, `noise_scheduler`.
        observed: number of observations that they start from, in turn; `count` where a store of an
            earlier release does not say.

    Raises:
        DataError: if there is none, or it is unfinished or broken.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._group = zarr.open_group(self.path, mode="r")
            self.facts: dict[str, Any] = dict(self._group.attrs)
            version, count = self.facts["format_version"], int(self.facts["count"])
            self.observed = max(min(int(self.facts.get("given", count)), count), 1)
            held = {_array(self._group, name).shape[0] for name in _ARRAYS}
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"'{self.path}' holds no trajectories ({error}); run para-policy trajectories"
            ) from error
        if version != FORMAT_VERSION:
            raise DataError(
                f"'{self.path}' has format_version {version!r}, this release reads {FORMAT_VERSION}; "
                "run para-policy trajectories again"
            )
        if held != {count}:
            raise DataError(f"'{self.path}' is broken: arrays of lengths {held}, count {count}")
        for name in _ARRAYS:
            array = _array(self._group, name)
            # zarr reads a chunk that is not there as zeros.
            if _finished(self._group) == count and array.nchunks_initialized < array.nchunks:
                missing = array.nchunks - array.nchunks_initialized
                raise DataError(
                    f"'{self.path}' is broken: {missing} of {array.nchunks} chunks of {name} are "
                    "missing; delete it and run para-policy trajectories again"
                )
        if _finished(self._group) < count:
            raise DataError(_progress(self.path, self._group))

    def __len__(self) -> int:
        return int(self.facts["count"])

    def split(self, most: int) -> tuple[Tensor, Tensor]:
        """Indices to learn from, and at most `most`, or a quarter, to hold out.

        Those that are held out start from observations that no other one starts from, unless there
        are fewer than four.
        """
        count, observed = len(self), self.observed
        index, wanted = torch.arange(count), min(most, count // 4)
        if observed < 4 or not wanted:
            return index[: count - wanted], index[count - wanted :]
        apart = max(1, min(round(wanted * observed / count), observed // 4))
        held_out = index % observed >= observed - apart
        return index[~held_out], index[held_out][:most]

    def problem(self, policy: DiffusionPolicy, weights_sha256: str) -> Problem:
        """The solve that the store records, as this policy has it.

        Raises:
            InputError: if the splitting needs a calibration that is missing.
            DataError: if it was made with other weights, another noise schedule or another calibration.
        """
        self._check("weights_sha256", weights_sha256)
        self._check("noise_scheduler", policy.config.noise_scheduler)
        problem = Problem.of(
            policy, self.facts["scheduler"], self.facts["steps"], self.facts["splitting"]
        )
        self._check("calibration", problem.digest)
        return problem

    def _check(self, what: str, expected: Any) -> None:
        if self.facts[what] != expected:
            raise DataError(
                f"'{self.path}' was made with other {what.removesuffix('_sha256')} "
                f"({self.facts[what]}, here {expected}); run para-policy trajectories again"
            )

    def batch(self, indices: Tensor) -> tuple[Noise, Tensor, Tensor, Tensor]:
        """Noise, conditions (b, C), iterates (b, K, N + 1, *shape) and solutions (b, N + 1, *shape)."""
        try:
            seed, condition, iterates, solution = (
                np.asarray(_array(self._group, name).oindex[indices.numpy()]) for name in _ARRAYS
            )
        except Exception as error:  # whatever the codec raises
            raise DataError(
                f"'{self.path}' cannot be decoded ({error}); delete it and run para-policy "
                "trajectories again"
            ) from error
        noise = Noise.from_seeds(seed.tolist(), solution.shape[2:], int(self.facts["steps"]))
        return (
            noise,
            torch.from_numpy(condition),
            torch.from_numpy(iterates),
            torch.from_numpy(solution),
        )


_ARRAYS = ("seed", "condition", "iterates", "solution")


def _open(path: Path, facts: Mapping[str, Any], shape: tuple[int, int], width: int) -> zarr.Group:
    """The group at `path`, made if there is none."""
    if path.exists():
        try:
            group = zarr.open_group(path, mode="r+")
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"'{path}' exists and holds no trajectories; give another") from error
        held = {key: group.attrs.get(key) for key in facts}
        differing = [key for key in facts if held[key] != facts[key]]
        if held["format_version"] is None:
            raise InputError(f"'{path}' exists and holds no trajectories; give another")
        if differing:
            what = ", ".join(f"{key} ({held[key]}, asked for {facts[key]})" for key in differing)
            raise InputError(f"'{path}' holds trajectories with another {what}; give another path")
        return group
    count, iterates = facts["count"], facts["rounds"] + 1
    states = iterates * (facts["steps"] + 1) * math.prod(shape)
    check_disk(f"a store of {count} trajectories", 4 * count * (states + width), path.parent)
    # Whole or not at all: a group without its attributes could not be gone on with.
    make_folder(path, lambda folder: _create(folder, facts, shape, width))
    return zarr.open_group(path, mode="r+")


def _create(path: Path, facts: Mapping[str, Any], shape: tuple[int, int], width: int) -> None:
    count, rounds, N = facts["count"], facts["rounds"], facts["steps"]
    group = zarr.create_group(path)
    states = (N + 1, *shape)
    for name, tail, dtype in (
        ("seed", (), "int64"),
        ("condition", (width,), "float32"),
        ("solution", states, "float32"),
        ("iterates", (rounds, *states), "float32"),
    ):
        group.create_array(
            name, shape=(count, *tail), chunks=(min(_CHUNK, count), *tail), dtype=dtype
        )
    group.attrs.update({**facts, "finished": 0})


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is a group, not an array")
    return array


def _finished(group: zarr.Group) -> int:
    value = group.attrs.get("finished", 0)
    return value if isinstance(value, int) else 0


def _progress(path: Path, group: zarr.Group) -> str:
    """How far an unfinished store is, for messages."""
    return (
        f"'{path}' holds {_finished(group)} of {group.attrs['count']} trajectories; give the same "
        "para-policy trajectories command again to go on"
    )
