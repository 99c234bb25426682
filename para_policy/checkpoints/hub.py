"""Repositories of the Hugging Face Hub, through huggingface_hub (extra `hub`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from para_policy.errors import CheckpointError, DataError
from para_policy.extras import extra

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_ERRORS = {"model": CheckpointError, "dataset": DataError}

CHECKPOINT_FILES = ("*.json", "*.safetensors")


def looks_like_hub_id(path: str | Path) -> bool:
    """Whether `path` is "owner/name" and nothing of that name is here."""
    return bool(_ID.fullmatch(str(path))) and not os.path.exists(path)


def snapshot(
    repo_id: str,
    files: Iterable[str] = CHECKPOINT_FILES,
    *,
    kind: Literal["model", "dataset"] = "model",
    revision: str | None = None,
) -> Path:
    """Folder of a repository, with the `files` in it downloaded unless the local cache has them.

    Args:
        files: names and patterns, as of the shell.
        revision: branch, tag or commit; None for the main branch.

    Raises:
        MissingPackageError: if huggingface_hub is not installed.
        CheckpointError: if there is no such repository, or it cannot be reached; of a data set, a
            DataError.
    """
    with extra("hub", f"'{repo_id}' is no local directory; looking for it on the Hugging Face Hub"):
        from huggingface_hub import snapshot_download
    try:
        found = snapshot_download(
            repo_id, repo_type=kind, revision=revision, allow_patterns=list(files)
        )
    except Exception as error:  # of whichever library huggingface_hub reaches the network with
        reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        raise _ERRORS[kind](
            f"'{repo_id}' is no local directory, and the Hugging Face Hub does not give it: {reason}; "
            f"for a directory give its path from '{os.getcwd()}', or a whole one"
        ) from error
    return Path(found)
