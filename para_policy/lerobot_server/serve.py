"""Life of the server: from the port to the signal that ends it."""

from __future__ import annotations

import ipaddress
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import grpc
from lerobot.transport import services_pb2_grpc

from para_policy.adapters.account import finish
from para_policy.errors import InputError
from para_policy.lerobot_server.server import Server, say
from para_policy.terminal import show

_WORKERS = 4
_GRACE_S = 1.0
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # else a second server on the port would get every other client
    # A robot that is out of reach must not hold a worker: without the last one it would for a minute.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
]


def serve(server: Server, host: str, port: int) -> None:
    """Answer robot clients until a signal comes.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: if the address cannot be listened on.
    """
    if not _is_own(host):
        warnings.warn(
            f"LeRobot's protocol has neither passwords nor encryption: whoever reaches {host}:{port} "
            "can load checkpoints here and take the robot's place; use it in a network of your own",
            stacklevel=2,
        )
    service = grpc.server(ThreadPoolExecutor(_WORKERS), options=_OPTIONS)
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(server, service)
    try:
        port = service.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: it is in use, or no address of this computer; "
            "choose another --port or --host"
        ) from error
    service.start()
    # What becomes of a policy is news here, which elsewhere is for the log.
    log, handler = logging.getLogger("para_policy"), _Said()
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.propagate = False
    try:  # who reads that line may answer with a signal before it returns
        show(f"LeRobot's robot clients are served on {host}:{port}; Ctrl-C ends it")
        service.wait_for_termination()
    finally:
        service.stop(_GRACE_S).wait()
        finish(server.accounts, ("lerobot",))
        log.removeHandler(handler)
        log.propagate = True
        counts = server.counts
        mean = f", {1e3 * counts.seconds / counts.chunks:.0f} ms each" if counts.chunks else ""
        show(f"chunks: {counts.chunks}{mean}")


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage().removeprefix("para_policy: "))


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
