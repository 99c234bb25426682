"""The exported network is the policy's network, says what a user must know, or is not written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from para_policy import load_policy
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.checkpoints.onnx import export as exporting
from para_policy.checkpoints.onnx.check import TOLERANCE, Agreement
from para_policy.checkpoints.onnx.export import export_onnx
from para_policy.checkpoints.onnx.metadata import KEY, metadata
from para_policy.errors import CheckpointError, InputError
from para_policy.networks.config import TransformerConfig
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoint import FLOW, random_observations, tiny_config
from tests.checkpoints.random_weights import random_normalizers, random_weights

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "pusht_state"
SIZE = {"n_layer": 2, "n_head": 2, "n_emb": 16}
KINDS: dict[str, tuple[dict[str, Any] | None, int]] = {
    "shipped U-Net": (None, 20),
    "transformer": (SIZE, 23),
    "causal transformer": ({**SIZE, "n_cond_layers": 1, "causal_attn": True}, 18),
    "flow": ({**SIZE, "n_layer": 1}, 18),
}


def transformer(flow: bool = False, **size: Any) -> DiffusionPolicy:
    config = tiny_config(20).changed({"network": TransformerConfig(**size).model_dump()})
    if flow:
        config = config.model_copy(update={"noise_scheduler": FLOW})
    return DiffusionPolicy(config, random_weights(config), random_normalizers(config))


@dataclass(frozen=True)
class Export:
    policy: DiffusionPolicy
    path: Path
    agreement: Agreement
    opset: int

    @property
    def is_flow(self) -> bool:
        return self.policy.config.noise_scheduler == FLOW


@pytest.fixture(scope="module", params=KINDS)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    size, opset = KINDS[request.param]
    if size is None:
        policy = load_policy(SHIPPED, calibrated=False)
    else:
        policy = transformer(request.param == "flow", **size)
    path = tmp_path_factory.mktemp("exported") / "network.onnx"
    agreement = export_onnx(policy, "ab12", path, opset=opset)
    return Export(policy, path, agreement, opset)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_any_batch_gives_what_torch_gives(export: Export, rows: int) -> None:
    config, times = export.policy.config, export.policy.runtime.shapes.spaced_times(20)
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, config.horizon, config.action_dim, generator=generator)
    t = times[torch.randint(20, (rows,), generator=generator)]
    condition = torch.randn(rows, config.condition_dim, generator=generator)
    session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])
    inputs = {"x": x.numpy(), "timestep": t.numpy(), "condition": condition.numpy()}
    found = session.run(["prediction"], inputs)[0]
    expected = export.policy.network(x, t, condition).numpy()
    assert np.abs(found - expected).max() <= TOLERANCE / 10 * np.abs(expected).max()
    assert export.agreement.largest > 0.1
    assert 0 < export.agreement.difference <= TOLERANCE / 10 * export.agreement.largest


@pytest.mark.slow
def test_the_model_has_the_promised_interface(export: Export) -> None:
    config = export.policy.config
    model = onnx.load(export.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.opset)]
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    number, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    assert shapes == {
        "x": (number, ["batch", config.horizon, config.action_dim]),
        "timestep": (number if export.is_flow else whole, ["batch"]),
        "condition": (number, ["batch", config.condition_dim]),
        "prediction": (number, ["batch", config.horizon, config.action_dim]),
    }


@pytest.mark.slow
def test_the_model_avoids_what_other_runtimes_cannot_do(export: Export) -> None:
    """TensorRT lacks Mish; sines of timesteps would be wrong in half precision, and are tabulated."""
    used = {node.op_type for node in onnx.load(export.path).graph.node}
    assert not used & ({"Mish"} if export.is_flow else {"Mish", "Sin", "Cos"})


@pytest.mark.slow
def test_the_file_says_nothing_about_the_machine_that_made_it(export: Export) -> None:
    content = export.path.read_bytes()
    assert str(Path(exporting.__file__).parent.parent.parent).encode() not in content
    assert b"stack_trace" not in content


@pytest.mark.slow
def test_the_metadata_is_read_by_the_runtime(export: Export) -> None:
    session = onnxruntime.InferenceSession(export.path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map[KEY] == metadata(export.policy, "ab12")


def test_the_metadata_has_the_floats_of_the_policy() -> None:
    policy = load_policy(SHIPPED, calibrated=False)
    facts = json.loads(metadata(policy, checkpoint_hash(SHIPPED)))
    assert facts["checkpoint_sha256"] == checkpoint_hash(SHIPPED)
    assert facts["prediction_type"] == "epsilon"
    assert facts["config"]["noise_scheduler"] == policy.config.noise_scheduler
    assert facts["config"]["horizon"] == 16
    assert facts["config"]["action_names"] == list(policy.config.action_names)
    assert facts["condition"] == [[name, shape[0]] for name, shape in policy.config.inputs.items()]
    assert set(facts["normalizers"]) == {*policy.config.inputs, "action"}
    for name, pair in policy.normalizers.items():
        for part in ("scale", "offset"):
            found = torch.tensor(facts["normalizers"][name][part], dtype=torch.float32)
            assert torch.equal(found, getattr(pair, part))
    process = policy.process()
    assert facts["steps"]["timesteps"] == process.timesteps.tolist()
    assert facts["steps"]["clip"] == process.clip
    for name in ("A", "B", "R", "H", "c", "x0_from_x", "x0_from_output"):
        assert facts["steps"][name] == getattr(process, name).tolist()


def test_the_metadata_has_all_parts_of_the_condition() -> None:
    """The features of a task are among the weights, but no weights of the exported network."""
    network = TransformerConfig(**SIZE).model_dump()
    config = tiny_config(20).changed({"network": network, "task": {"text": "push", "width": 3}})
    policy = DiffusionPolicy(config, random_weights(config), random_normalizers(config))
    facts = json.loads(metadata(policy, ""))
    obs = {name: values[0].astype(np.float32) for name, values in random_observations(1).items()}
    parts = []
    for name, width in facts["condition"]:
        if name == "task":
            part = np.float32([facts["task"]] * config.n_obs_steps)
        else:
            pair = facts["normalizers"][name]
            part = obs[name] * np.float32(pair["scale"]) + np.float32(pair["offset"])
        assert part.shape[1] == width
        parts.append(part)
    condition = policy.denoiser({name: value[None] for name, value in obs.items()}).condition
    assert condition is not None
    found = np.concatenate(parts, axis=1).reshape(1, -1)
    np.testing.assert_allclose(found, condition.numpy(), rtol=1e-6, atol=1e-6)
    assert np.abs(facts["task"]).max() > 0.1
    assert json.loads(metadata(transformer(**SIZE), ""))["task"] is None


def test_metadata_is_json_where_a_schedule_is_infinite() -> None:
    schedule = {
        "_class_name": "DPMSolverMultistepScheduler",
        "num_train_timesteps": 20,
        "lambda_min_clipped": -float("inf"),
    }
    config = tiny_config().changed({"noise_scheduler": schedule, "num_inference_steps": 5})
    policy = DiffusionPolicy(config, random_weights(config), random_normalizers(config))
    facts = json.loads(metadata(policy, ""))
    assert facts["config"]["noise_scheduler"]["lambda_min_clipped"] is None
    assert len(facts["steps"]["timesteps"]) == 5


def nearly(weight: np.ndarray) -> np.ndarray:
    """Not all by the same factor, which a normalisation would take back."""
    changed = weight.copy()
    changed.flat[::2] *= np.float32(1.1)
    return changed


def broken(weight: np.ndarray) -> np.ndarray:
    return np.full_like(weight, np.nan)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [nearly, broken])
def test_a_damaged_model_is_found_and_not_written(
    export: Export,
    damage: Callable[[np.ndarray], np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged = onnx.load(export.path)
    weight = max(damaged.graph.initializer, key=lambda value: len(value.raw_data))
    changed = damage(numpy_helper.to_array(weight))
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    monkeypatch.setattr(exporting, "convert", lambda policy, opset: damaged)
    with pytest.raises(CheckpointError, match=r"differs from torch by .* Nothing was written"):
        export_onnx(export.policy, "", tmp_path / "network.onnx", opset=export.opset)
    assert not list(tmp_path.iterdir())


def test_an_opset_that_torch_cannot_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="opset is 17; expected at least 18"):
        export_onnx(transformer(**SIZE), "", tmp_path / "network.onnx", opset=17)


def test_another_opset_than_asked_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch writes an older one, and says so in its log only."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch"])
    graph = onnx.helper.make_graph([], "nothing", [value], [value])
    older = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    monkeypatch.setattr(exporting, "_translate", lambda *arguments: older)
    with pytest.raises(InputError, match=r"wrote opset \[18\] instead of 99; try another --opset"):
        export_onnx(transformer(**SIZE), "", tmp_path / "network.onnx", opset=99)
    assert not list(tmp_path.iterdir())


def test_what_torch_cannot_write_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such operator\nand 100 lines more")

    monkeypatch.setattr(exporting, "_translate", fail)
    with pytest.raises(InputError, match=r"with opset 20 \(no such operator\); try another"):
        export_onnx(transformer(**SIZE), "", tmp_path / "network.onnx", opset=20)
    assert not list(tmp_path.iterdir())


def test_a_network_beyond_the_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_LARGEST", 1000)
    with pytest.raises(InputError, match="one ONNX file holds at most 2 GiB"):
        export_onnx(transformer(**SIZE), "", tmp_path / "network.onnx", opset=20)
