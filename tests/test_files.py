"""Whatever goes wrong while a file is written, what was there stays, and nothing else is left."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from para_policy.checkpoints.calibration import save_latency
from para_policy.checkpoints.files import write_tensors
from para_policy.checkpoints.observations import save_observations
from para_policy.errors import InputError
from para_policy.files import (
    append_text,
    check_output_file,
    check_output_folder,
    make_folder,
    replace,
    write_text,
)
from para_policy.lock import sole_writer
from para_policy.samplers.deadline import LatencyTable
from tests.checkpoint import save_tiny_checkpoint
from tests.full_disk import full_disk

Write = Callable[[Path], object]

WRITERS: dict[str, Write] = {
    "text": lambda path: write_text(path, "x" * 10_000),
    "tensors": lambda path: write_tensors(path, {"a": torch.zeros(10_000)}),
    "more text": lambda path: append_text(path, "x" * 10_000),
}
WHOLE = [WRITERS["text"], WRITERS["tensors"]]


@pytest.mark.parametrize("write", WHOLE)
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o277])
def test_files_have_the_permissions_that_the_umask_gives(
    tmp_path: Path, write: Write, umask: int
) -> None:
    path, before = tmp_path / "file", os.umask(umask)
    try:
        write(path)
        write_text(tmp_path / "again", "")
        (tmp_path / "again").chmod(0o640)
        write(tmp_path / "again")
    finally:
        os.umask(before)
    for written in (path, tmp_path / "again"):
        assert stat.S_IMODE(written.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("write", WRITERS.values())
@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_stays_and_its_target_is_written(
    tmp_path: Path, write: Write, there: bool
) -> None:
    target, link, second = tmp_path / "real" / "file", tmp_path / "link", tmp_path / "second"
    target.parent.mkdir()
    if there:
        target.write_text("")
    link.symlink_to(Path("real", "file"))
    second.symlink_to(link)
    check_output_file(second)
    write(second)
    assert link.is_symlink()
    assert second.is_symlink()
    assert target.stat().st_size > 1000
    assert sorted(tmp_path.iterdir()) == [link, target.parent, second]


@contextmanager
def made(kind: str, folder: Path) -> Iterator[Path]:
    """Something that must not be written over."""
    path = folder / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "file as folder":
        path.write_text("kept")
        path = path / "file"
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            yield path
        return
    else:
        path.symlink_to("/dev/null")
    yield path


OTHERS = {
    "folder": "is a folder",
    "pipe": "device or pipe",
    "socket": "device or pipe",
    "device": "device or pipe",
    "loop": "Too many levels of symbolic links",
    "file as folder": "Not a directory",
}


@pytest.mark.parametrize("write", [*WRITERS.values(), check_output_file])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_file_is_never_written_over(tmp_path: Path, write: Write, kind: str) -> None:
    with made(kind, tmp_path) as path:
        before = [(file, file.lstat().st_mode) for file in tmp_path.iterdir()]
        with pytest.raises(InputError, match=OTHERS[kind]) as refusal:
            write(path)
        assert str(path) in str(refusal.value)
        assert [(file, file.lstat().st_mode) for file in tmp_path.iterdir()] == before
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_gets_no_lock_beside_it(tmp_path: Path, kind: str) -> None:
    with made(kind, tmp_path) as path:
        before = list(tmp_path.iterdir())
        with pytest.raises(InputError, match="device or pipe"), sole_writer(path):
            pass
        assert list(tmp_path.iterdir()) == before


def test_where_the_program_prints_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    code = f"from para_policy.files import write_text; print(1); write_text({str(path)!r}, '2')"
    with path.open("w") as stdout:
        command = [sys.executable, "-c", code]
        found = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert b"receives what this program prints" in found.stderr
    assert path.read_text() == "1\n"


@pytest.mark.parametrize("write", WHOLE)
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with full_disk(), pytest.raises(InputError, match=r"cannot write .*file.*File too large"):
        write(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_where_text_is_added(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(InputError, match="File too large"):
        WRITERS["more text"](tmp_path / "lines")


@pytest.mark.parametrize("write", WRITERS.values())
@pytest.mark.parametrize("place", ["/proc/file", "/sys/file", "gone/file"])
def test_folders_that_take_no_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"cannot write '{place}'"):
        write(Path(place))
    assert not list(tmp_path.iterdir())


def test_a_disk_may_vanish_while_it_is_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with pytest.raises(InputError, match="No such file or directory"):
        replace(folder / "file", lambda path: shutil.rmtree(folder))
    assert not folder.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ValueError])
def test_an_interruption_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(error):
        replace(path, write)
    assert path.read_text() == "before"

    def fill(folder: Path) -> None:
        folder.mkdir()
        write(folder / "file")

    with pytest.raises(error):
        make_folder(tmp_path / "folder", fill)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        folder.mkdir()
        assert not path.exists()
        (folder / "file").write_text("whole")

    path = tmp_path / "deep" / "folder"
    make_folder(path, fill)
    assert (path / "file").read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_takes_no_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, message in (
        (tmp_path / "file", "is no folder"),
        (Path("/dev/null"), "is no folder"),
        (tmp_path / "file" / "folder", "cannot write"),
        (Path("/proc/folder"), "cannot write"),
    ):
        with pytest.raises(InputError, match=message):
            check_output_folder(folder)
    check_output_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()


SAVES: dict[str, Write] = {
    "checkpoint": save_tiny_checkpoint,
    "observations": lambda folder: save_observations(folder, {"state": np.zeros((9, 2, 9))}),
    "latencies": lambda folder: save_latency(
        folder, "cpu, eager", LatencyTable(tuple(range(1, 99)), (1e-3,) * 98)
    ),
}


@pytest.mark.parametrize("save", SAVES.values())
def test_no_part_of_a_checkpoint_is_left_half_written(tmp_path: Path, save: Write) -> None:
    with full_disk(), pytest.raises(InputError, match="File too large"):
        save(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
