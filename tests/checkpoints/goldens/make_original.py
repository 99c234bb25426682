"""Makes the goldens `original_*` with the code of the original diffusion_policy project.

Run with checkouts of real-stanford/diffusion_policy (commit 5ba07ac) and of robomimic 0.2.0 (commit
62ed2de), the version that it asks for, and with omegaconf 2.2.3 and dill 0.3.5.1, likewise;
otherwise with hydra 1.3.2, torch 2.13.0, torchvision 0.28.0 and diffusers 0.42.1:

    PYTHONPATH=.:diffusion_policy:robomimic python -m tests.checkpoints.goldens.make_original

Configurations are those of the project with small networks, built by hydra as its train.py does,
and saved by its own workspace. Weights follow `tests.networks.goldens.recipe`. Of the large
checkpoints everything is kept but the weights, which `tests.checkpoints.original_goldens` puts back.
"""

from __future__ import annotations

import copy
import importlib
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock
from zipfile import ZIP_DEFLATED, ZipFile

import torch
from safetensors.torch import save_file
from torch import Tensor

from para_policy.checkpoints.original.unpickle import read_pickle
from tests.checkpoints.goldens.original_cases import CASES, SCHEDULE
from tests.checkpoints.original_goldens import is_weight, observations
from tests.networks.goldens.recipe import fill

HERE = Path(__file__).parent
BATCH = 2
LIVE_SEED, EMA_SEED = 1, 2


def workspace(cfg: Any, folder: str) -> Any:
    """What the project's workspaces put into a checkpoint."""
    import hydra
    from diffusion_policy.common.normalize_util import get_image_range_normalizer
    from diffusion_policy.model.common.normalizer import LinearNormalizer
    from diffusion_policy.workspace.base_workspace import BaseWorkspace

    filled = BaseWorkspace(cfg, output_dir=folder)
    filled.include_keys = ("global_step", "epoch")
    filled.global_step, filled.epoch = 7, 1
    filled.model = hydra.utils.instantiate(cfg.policy)
    fill_weights(filled.model, LIVE_SEED)
    normalizer = LinearNormalizer()
    normalizer.fit(ranges(cfg.policy))
    for name, entry in cfg.policy.get("shape_meta", {"obs": {}})["obs"].items():
        if entry.get("type") == "rgb":
            normalizer[name] = get_image_range_normalizer()
    filled.model.set_normalizer(normalizer)
    if cfg.training.use_ema:
        filled.ema_model = copy.deepcopy(filled.model)
        fill_weights(filled.ema_model, EMA_SEED)
    filled.optimizer = torch.optim.AdamW(filled.model.parameters(), lr=1e-4)
    return filled


def fill_weights(policy: torch.nn.Module, seed: int) -> None:
    fill({name: value for name, value in policy.state_dict().items() if is_weight(name)}, seed)


def ranges(policy: Any) -> dict[str, Tensor]:
    """Data in the range of each vector, (n, D), for the project's own fit."""
    generator = torch.Generator().manual_seed(3)
    if "shape_meta" in policy:
        shapes = {
            name: entry.shape
            for name, entry in policy.shape_meta.obs.items()
            if entry.get("type") != "rgb"
        } | {"action": policy.shape_meta.action.shape}
    else:
        shapes = {"obs": [policy.obs_dim], "action": [policy.action_dim]}
    return {
        name: 4 * torch.rand((50, *shape), generator=generator) for name, shape in shapes.items()
    }


def make(name: str, config_name: str, overrides: list[str]) -> None:
    import diffusion_policy
    import hydra
    from omegaconf import OmegaConf

    configs = Path(diffusion_policy.__path__[0]) / "config"
    with hydra.initialize_config_dir(str(configs), version_base=None):
        cfg = hydra.compose(config_name, [*SCHEDULE, *overrides])
    OmegaConf.resolve(cfg)
    with tempfile.TemporaryDirectory() as folder:
        filled = workspace(cfg, folder)
        path = Path(folder) / "latest.ckpt"
        # Both ways leave their own types in the file.
        filled.save_checkpoint(path, use_thread=name == "unet")
        if filled._saving_thread is not None:
            filled._saving_thread.join()
        if "shape_meta" in cfg.policy:
            without_weights(path, HERE / f"original_{name}.ckpt.zip")
        else:
            (HERE / f"original_{name}.ckpt").write_bytes(path.read_bytes())
    policy = filled.ema_model if cfg.training.use_ema else filled.model
    tensors = run(policy.eval(), shapes_of(cfg.policy))
    tensors = {key: value.clone().contiguous() for key, value in tensors.items()}
    save_file(tensors, HERE / f"original_{name}.safetensors", metadata=metadata(overrides))


def shapes_of(policy: Any) -> dict[str, tuple[int, ...]]:
    if "shape_meta" not in policy:
        return {"obs": (policy.n_obs_steps, policy.obs_dim)}
    obs = policy.shape_meta.obs.items()
    return {name: (policy.n_obs_steps, *entry.shape) for name, entry in obs}


@torch.no_grad()
def run(policy: torch.nn.Module, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Predict once and record what the network and the scheduler saw."""
    calls: list[tuple[Any, ...]] = []
    noise: list[Tensor] = []
    randn = torch.randn

    def recorded_randn(*args: Any, **options: Any) -> Tensor:
        noise.append(randn(*args, **options))
        return noise[-1].clone()

    def record(_: Any, args: tuple[Any, ...], options: dict[str, Any], output: Tensor) -> None:
        condition = args[2] if len(args) > 2 else options["global_cond"]
        calls.append((args[0].clone(), args[1], condition.flatten(1), output))

    policy.model.register_forward_hook(record, with_kwargs=True)
    torch.manual_seed(4)
    with mock.patch("torch.randn", recorded_randn):
        result = policy.predict_action(
            {name: torch.from_numpy(value) for name, value in observations(BATCH, shapes).items()}
        )
    x, t, condition, output = calls[0]
    initial, *steps = noise
    missing = [torch.zeros_like(initial)] * (len(calls) - len(steps))
    return {
        "condition": condition,
        "x": x,
        "t": t.expand(BATCH),
        "output": output,
        "initial": initial,
        "steps": torch.stack([*steps, *missing], dim=1),
        "action": result["action"],
        "action_pred": result["action_pred"],
    }


def without_weights(source: Path, target: Path) -> None:
    """Copy a checkpoint, compressed, but for the records of its weights."""
    states = read_pickle(source)["state_dicts"]
    weights = {
        f"data/{tensor.storage.key}"
        for kind in ("model", "ema_model")
        for name, tensor in states[kind].items()
        if is_weight(name)
    }
    with ZipFile(source) as old, ZipFile(target, "w", ZIP_DEFLATED) as new:
        for record in old.namelist():
            if record.partition("/")[2] not in weights:
                new.writestr(record, old.read(record))


def metadata(overrides: list[str]) -> dict[str, str]:
    packages = ("torch", "torchvision", "diffusers", "omegaconf", "dill", "hydra")
    versions = {name: importlib.import_module(name).__version__ for name in packages}
    return {"versions": json.dumps(versions), "overrides": json.dumps(overrides)}


if __name__ == "__main__":
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("eval", eval, replace=True)
    OmegaConf.register_new_resolver("now", lambda form: "now", replace=True)
    for case, arguments in CASES.items():
        make(case, *arguments)
