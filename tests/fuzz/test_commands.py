"""Any call of any command ends as documented: with a code, and with one line where it is refused.

What takes long once the arguments are accepted is left out here; the tests of each command run it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch
import tyro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from para_policy.cli.main import COMMANDS, find_command, main
from para_policy.errors import InputError
from tests.checkpoint import save_tiny_checkpoint
from tests.fuzz.policies import KINDS, save_policy

GOLDENS = Path(__file__).parents[1] / "checkpoints" / "goldens"
CONFIG = Path(__file__).parents[2] / "config" / "training" / "pusht_state.yaml"

NUMBERS = ("-1", "0", "1", "2", "1.5", "1e3", "nan", "inf", "-inf", "1e999", "9" * 25, "9" * 5000)
WORDS = (
    "",
    " ",
    "x",
    "none",
    "true",
    "a" * 300,
    "-",
    "--",
    "[red]",
    "{}",
    "%s",
    "\udcff",
    "é",
    "0x1",
)
DEVICES = ("cpu", "cpu:7", "cuda", "cuda:99", "meta", "hpu", "cuda:-1", "cpu:cpu")
SAMPLERS = (
    *("sequential", "x0", "chord", "pcm", "auto", "asd", "collocation", "draft", "x0+guess"),
    *(
        "x0:tolerance=nan",
        "x0:window=0",
        "x0:window=",
        "x0:history=99999",
        "x0:tolerance=" + "9" * 400,
    ),
    *(
        "chord:rank=9",
        "auto:x=1",
        ":",
        "::",
        "a:b:c=",
        "x0,,",
        ",",
        "x0,x0",
        "json:dumps",
        "os:getcwd",
    ),
    *(
        "..:x",
        "builtins:print",
        "x0+perturbed",
        "x0+perturbednan",
        "x0+noise",
        "tests.checkpoint:no",
    ),
)
PATHS = (
    *("missing", "file", "file/x", "empty", *KINDS, "lerobot", "cut", "words", "list"),
    *("loop", "loop/x", "."),
    *(
        "original.ckpt",
        "config.yaml",
        "words.yaml",
        "zip.ckpt",
        "data.zarr",
        "a/b",
        "a" * 300,
        "..",
    ),
)
VALUES = (*NUMBERS, *WORDS, *DEVICES, *SAMPLERS, *PATHS, "ddpm", "ddim", "dpmsolver++", "openvino")

# By the names of options: what is accepted, so that a call gets to its other arguments.
GOOD = {
    "action_names": ("x",),
    "bag": ("empty",),
    "checkpoint": KINDS,
    "config": (str(CONFIG),),
    "data": ("data.zarr",),
    "json": ("out/out.json",),
    "output": ("out/new",),
    "samplers": ("sequential,x0",),
    "source": KINDS,
}


class AcceptedError(InputError):
    """The arguments are accepted; here the long work would begin."""


def accepted(*_: Any, **__: Any) -> Any:
    raise AcceptedError("accepted")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with checkpoints and other things that may be taken for one."""
    home = tmp_path_factory.mktemp("fuzz") / "deep" / "home"
    home.mkdir(parents=True)
    for kind in KINDS:
        save_policy(kind, home)
    for name, damage in (
        ("cut", lambda text: text[: len(text) // 2]),
        ("words", lambda text: "not json"),
        ("list", lambda text: "[1, 2]"),
    ):
        (save_tiny_checkpoint(home / name, 4) / "config.json").write_text(
            damage((home / "tiny" / "config.json").read_text())
        )
    (home / "empty").mkdir()
    (home / "file").write_bytes(b"\xff\x00")
    (home / "words.yaml").write_text("words: [")
    (home / "config.yaml").write_text(CONFIG.read_text())
    (home / "zip.ckpt").write_bytes(b"PK\x03\x04" + bytes(50))
    (home / "original.ckpt").write_bytes((GOLDENS / "original_unet.ckpt").read_bytes())
    (home / "data.zarr").mkdir()
    (home / "loop").symlink_to("loop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("sim.evaluation.run._play_all", accepted)
        patch.setattr("para_policy.calibration.measure.calibrate", accepted)
        patch.setattr("para_policy.checkpoints.onnx.export.export_onnx", accepted)
        patch.setattr("para_policy.comparison.make_report", accepted)
        patch.setattr("para_policy.policies.policy.DiffusionPolicy.warm_up", lambda self: None)
        with contextlib.suppress(ImportError):
            patch.setattr("para_policy.lerobot_server.serve.serve", accepted)
        with contextlib.suppress(ImportError):
            from para_policy.ros.doctor import examine

            patch.setattr("para_policy.ros.bags.recorder.record", accepted)
            offline = [s for s in examine.SECTIONS if s.name not in ("DDS", "running graph")]
            patch.setattr(examine, "SECTIONS", offline)
            patch.setattr("para_policy.ros.doctor.policy.measure", accepted)
        threads = torch.get_num_threads()
        yield home
        torch.set_num_threads(threads)


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a command, as its dataclass declares it."""

    name: str
    positional: bool
    required: bool
    flag: bool

    def words(self, value: str) -> list[str]:
        if self.positional:
            return [value]
        option = f"--{self.name.replace('_', '-')}"
        return [option] if self.flag else [option, value]


def options(command: str) -> list[Option]:
    kind: Any = find_command(command)
    hints = get_type_hints(kind, include_extras=True)
    return [
        Option(
            field.name,
            positional=get_origin(hints[field.name]) is Annotated
            and tyro.conf.Positional in get_args(hints[field.name]),
            required=field.name == "checkpoint"
            or field.default is field.default_factory is dataclasses.MISSING,
            flag=hints[field.name] is bool,
        )
        for field in dataclasses.fields(kind)
        if field.name != "checkpoint_option"  # the same by name
    ]


# A good call of lerobot-server serves until a signal comes; tests/lerobot_server has its bad calls.
OPTIONS = {name: options(name) for name in COMMANDS if name != "lerobot-server"}


@st.composite
def calls(draw: Callable[..., Any]) -> list[str]:
    """Arguments of a command: mostly good ones, and some that are anything."""
    name = draw(st.sampled_from(list(OPTIONS)))
    words: list[str] = []
    for option in OPTIONS[name]:
        if not option.required and draw(st.integers(0, 3)):
            continue
        good = GOOD.get(option.name)
        accepted = good is not None and draw(st.integers(0, 2))
        words += option.words(draw(st.sampled_from(good if accepted else VALUES)))
    match draw(st.integers(0, 19)):
        case 0:
            words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(VALUES)))
        case 1 if words:
            words.pop(draw(st.integers(0, len(words) - 1)))
        case 2:
            words.append(draw(st.sampled_from(("-v", "-q", "--help", "--version", "--", "--x"))))
        case 3:
            name = draw(st.sampled_from(VALUES))
    return [name, *words]


def check(call: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        try:
            code: object = main(call)
            refused = code == 2
        except SystemExit as stop:  # of tyro, or of a command whose answer is 1
            code, refused = stop.code, False
    said = err.getvalue()
    assert code in (0, 1, 2), said
    verbose = {"-v", "--verbose"} & {*call}
    assert verbose or "Traceback" not in said + out.getvalue()
    assert "the check itself failed" not in out.getvalue()  # a traceback, as doctor shows it
    if refused:
        last = said.splitlines()[-1]
        assert last.startswith("error: "), said
        assert len(last) > len("error: "), said


@pytest.mark.parametrize("kind", KINDS)
def test_the_world_is_worth_it(world: Path, kind: str) -> None:
    """Good arguments get as far as the work: a world that refuses all of them would find nothing."""
    given = {**{name: good[0] for name, good in GOOD.items()}, "checkpoint": kind}
    given["output"] = f"out/{kind}"
    for name in ("bench", "calibrate", "evaluate", "export", "init-ros", "info"):
        if (name, kind) == ("evaluate", "dit"):  # which does not play PushT
            continue
        words = [
            word
            for option in OPTIONS[name]
            if option.required or option.name in ("json", "output")
            for word in option.words(given[option.name])
        ]
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            code = main([name, *words])
        assert code == 0 or "error: accepted" in err.getvalue(), (name, err.getvalue())


_ALL = (HealthCheck.too_slow, HealthCheck.data_too_large)


@settings(max_examples=200, derandomize=True, database=None, suppress_health_check=_ALL)
@given(call=calls())
def test_any_call_ends_as_documented(world: Path, call: list[str]) -> None:
    assert os.path.samefile(os.curdir, world)
    check(call)


@pytest.mark.nightly
@pytest.mark.timeout(0)
@settings(max_examples=4_000, suppress_health_check=_ALL)
@given(call=calls())
def test_many_calls_end_as_documented(world: Path, call: list[str]) -> None:
    assert os.path.samefile(os.curdir, world)
    check(call)
