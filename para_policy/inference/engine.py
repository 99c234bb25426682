"""A network behind static shapes: a few batch sizes, prepared once, at addresses that stay."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.inference.backends import Backend, Prepare, Rows, attempts
from para_policy.inference.config import AUTO, EngineConfig, Precision, Size, affordable, label
from para_policy.inference.failures import UnavailableError, attempt, is_out_of_memory
from para_policy.inference.graphs.uses import note
from para_policy.inference.precision import HALF, ROUNDING, check_output, tensor_cores
from para_policy.inference.static_batch import StaticBatch

_Kind = tuple[tuple[torch.dtype, torch.Size], ...]


class Engine:
    """Runs `body(*inputs)`, rows to rows, by a backend.

    Inputs are copied into buffers of the smallest prepared size that holds them; more rows than the
    largest size are split into several calls. Sizes are prepared when they are first needed, or by
    `warm_up`. A call allocates nothing but its output.

    With "auto", backends are tried in the order of `attempts`. One that cannot be imported, fails to
    compile, or computes something else than PyTorch does is passed over, with one warning; the last
    one, PyTorch in float32, always works. Sizes for which the memory does not suffice are dropped,
    with a warning as well.

    Calls share the buffers, so they come one after the other, from whichever threads: settings are
    checked, and noise is measured, while chunks are planned.

    Args:
        body: float32 weights that must not change any more; in evaluation mode. Rows of its output
            (rows, *shape) must depend on the same rows of the inputs only.
        config: what is wanted.

    Attributes:
        body, config: as given.
        sizes: in use; those of `config` less those that do not fit into memory.
        passed_over: reasons why better backends or larger sizes are not in use.
        generation: another number once prepared sizes were given up: whoever has recorded calls, and
            with them addresses, must record anew.
    """

    def __init__(self, body: nn.Module, config: EngineConfig) -> None:
        self.body, self.config = body, config
        self._weight_bytes = weight_bytes(body)  # reports ask for it once a second
        self.sizes = config.sizes
        self.passed_over: list[str] = []
        self.generation = 0
        self._told = 0
        self._warming_up = False
        self._untried: list[tuple[Backend, Precision]] | None = None
        # The rows in batches where None: not a method of this engine, which would keep itself alive.
        self._in_use: tuple[Backend, Precision, Rows | None] | None = None
        self._prepare: Prepare | None = None
        self._batches: dict[tuple[Size, _Kind], StaticBatch] = {}
        self._one_call = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, in this process or another one, prepares its own sizes: they are bound to addresses."""
        return Engine, (self.body, self.config)

    @property
    def backend(self) -> str | None:
        """Name of the backend in use; None before the first call."""
        return None if self._in_use is None else self._in_use[0].name

    @property
    def precision(self) -> Precision:
        """In use: the one asked for, or float32 where no backend has that."""
        return self.config.precision if self._in_use is None else self._in_use[1]

    @property
    def label(self) -> str:
        """Backend and precision in use, for reports; before the first call, what was asked for."""
        return label(self.backend or self.config.backend, self.precision)

    @property
    def memory_bytes(self) -> int:
        """What the engine takes beside the weights of `body`, as far as it can be known."""
        if self._in_use is None:
            return 0
        backend, precision, _ = self._in_use
        copies = len(self._batches) if backend.repacks else 0.5 * (precision in HALF)
        buffers = sum(batch.memory_bytes for batch in self._batches.values())
        return int(self._weight_bytes * copies) + buffers

    # What is kept could not be written to, or would be compiled anew, outside of inference mode.
    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """Evaluate (M, ...) each, at least one row, to a new tensor (M, *shape) in float32.

        Raises:
            InputError: if there is no row, or if one backend was asked for and cannot be used.
            Exception: what `body` itself raises for such inputs.
        """
        if len(inputs[0]) == 0:
            raise InputError("the engine was called with no rows; expected at least one")
        with self._one_call:
            output = self._run(inputs)
        note(self)
        if len(self.passed_over) > self._told and not self._warming_up:
            self._tell()
        return output

    def warm_up(self, *inputs: Tensor) -> None:
        """Prepare all sizes, with one row as an example, so that no later call has to wait.

        Raises:
            InputError, Exception: as for a call.
        """
        self._warming_up = True
        try:
            self(*(v[:1] for v in inputs))
            while (size := self._unprepared(inputs)) is not None:
                self(*(v[:1].expand(size.rows, *v.shape[1:]) for v in inputs))
        finally:
            self._warming_up = False
        self._tell()

    def output_noise(self, *inputs: Tensor, coarse: Precision | None = None) -> float:
        """How far outputs change though nothing has changed: no residual can be seen below that.

        The largest absolute difference between outputs for the same rows at the padded sizes, and
        after a change of the states by about one unit in the last place of the arithmetic: states
        that close are rounded to the same numbers, or to neighbours, by chance.

        Args:
            inputs: (M, ...) each; states first.
            coarse: what the body itself computes in, where that is a half precision.
        """
        expected = self(*inputs)
        rows = len(expected)
        sign = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(0)).sign()
        moved = inputs[0] * (1 + ROUNDING[coarse or self.precision] * sign.to(inputs[0]))
        noise = (self(moved, *inputs[1:]) - expected).abs().max().item()
        for size in self.sizes:
            taken = torch.arange(size.rows, device=expected.device) % rows
            again = self(*(v[taken] for v in inputs))
            noise = max(noise, (again - expected[taken]).abs().max().item())
        return noise

    def _run(self, inputs: Sequence[Tensor]) -> Tensor:
        while True:
            try:
                _, precision, run = self._in_use or self._choose(inputs)
                # Without a GPU there are no tensor cores to allow or forbid.
                with tensor_cores(precision) if inputs[0].is_cuda else nullcontext():
                    return (run or self._in_batches)(*inputs)
            except UnavailableError as error:
                self._pass_over(error)

    def _unprepared(self, inputs: Sequence[Tensor]) -> Size | None:
        if self._in_use is None or not self._in_use[0].static:
            return None
        kind = _kind(inputs)
        return next((size for size in self.sizes if (size, kind) not in self._batches), None)

    def _choose(self, inputs: Sequence[Tensor]) -> tuple[Backend, Precision, Rows | None]:
        """Load the next backend that has not failed yet."""
        device = inputs[0].device
        if self._untried is None:
            self._untried = list(attempts(self.config, device))
        backend, precision = self._untried[0]
        attempt(lambda: backend.check(device, precision))
        loaded: Any = attempt(lambda: backend.load(self.body, precision))
        run: Any = None if backend.static else loaded
        if backend.static:
            self._prepare = loaded
        elif precision != "float32":
            with tensor_cores("float32"):
                reference = self.body(*inputs)
            with tensor_cores(precision):
                check_output(attempt(lambda: run(*inputs)), reference, precision)
        if backend.repacks:
            limit = self.config.memory_limit_mib * 2**20
            self.sizes = affordable(self.config.sizes, limit // max(self._weight_bytes, 1))
        self._in_use = backend, precision, run
        return self._in_use

    def _in_batches(self, *inputs: Tensor) -> Tensor:
        rows, start = len(inputs[0]), 0
        output: Tensor | None = None
        while start < rows:
            part = [v[start : start + self.sizes[-1].rows] for v in inputs]
            batch = self._batch(part)
            if batch is None:
                continue  # with smaller sizes now
            result = batch(part)
            if output is None:
                output = result.new_empty(rows, *result.shape[1:])
            output[start : start + len(result)] = result
            start += len(result)
        assert output is not None
        return output

    def _batch(self, inputs: Sequence[Tensor]) -> StaticBatch | None:
        """Prepared for these rows; None if the size was dropped because memory does not suffice."""
        assert self._in_use is not None
        assert self._prepare is not None
        size = next(size for size in self.sizes if size.rows >= len(inputs[0]))
        key = size, _kind(inputs)
        if key not in self._batches:
            _refuse_in_capture(inputs[0].device)
            precision = self._in_use[1]
            try:
                self._batches[key] = StaticBatch(self._prepare, self.body, inputs, size, precision)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._drop(size, error)
                return None
        return self._batches[key]

    def _drop(self, size: Size, error: Exception) -> None:
        if size is self.sizes[0]:
            raise UnavailableError(str(error)) from error
        self.sizes = tuple(s for s in self.sizes if s.rows < size.rows)
        self._batches = {k: b for k, b in self._batches.items() if k[0] in self.sizes}
        self.generation += 1
        self.passed_over.append(
            f"{size.rows} rows at once ({error}); calls of more than {self.sizes[-1].rows} are split"
        )
        torch.cuda.empty_cache()

    def _pass_over(self, error: UnavailableError) -> None:
        assert self._untried is not None
        backend, precision = self._untried.pop(0)
        if self.config.backend != AUTO:
            self._untried = None
            raise InputError(
                f"engine {backend.name!r} cannot be used: {error}; choose 'auto' or 'eager', or "
                "another precision"
            ) from error
        self.passed_over.append(f"{label(backend.name, precision)} ({error})")
        self._in_use, self._batches, self.sizes = None, {}, self.config.sizes
        self.generation += 1

    def _tell(self) -> None:
        news = self.passed_over[self._told :]
        if news:
            self._told = len(self.passed_over)
            warnings.warn(
                f"engine {self.label!r} is used, without: {'; '.join(news)}", stacklevel=3
            )


def weight_bytes(body: nn.Module) -> int:
    """Size of the parameters and buffers of `body`."""
    return sum(v.nbytes for v in (*body.parameters(), *body.buffers()))


def _kind(inputs: Sequence[Tensor]) -> _Kind:
    return tuple((v.dtype, v.shape[1:]) for v in inputs)


def _refuse_in_capture(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise InputError(
            "the engine is captured in a CUDA graph before it is prepared; call warm_up() first"
        )
