"""Recording itself: warm-ups, streams, what a recording addresses, and whether it does its work."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from para_policy import Denoiser, samplers
from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.failures import UnavailableError
from para_policy.inference.graphs import Repeat
from para_policy.inference.graphs import capture as capturing
from para_policy.inference.graphs.capture import capture
from para_policy.inference.graphs.inputs import Inputs
from para_policy.inference.graphs.recording import Work
from para_policy.inference.graphs.solve import RecordedSolve
from tests.inference.fakes import Fake, use
from tests.inference.rounds import (
    SAMPLERS,
    SHAPE,
    Counted,
    Network,
    assert_same,
    consistency,
    problem,
    process_of,
    recorded_by,
)

DDPM = process_of("ddpm")


class WarmedUp(Repeat):
    """Runs the work three times before it is recorded, as CUDA graphs need it."""

    def record(self, work: Work, restart: Work) -> Work:
        for _ in range(3):
            restart()
            work()
        return super().record(work, restart)


@pytest.mark.parametrize("label", SAMPLERS)
def test_warm_ups_leave_nothing_behind(label: str) -> None:
    name, options = SAMPLERS[label]
    sampler, network = samplers.get(name, **options), Network()
    condition, noise = problem(0)
    usual = sampler(Denoiser(network, condition), DDPM, noise)
    replayed = recorded_by(sampler, WarmedUp())
    assert_same(replayed(Denoiser(network, condition), DDPM, noise), usual)


@pytest.mark.parametrize("steps", [4, 16])
def test_drafts_that_accept_nothing_are_warmed_up(steps: int) -> None:
    """They count sweeps, of which there is room for as many as a solve can take."""
    process, network = process_of("ddpm", steps), Network()
    options = {"consistency": consistency, "splitting": "x0", "horizon": 3}
    sampler = samplers.get("pcm", **options)
    condition, noise = problem(0, steps=steps)
    usual = sampler(Denoiser(network, condition), process, noise)
    replayed = recorded_by(sampler, WarmedUp())
    assert_same(replayed(Denoiser(network, condition), process, noise), usual)


class Idle(Repeat):
    """Its replays do nothing."""

    def record(self, work: Work, restart: Work) -> Work:
        super().record(work, restart)
        return lambda: None


@pytest.mark.parametrize("label", SAMPLERS)
def test_a_recording_that_does_not_do_its_work_is_not_used(label: str) -> None:
    name, options = SAMPLERS[label]
    sampler, network = samplers.get(name, **options), Network()
    condition, noise = problem(0)
    usual = sampler(Denoiser(network, condition), DDPM, noise)
    replayed = recorded_by(sampler, Idle())
    with pytest.warns(UserWarning, match=r"not recorded.*differ"):
        assert_same(replayed(Denoiser(network, condition), DDPM, noise), usual)


def test_values_that_were_recorded_as_constants_are_found() -> None:
    condition, noise = problem(0)
    inputs = Inputs(Denoiser(Network(), condition), noise)
    sampler = samplers.get("x0")
    solve: Any = sampler.begin(inputs.denoiser(), DDPM, inputs.noise, None)

    class Constant(Repeat):
        def record(self, work: Work, restart: Work) -> Work:
            super().record(work, restart)
            states = solve.X.clone()
            return lambda: solve.X.copy_(states)

    with pytest.raises(UnavailableError, match="differ"):
        RecordedSolve(solve, inputs, Constant(), 1, None, "float32")


def test_rounds_that_do_not_end_are_an_error() -> None:
    class Endless(Counted):
        def watch(self, number: Tensor) -> Callable[[], int]:
            return lambda: 1

    condition, noise = problem(0)
    recorder = Endless()
    replayed = recorded_by(samplers.get("x0"), recorder)
    with pytest.raises(RuntimeError, match="went on after 31"):
        replayed(Denoiser(Network(), condition), DDPM, noise)
    assert recorder.replayed < 40


class Body(nn.Module):
    """The rows of `Network`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.inner = nn.Parameter(network.inner, requires_grad=False)

    def forward(self, x: Tensor, t: Tensor, seen: Tensor) -> Tensor:
        mixed = (x.flatten(1)[:, None, :] * self.inner).sum(dim=2)
        return (mixed + seen + 0.01 * t[:, None]).tanh().reshape(x.shape)


