"""Settings message `~/settings`: all that is needed to solve a recorded chunk again, as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from para_policy.calibration import Calibration
from para_policy.checkpoints.files import summarise
from para_policy.errors import DataError
from para_policy.inference import EngineConfig
from para_policy.inference.device import device_description
from para_policy.ros.messages.input_files import InputForm, InputForms
from para_policy.ros.messages.inputs import InputMapping

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.policies.chain import Chain

_ID_DIGITS = 12


class RecordedSettings(BaseModel):
    """Everything that a policy node ran with. Keys of newer versions are ignored.

    Attributes:
        id: names these settings in `~/chunk_info`.
        values: parameters of the node by name.
        inputs: which topic, or topics, fed which input.
        topics: full names of their topics, as remapped, by the namespace of each robot and the name of the
            input or part. Empty in older recordings: there they are `inputs`, within that namespace.
        checkpoint: as the node was told; `weights_sha256` is what counts.
        calibration: digest of the calibration that the sampler used; empty without one.
        consistency: digest of the PCM weights that the sampler used; empty without, None where an older
            recording does not tell.
        auto: for sampler "auto", what it stood for on that machine: a name and options.
        dt_ns: time between actions, nanoseconds; 0 where it is not known.
        torch: version.
        threads: CPU threads of torch.
        device, dtype: of the network, in words.
        engine: how the network ran, with what "auto" stood for and with all batch sizes, because
            sums are rounded in another order at another size.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(min_length=1)
    values: dict[str, Any]
    inputs: dict[str, InputForm] = Field(min_length=1)
    topics: dict[str, dict[str, str]] = Field(default_factory=dict)
    checkpoint: str
    weights_sha256: str
    calibration: str = ""
    consistency: str | None = None
    auto: dict[str, Any] = Field(default_factory=dict)
    dt_ns: int = Field(ge=0)
    torch: str
    threads: int = Field(ge=1)
    device: str
    dtype: str
    engine: EngineConfig = EngineConfig()


def settings_text(
    policy: DiffusionPolicy,
    values: Mapping[str, Any],
    inputs: InputForms,
    weights_sha256: str,
    *,
    topics: Mapping[str, Mapping[str, str]],
    dt_ns: int,
    deadline_s: float | None,
    options: Mapping[str, Any],
) -> str:
    """The content of `~/settings`.

    Args:
        values: of all parameters of the node, by name.
        weights_sha256: of the file that the weights came from.
        topics: as `RecordedSettings.topics`.
        dt_ns: time between actions.
        deadline_s: when solves are cut off; None where they are waited for.
        options: that the sampler is given.
    Raises:
        ParaPolicyError: when a parameter does not go together with the policy.
    """
    chain = policy.chain(values["scheduler"] or None, values["steps"] or None)
    calibration, sampler = chain.calibration, values["sampler"]
    content = {
        "values": {name: _plain(value) for name, value in values.items()},
        "inputs": {
            name: _dumped(form) if isinstance(form, InputMapping) else list(map(_dumped, form))
            for name, form in inputs.items()
        },
        "topics": {robot: dict(of_inputs) for robot, of_inputs in topics.items()},
        "checkpoint": str(values["checkpoint"]),
        "weights_sha256": weights_sha256,
        "calibration": "" if calibration is None else calibration_digest(calibration),
        "consistency": consistency_digest(chain, sampler, options),
        "auto": _auto(chain, sampler, deadline_s, options),
        "dt_ns": dt_ns,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device_description(policy.device),
        "engine": dataclasses.asdict(policy.runtime.in_use),
        "dtype": str(next(policy.network.parameters()).dtype).removeprefix("torch."),
    }
    rest = json.dumps(content, sort_keys=True)
    name = hashlib.sha256(rest.encode()).hexdigest()[:_ID_DIGITS]
    return json.dumps({"id": name, **content}, sort_keys=True)


def read_settings(text: str) -> RecordedSettings:
    """The inverse of `settings_text`.

    Raises:
        DataError: when the text is no settings message; names the wrong keys.
    """
    try:
        content = json.loads(text)
        _drop_unknown_keys(content)
        return RecordedSettings.model_validate(content)
    except ValidationError as error:
        raise DataError(f"settings message: {summarise(error, 'message')}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"settings message is not valid JSON: {error}") from error


def calibration_digest(calibration: Calibration) -> str:
    """A name for what was measured, so that measuring anew is noticed."""
    digest = hashlib.sha256(repr((calibration.tolerance, calibration.variants)).encode())
    matrices = calibration.matrices
    tensors = [matrices] if isinstance(matrices, torch.Tensor) else list(matrices)
    nodes = calibration.nodes
    if nodes is not None:
        tensors += [nodes.order, nodes.error, nodes.sensitivity]
    for tensor in (*tensors, calibration.guess.weight, calibration.guess.bias):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:_ID_DIGITS]


def consistency_digest(chain: Chain, sampler: str, options: Mapping[str, Any]) -> str:
    """A name for the PCM weights that a sampler takes with these options; empty where it takes none."""
    model = chain.trained(options) if sampler == "pcm" else None
    return "" if model is None else model.sha256[:_ID_DIGITS]


def _auto(
    chain: Chain, sampler: str, deadline_s: float | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The choice of "auto" hangs on measured latencies, which another machine does not have."""
    if sampler != "auto":
        return {}
    name, chosen = chain.choose("auto", deadline_s, options.get("tolerance"))
    return {"sampler": name, "options": dict(chosen)}


def _drop_unknown_keys(content: Any) -> None:
    """Mappings of inputs refuse unknown keys in files that people write; here they are newer ones."""
    inputs = content.get("inputs") if isinstance(content, dict) else None
    for form in inputs.values() if isinstance(inputs, dict) else ():
        for mapping in form if isinstance(form, list) else [form]:
            if isinstance(mapping, dict):
                for key in set(mapping) - set(InputMapping.model_fields):
                    del mapping[key]


def _dumped(mapping: InputMapping) -> dict[str, Any]:
    return mapping.model_dump(mode="json", exclude_unset=True)


def _plain(value: Any) -> Any:
    """Parameters of ROS as JSON: arrays become lists."""
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value
