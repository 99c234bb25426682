"""Calibrations beside a checkpoint: `calibration/<scheduler>_<steps>.safetensors`.

Each file is bound to the weights, the noise schedule, the step table and the task that it was measured with.
Beside them lies how long network calls take, bound to the device, the engine and the shapes of the network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from para_policy.calibration import Calibration, LinearGuess, Variant
from para_policy.checkpoints.files import read_json, read_tensors, summarise, write_tensors
from para_policy.diffusion.schedule_config import same_schedule
from para_policy.errors import CheckpointError, InputError
from para_policy.files import check_output_folder, write_text
from para_policy.inference import Size
from para_policy.samplers import Nodes
from para_policy.samplers.deadline import LatencyTable

FOLDER = "calibration"
FORMAT_VERSION = 1
LATENCY_FILE = "latency.json"
ENGINE_FILE = "engine.json"

_AGAIN = "run para-policy calibrate again"
_OR_DELETE = f"{_AGAIN}, or delete the file"
_FACTORS = ("left", "right")
_NODES = ("order", "error", "sensitivity", "defect")
_VARIANTS = TypeAdapter(tuple[Variant, ...])
_FINGERPRINT = TypeAdapter(tuple[float, ...])
_TABLES = TypeAdapter(dict[str, LatencyTable])
_SIZES = TypeAdapter(dict[str, tuple[Size, ...]])
_T = TypeVar("_T")


def file_of(directory: str | Path, scheduler: str, steps: int) -> Path:
    """Where the calibration of one process of a checkpoint lies."""
    return Path(directory) / FOLDER / f"{scheduler}_{steps}.safetensors"


def save_calibration(
    directory: str | Path,
    calibration: Calibration,
    weights_sha256: str,
    noise_scheduler: Mapping[str, Any],
    task: str | None = None,
) -> Path:
    """Write a calibration beside the weights, and for the task, that it belongs to; return its path."""
    path = file_of(directory, calibration.scheduler, calibration.steps)
    bound_to = {"weights_sha256": weights_sha256, "noise_scheduler": dict(noise_scheduler)}
    write_calibration(path, calibration, bound_to | ({} if task is None else {"task": task}))
    return path


def write_calibration(path: Path, calibration: Calibration, bound_to: Mapping[str, Any]) -> None:
    """Write one file; `bound_to`: facts of what it belongs to, as JSON."""
    check_output_folder(path.parent)
    facts = {
        "format_version": FORMAT_VERSION,
        **bound_to,
        "scheduler": calibration.scheduler,
        "steps": calibration.steps,
        "tolerance": calibration.tolerance,
        "cases": calibration.cases,
        "variants": _VARIANTS.dump_python(calibration.variants, mode="json"),
        "fingerprint": list(calibration.fingerprint),
    }
    matrices = calibration.matrices
    factors = isinstance(matrices, tuple)
    tensors = {
        **(dict(zip(_FACTORS, matrices, strict=True)) if factors else {"matrices": matrices}),
        "guess.weight": calibration.guess.weight,
        "guess.bias": calibration.guess.bias,
    }
    tensors = {name: value.float().contiguous() for name, value in tensors.items()}
    if calibration.nodes is not None:
        parts = {part: getattr(calibration.nodes, part) for part in _NODES}
        tensors |= {f"nodes.{part}": value for part, value in parts.items() if value is not None}
    write_tensors(path, tensors, {"calibration": json.dumps(facts)})


def read_calibrations(
    directory: str | Path,
    measured: Callable[[str], bool],
    noise_scheduler: Mapping[str, Any],
    condition_dim: int,
    sample_dim: int,
    task: str | None = None,
) -> dict[tuple[str, int], Calibration]:
    """Read all calibrations of a checkpoint, by scheduler and step count.

    Args:
        measured: whether what is bound to this hash was measured with the weights.
        noise_scheduler: configuration of the checkpoint's own, whether defaults are left out or not.
        condition_dim, sample_dim: numbers in a condition, and in a sample.
        task: text that the policy is told; None: of no task, or of one that is not known here.

    Raises:
        CheckpointError: for a file that is broken, or was made for other weights, another noise
            schedule, another task or other shapes; its chord matrices would only waste rounds, and its error
            bounds would be wrong. And for one under another name, such as a copy: which of two holds?
    """
    found = {}
    for path in sorted((Path(directory) / FOLDER).glob("*.safetensors")):
        calibration, facts = read_calibration(path)
        weights, schedule = facts["weights_sha256"], facts["noise_scheduler"]
        if not measured(weights):
            raise CheckpointError(
                f"'{path}' was measured with other weights ({weights}); {_OR_DELETE}"
            )
        if not same_schedule(schedule, noise_scheduler):
            raise CheckpointError(
                f"'{path}' was measured with other noise_scheduler ({schedule}, here "
                f"{dict(noise_scheduler)}); {_OR_DELETE}"
            )
        measured_task = facts.get("task", task)
        if task is not None and measured_task != task:
            raise CheckpointError(
                f"'{path}' was measured for the task {measured_task!r}; the policy is told {task!r}; "
                f"{_OR_DELETE}"
            )
        shapes = {
            **_linear_part(calibration, sample_dim),
            "guess.weight": (calibration.guess.weight, (condition_dim, sample_dim)),
            "guess.bias": (calibration.guess.bias, (sample_dim,)),
        }
        if calibration.nodes is not None:
            shapes["nodes.order"] = (calibration.nodes.order, (calibration.steps,))
        for name, (tensor, expected_shape) in shapes.items():
            if tensor.shape != expected_shape:
                raise CheckpointError(
                    f"'{path}': {name} is {tuple(tensor.shape)}; this policy needs {expected_shape}; "
                    "run para-policy calibrate again"
                )
        named = file_of(directory, calibration.scheduler, calibration.steps)
        if path != named:
            raise CheckpointError(
                f"'{path}' is a calibration for {calibration.scheduler} with {calibration.steps} steps, "
                f"which is looked for in '{named.name}': rename the file, or move it elsewhere"
            )
        found[calibration.scheduler, calibration.steps] = calibration
    return found


def _linear_part(calibration: Calibration, d: int) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    """Tensors of the linear part, and the shapes that they should have."""
    N, matrices = calibration.steps, calibration.matrices
    if not isinstance(matrices, tuple):
        return {"matrices": (matrices, (N, d, d))}
    rank = matrices[0].shape[-1] if matrices[0].ndim else 0
    return {
        "left": (matrices[0], (N, d, rank)),
        "right": (matrices[1], (N, rank, d)),
    }


def _nodes(tensors: Mapping[str, Tensor]) -> Nodes | None:
    """None for files of earlier releases."""
    names = {part: f"nodes.{part}" for part in _NODES}
    parts = {part: tensors[name] for part, name in names.items() if name in tensors}
    return Nodes(**parts) if "order" in parts else None


def read_calibration(path: Path) -> tuple[Calibration, dict[str, Any]]:
    """Read one file, with all its facts.

    Raises:
        CheckpointError: if it is broken, or lacks `weights_sha256` or `noise_scheduler`.
    """
    tensors = read_tensors(path)
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["calibration"])
        version = facts["format_version"]
        matrices = (
            tensors["matrices"] if "matrices" in tensors else (tensors["left"], tensors["right"])
        )
        calibration = Calibration(
            scheduler=facts["scheduler"],
            steps=int(facts["steps"]),
            tolerance=float(facts["tolerance"]),
            cases=int(facts["cases"]),
            matrices=matrices,
            guess=LinearGuess(tensors["guess.weight"], tensors["guess.bias"]),
            variants=_VARIANTS.validate_python(facts["variants"]),
            nodes=_nodes(tensors),
            # Files of earlier releases have none: the noise schedule alone tells what they are for.
            fingerprint=_FINGERPRINT.validate_python(facts.get("fingerprint", ())),
        )
        if not (
            isinstance(facts["weights_sha256"], str) and isinstance(facts["noise_scheduler"], dict)
        ):
            raise TypeError("weights_sha256 is no text, or noise_scheduler no object")
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {summarise(error)}") from error
    except (KeyError, TypeError, ValueError, AttributeError, InputError, SafetensorError) as error:
        raise CheckpointError(
            f"'{path}' is no calibration ({type(error).__name__}: {error}); "
            "run para-policy calibrate again"
        ) from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"'{path}' has format_version {version!r}, this release reads {FORMAT_VERSION}; "
            "run para-policy calibrate again"
        )
    if "sequential" not in {v.sampler for v in calibration.variants} or not all(
        v.rounds >= 1 for v in calibration.variants
    ):
        raise CheckpointError(
            f"'{path}': variants do not say what sequential and the other samplers took; "
            "run para-policy calibrate again"
        )
    return calibration, facts


def save_latency(directory: str | Path, key: str, table: LatencyTable) -> Path:
    """Add or replace a table in `calibration/latency.json`; `key`: `Runtime.table_key`."""
    return _save_entry(Path(directory) / FOLDER / LATENCY_FILE, _TABLES, key, table)


def read_latencies(directory: str | Path) -> dict[str, LatencyTable]:
    """Latency tables by `Runtime.table_key`; empty if none was measured.

    Raises:
        CheckpointError: if the file is broken.
    """
    return _read_entries(Path(directory) / FOLDER / LATENCY_FILE, _TABLES)


def save_sizes(directory: str | Path, key: str, sizes: tuple[Size, ...]) -> Path:
    """Add or replace batch sizes in `calibration/engine.json`; `key`: `Runtime.table_key`."""
    return _save_entry(Path(directory) / FOLDER / ENGINE_FILE, _SIZES, key, sizes)


def read_sizes(directory: str | Path) -> dict[str, tuple[Size, ...]]:
    """Batch sizes by `Runtime.table_key`; empty if none were measured.

    Raises:
        CheckpointError: if the file is broken.
    """
    return _read_entries(Path(directory) / FOLDER / ENGINE_FILE, _SIZES)


def _save_entry(path: Path, kind: TypeAdapter[dict[str, _T]], key: str, entry: _T) -> Path:
    check_output_folder(path.parent)
    try:
        entries = {**_read_entries(path, kind), key: entry}
    except CheckpointError:  # broken: this is the remedy
        entries = {key: entry}
    write_text(path, json.dumps(kind.dump_python(entries, mode="json"), indent=2) + "\n")
    return path


def _read_entries(path: Path, kind: TypeAdapter[dict[str, _T]]) -> dict[str, _T]:
    if not path.is_file():
        return {}
    try:
        return kind.validate_python(read_json(path))
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {summarise(error)}; {_AGAIN}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_AGAIN}") from error
