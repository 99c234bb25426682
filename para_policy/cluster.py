"""Tasks on a Ray cluster: one that is started here for as long as they take, or one that is there.

Ray places the tasks, runs those again whose worker was lost, and carries what they take and give.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

from para_policy.children import descendants, end_all
from para_policy.errors import InputError, WorkerLostError
from para_policy.extras import extra
from para_policy.stopping import Stopped

LOCAL = "local"
"""Address of a cluster of this machine's own, for one command."""
RETRIES = 3
"""How often a task is run again whose worker was lost: one that fails each time kills its workers."""
POLL_S = 0.5

_TOKEN, _PATIENCE = "RAY_AUTH_TOKEN", "RAY_gcs_server_port_wait_time_s"
_STORE_BYTES = 256 * 2**20  # what does not fit goes to the disk
_LONGEST_TEMP = 30  # Ray's sockets lie 76 characters deeper, and names of sockets end at 107
_CONNECT_S = 10.0
_AHEAD = 16

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[int], None]
Begin = Callable[[], Callable[[Item, Report], Result]]
"""Makes what does the tasks of a worker process, once for all of them; it is pickled. What it makes
calls its second argument with increments of what is done."""


def gpus_of(device: str) -> int:
    """GPUs that each task takes for a device. Raises InputError for one that tasks cannot have."""
    if device not in ("cpu", "cuda"):
        raise InputError(
            f"device is {device!r}; with --cluster expected cpu, or cuda for a GPU of its own for each "
            "task"
        )
    return int(device == "cuda")


@contextmanager
def connected(address: str, workers: int | None = None, gpus: int = 0) -> Iterator[None]:
    """A cluster within, for `tasks`; its processes are gone afterwards if it was started here.

    Args:
        address: `LOCAL`, "auto" for the one that this machine belongs to, or its HOST:PORT, as
            `check_address` says.
        workers: tasks at once on `LOCAL`; None for as many as there are CPUs.
        gpus: that each task will take.

    Raises:
        InputError: if there is no such cluster, or it has not what one task takes; and as
            `check_address`.
    """
    check_address(address)
    ray = _ray()
    before = descendants()
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir=_temporary(), ignore_cleanup_errors=True
    ) as folder:
        try:
            _connect(ray, address, workers, folder)
            _check_resources(ray, address, gpus)
            yield
        finally:
            end_all(ray.shutdown, before)


def _ray() -> Any:
    with extra("cluster", "--cluster"):
        import ray
    return ray


def _connect(ray: Any, address: str, workers: int | None, folder: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        # Ray would write one to the home directory, which service users and containers may lack.
        os.environ.setdefault(_TOKEN, secrets.token_hex(32))
        options |= {"num_cpus": workers, "object_store_memory": _STORE_BYTES}
        options |= {"include_dashboard": False, "_temp_dir": folder}
    else:
        # Somebody listens; what is no Ray would be asked for twelve minutes instead of one.
        os.environ.setdefault(_PATIENCE, "1")
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, **options)
    except SystemExit as stop:  # Ray's own answer to SIGTERM
        raise Stopped(signal.SIGTERM) from stop
    except Exception as error:  # what Ray raises is of many kinds, and of none
        what = "start" if address == LOCAL else f"connect to '{address}' with"
        raise InputError(
            f"cannot {what} Ray {ray.__version__} ({error}); see docs/scale.md"
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)


def check_address(address: str) -> None:
    """See at once whether it is `LOCAL`, "auto", or HOST:PORT where somebody listens.

    Raises:
        InputError: if not.
        MissingPackageError: if Ray is not installed.
    """
    _ray()
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise InputError(
            f"--cluster {address!r}: expected {LOCAL}, auto on a machine of the cluster, or HOST:PORT"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at {address} ({error}); start one with `ray start --head`, or give "
            f"--cluster {LOCAL}"
        ) from error


def _check_resources(ray: Any, address: str, gpus: int) -> None:
    """Raise InputError where tasks would wait for ever."""
    there = ray.cluster_resources()
    for name, needed in (("CPU", 1), ("GPU", gpus)):
        if there.get(name, 0) < needed:
            raise InputError(
                f"the cluster '{address}' has {there.get(name, 0):g} {name}s, each task takes {needed}; "
                "add a machine that has them"
            )


def _temporary() -> str:
    """Where Ray may put its sockets."""
    found = tempfile.gettempdir()
    return found if len(found) <= _LONGEST_TEMP else "/tmp"


def tasks(
    begin: Begin[Item, Result],
    items: Iterable[Item],
    *,
    gpus: int = 0,
    ordered: bool = False,
    on_progress: Report = lambda done: None,
) -> Iterator[tuple[Item, Result]]:
    """Do a task for each item on the cluster of `connected`, each on one CPU; yield them as they finish.

    Args:
        gpus: that each takes.
        ordered: yield them in the order of the items.
        on_progress: called with increments of what the tasks have reported, negative ones when a task
            is done again.

    Raises:
        WorkerLostError: if the workers of one task were lost, each time that it was tried.
        Exception: what a task has raised.
    """
    ray = _ray()
    exceptions = ray.exceptions
    # GPU workers would end after each task and load everything again.
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=0, max_retries=RETRIES)(_task)
    reporter = ray.remote(num_cpus=0, max_restarts=-1)(_Reporter).remote()
    begun = ray.put(begin)
    left, pending, shown = enumerate(items), dict[Any, Item](), dict[int, int]()
    while True:
        # Few enough that what they take and give fits; enough that a cluster sees it could grow.
        most = 2 * int(ray.cluster_resources().get("CPU", 0)) + _AHEAD
        for index, item in islice(left, max(0, most - len(pending))):
            pending[task.remote([begun], index, item, reporter)] = item
        if not pending:
            return
        waiting = [next(iter(pending))] if ordered else list(pending)
        finished, _ = ray.wait(waiting, timeout=POLL_S)
        with suppress(exceptions.RayError, exceptions.GetTimeoutError):
            told: dict[int, int] = ray.get(reporter.told.remote(), timeout=POLL_S)
            on_progress(sum(told.values()) - sum(shown.values()))
            shown = told
        for reference in finished:
            item = pending.pop(reference)
            try:
                result = pickle.loads(ray.get(reference))
            except exceptions.RayTaskError as error:
                raise error.cause from error
            except exceptions.RayError as error:
                raise WorkerLostError(
                    f"the worker of a task was lost {RETRIES + 1} times (killed, or out of memory): "
                    f"{str(error).splitlines()[0]}"
                ) from error
            yield item, result


class _Kept:
    """What a worker process keeps between tasks."""

    key: str | None = None
    work: Callable[[Any, Report], Any]


def _task(begun: list[Any], index: int, item: Item, reporter: Any) -> bytes:
    """The pickled result, made in a worker; `begun` holds a reference, which is fetched once a process."""
    ray, done = _ray(), 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        reporter.tell.remote(index, done)

    report(0)
    key = begun[0].hex()
    if _Kept.key != key:
        _Kept.work, _Kept.key = ray.get(begun[0])(), key
    result = _Kept.work(item, report)
    with suppress(ray.exceptions.RayError):  # what was told arrives before the result
        ray.get(reporter.tell.remote(index, done))
    # Arrays as such would stay in Ray's store, which is small, for as long as they are used.
    return pickle.dumps(result)


class _Reporter:
    """An actor that knows how far each task is."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}

    def tell(self, index: int, done: int) -> None:
        self._done[index] = done

    def told(self) -> dict[int, int]:
        return self._done
