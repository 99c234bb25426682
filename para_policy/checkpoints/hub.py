"""Checkpoints on the Hugging Face Hub, through huggingface_hub (extra `hub`)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from para_policy.errors import CheckpointError
from para_policy.extras import extra

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILES = ("*.json", "*.safetensors")


def looks_like_hub_id(path: str | Path) -> bool:
    """Whether `path` is "owner/name" and no local directory."""
    return bool(_ID.fullmatch(str(path))) and not os.path.exists(path)


def snapshot(repo_id: str) -> Path:
    """Download configuration and weights of a repository, or find them in the local cache.

    Raises:
        MissingPackageError: if huggingface_hub is not installed.
        CheckpointError: if there is no such repository, or it cannot be reached.
    """
    with extra("hub", f"'{repo_id}' is no local directory; looking for it on the Hugging Face Hub"):
        from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"'{repo_id}' is no local directory, and the Hugging Face Hub does not give it: {reason}"
        ) from error
