"""Accelerators of training runs: which device they use, and the TensorBoard log that they write."""

from __future__ import annotations

from pathlib import Path

import torch

from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.inference.device import check_device

with extra("train", "training"):
    from accelerate import Accelerator

TENSORBOARD = "tensorboard"
"""Folder of the log in the output of a run."""


def check_options(device: str | None, tensorboard: bool) -> None:
    """Say what is wrong or missing before the long work.

    Raises:
        InputError: if the device cannot be used.
        MissingPackageError: if TensorBoard is to be written and is not installed.
    """
    if device is not None:
        check_device(device)
    if tensorboard:
        with extra("tensorboard", "--tensorboard"):
            import tensorboard as _  # noqa: F401  accelerate leaves out a logger that it misses


def make_accelerator(
    precision: str, device: str | None = None, log: Path | None = None
) -> Accelerator:
    """Make the accelerator of a run.

    Args:
        precision: as `RunConfig.precision`.
        device: the one to train on, such as "cpu" or "cuda:1"; None for every one that accelerate
            finds: the first GPU, all under `accelerate launch`, or the CPU, on as many processes as
            `torchrun` has started.
        log: output of the run, which receives the folder `TENSORBOARD`; None for no log.

    Raises:
        InputError: if accelerate has chosen another device already; and as `check_options`.
    """
    check_options(device, log is not None)
    wanted = None if device is None else torch.device(device)
    if wanted is not None and wanted.type == "cuda" and wanted.index is not None:
        torch.cuda.set_device(wanted)  # accelerate knows "the GPU" only, which is the current one
    made = Accelerator(
        # Processes that find no other device ignore each other unless they are told of the CPU.
        cpu=_has_no_other_device() if wanted is None else wanted.type == "cpu",
        mixed_precision=precision,
        log_with=None if log is None else TENSORBOARD,
        project_dir=None if log is None else str(log),
    )
    if wanted is not None and (made.device.type != wanted.type or made.num_processes > 1):
        raise InputError(
            f"device is {device!r}, but accelerate trains on {made.num_processes} x {made.device}; "
            "leave --device out under `accelerate launch`, or start one process"
        )
    return made


def _has_no_other_device() -> bool:
    known = getattr(torch, "accelerator", torch.cuda)  # torch < 2.6 has the latter only
    return not known.is_available()


def begin_log(accelerator: Accelerator, finished: int) -> None:
    """Start the log, if there is to be one; records after step `finished` are taken back."""
    accelerator.init_trackers(TENSORBOARD, init_kwargs={TENSORBOARD: {"purge_step": finished + 1}})