class OnEngine(Network):
    """A network whose rows are computed by an engine with two sizes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.engine = Engine(Body(self).eval(), EngineConfig("openvino", sizes=(Size(8), Size(64))))

    def bind(self, condition: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        seen = condition @ self.outer
        return lambda x, t, sample: self.engine(x, t.float(), seen[sample])


def test_after_a_size_was_dropped_rounds_are_recorded_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = False

    def prepare(size: Size) -> None:
        if full and size.rows == 64:
            raise MemoryError("full")

    use(monkeypatch, Fake(prepare=prepare))
    network, recorder, sampler = OnEngine(), Counted(), samplers.get("x0")
    replayed = recorded_by(sampler, recorder, block=1)
    condition, noise = problem(0)
    for _ in range(2):
        replayed(Denoiser(network, condition), DDPM, noise)
    assert recorder.recorded == 1
    full = True
    flat = torch.zeros(64, SHAPE[0] * SHAPE[1])  # another kind of input, prepared anew
    with pytest.warns(UserWarning, match="64 rows at once"):
        network.engine(flat, torch.zeros(64), flat)
    for _ in range(2):
        result = replayed(Denoiser(network, condition), DDPM, noise)
    assert recorder.recorded == 2
    assert_same(result, sampler(Denoiser(network, condition), DDPM, noise))


class Addresses(Repeat):
    """As a graph it knows addresses only: once `works` is cleared it keeps nothing alive."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def record(self, work: Work, restart: Work) -> Work:
        index = len(self.works)
        self.works.append(super().record(work, restart))
        return lambda: self.works[index]()


def test_networks_of_drafts_live_as_long_as_what_addresses_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, Fake())
    engines: list[weakref.ref[Engine]] = []

    def passing(share: float) -> OnEngine:
        made = OnEngine(seed=5)
        engines.append(weakref.ref(made.engine))
        return made

    options = {"consistency": passing, "splitting": "x0", "horizon": 2, "blend": "weights"}
    recorder = Addresses()
    replayed = recorded_by(samplers.get("pcm", **options), recorder)
    condition, noise = problem(0)
    replayed(Denoiser(Network(), condition), DDPM, noise)
    recorder.works.clear()
    gc.collect()
    held = sum(engine() is not None for engine in engines)
    assert held >= 2  # a round each
    gc.disable()
    del replayed
    freed = not any(engine() for engine in engines)
    gc.enable()
    assert freed  # the memory of a GPU is not left to the garbage collector


class Cuda:
    """As much of `torch.cuda` as captures need; `events` says what ran on which stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.index, self.streams = 0, {0: "main 0", 1: "main 1"}
        self.made: list[int] = []
        self.events: list[tuple[str, Any]] = []
        cuda = self

        class Stream:
            def __init__(self, index: int) -> None:
                cuda.made.append(index)
                self.index = index

            def wait_stream(self, other: Any) -> None: ...

        class Main(Stream):
            def __init__(self, index: int) -> None:
                self.index = index

        class Graph:
            def __init__(self, graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> None:
                self.stream = stream

            def __enter__(self) -> None:
                cuda.streams[cuda.index] = self.stream

            def __exit__(self, kind: Any, *_: Any) -> None:
                if kind is not None:  # torch ends the capture first, which raises
                    raise RuntimeError("operation failed due to a previous error during capture")
                cuda.streams[cuda.index] = cuda.main[cuda.index]

        self.main = {index: Main(index) for index in (0, 1)}
        self.streams: dict[int, Any] = dict(self.main)

        @contextmanager
        def stream(aside: Any) -> Iterator[None]:
            before, cuda.streams[cuda.index] = cuda.streams[cuda.index], aside
            yield
            cuda.streams[cuda.index] = before

        @contextmanager
        def device(chosen: torch.device) -> Iterator[None]:
            before, cuda.index = cuda.index, cuda.index if chosen.index is None else chosen.index
            try:
                yield
            finally:
                cuda.index = before

        for name, value in {
            "Stream": Stream,
            "CUDAGraph": object,
            "graph": Graph,
            "stream": stream,
            "device": device,
            "current_device": lambda: cuda.index,
            "current_stream": lambda: cuda.streams[cuda.index],
            "set_stream": lambda chosen: cuda.streams.update({chosen.index: chosen}),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def note(self, what: str) -> None:
        self.events.append((what, self.streams[self.index]))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    # The stand-in takes what the real one takes.
    options = {"pool": None, "stream": None, "capture_error_mode": "thread_local"}
    inspect.signature(torch.cuda.graph).bind(object(), **options)
    capturing._side_stream.cache_clear()
    yield Cuda(monkeypatch)
    capturing._side_stream.cache_clear()


def test_each_device_has_one_stream_for_warm_ups_and_captures(cuda: Cuda) -> None:
    for name in ("cuda:1", "cuda", "cuda:1"):
        capture(
            lambda: cuda.note("work"),
            torch.device(name),
            pool=None,
            restart=lambda: cuda.note("restart"),
        )
        what, streams = zip(*cuda.events, strict=True)
        assert what == ("restart", "work") * 4
        assert len(set(streams)) == 1
        assert streams[0].index == (1 if name == "cuda:1" else 0)
        assert streams[0] not in cuda.main.values()
        cuda.events.clear()
        assert cuda.streams == cuda.main
    assert cuda.made == [1, 0]


@pytest.mark.parametrize("fails_at", [1, 4])
def test_a_capture_that_fails_gives_the_stream_back(cuda: Cuda, fails_at: int) -> None:
    def work() -> None:
        cuda.note("work")
        if len(cuda.events) == fails_at:
            raise RuntimeError("an operation that must not be captured")

    with pytest.raises(RuntimeError):
        capture(work, torch.device("cuda:0"), pool=None)
    assert len(cuda.events) == fails_at
    assert cuda.streams == cuda.main
