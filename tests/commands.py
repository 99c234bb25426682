"""Commands of `para-policy`, called in the process of a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from para_policy.cli.main import main

Run = Callable[..., tuple[int, str, str]]
"""Arguments to the exit code and what was printed on stdout and stderr."""


def runner(capsys: pytest.CaptureFixture[str], *first: str) -> Run:
    """Calls with the arguments `first` before all others; torch has its threads again after each."""

    def call(*args: object) -> tuple[int, str, str]:
        threads = torch.get_num_threads()
        try:
            code = main([*first, *(str(arg) for arg in args)])
        finally:
            torch.set_num_threads(threads)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
