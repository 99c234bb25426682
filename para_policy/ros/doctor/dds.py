"""Check of DDS: messages that really travel between two processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from sensor_msgs.msg import Image
from std_msgs.msg import String

from para_policy.ros.doctor import sender
from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.listener import Listener
from para_policy.ros.doctor.report import Finding, fail, ok, warn

_LIMIT_S = 15.0
"""Start of a process, and discovery, which now and then takes three seconds."""
_PATIENCE_S = 3.0
_ENOUGH = 0.9
_SIZE = f"raw {sender.WIDTH}x{sender.HEIGHT} images at {1 / sender.PERIOD_S:.0f} Hz"


@dataclass(frozen=True)
class _Arrivals:
    """Messages that arrived, seconds until the first, and what the sender had to say."""

    count: int
    after_s: float
    said: str


def check(case: Case) -> Iterator[Finding]:
    """A short text, then images as cameras send them: reliable, and best effort."""
    with Listener() as listener:
        text = _receive(listener, "text", String, 10)
        if not text.count:
            found = f"nothing of another process arrived within {_LIMIT_S:g} s. {text.said}".strip()
            advice = "check firewall, /dev/shm, RMW_IMPLEMENTATION and discovery range"
            yield fail("two processes", found, advice)
            return
        yield ok("two processes", f"the first message arrived after {text.after_s:.1f} s")
        for reliable in (True, False):
            kind = "reliable" if reliable else "best_effort"
            qos = sender.image_qos(reliable=reliable)
            arrivals = _receive(listener, kind, Image, qos, sender.IMAGES)
            yield _judge(case, arrivals.count, reliable=reliable)


def _judge(case: Case, arrived: int, *, reliable: bool) -> Finding:
    subject = "images, reliable" if reliable else "images, best effort"
    found = f"{arrived} of {sender.IMAGES} {_SIZE} arrived"
    if arrived >= _ENOUGH * sender.IMAGES:
        return ok(subject, found)
    if not _takes_images(case, reliable=reliable):
        return ok(subject, f"{found}; this policy needs none")
    if reliable:
        advice = "use CompressedImage, smaller images, or a larger shared-memory segment"
    else:
        advice = (
            "where the camera publishes reliably set `reliable: true` in the inputs file; or use "
            "CompressedImage, or enlarge the shared-memory segment (docs/ros2.md, Camera images)"
        )
    return warn(subject, found, advice)


def _takes_images(case: Case, *, reliable: bool) -> bool:
    """True where an input of the policy is a raw image of this quality, or may be one."""
    if case.inputs is None:
        return case.config is None or bool(case.config.cameras)
    return any(
        mapping.type == "sensor_msgs/msg/Image" and mapping.reliable == reliable
        for mapping in case.inputs.values()
    )


def _receive(listener: Listener, kind: str, message: type, qos: Any, count: int = 1) -> _Arrivals:
    """Messages of another process, until `count` have arrived or it is clear that they do not."""
    topic = sender.topic(token := f"{os.getpid()}_{time.monotonic_ns()}", kind)
    received: list[float] = []
    subscription = listener.node.create_subscription(
        message, topic, lambda _: received.append(time.monotonic()), qos
    )
    began = time.monotonic()
    try:
        with _other_process(token, kind) as words:
            listener.wait(lambda: received or listener.node.count_publishers(topic), _LIMIT_S)
            # A lost image leaves nothing to wait for but the time that all of them take.
            limit_s = _LIMIT_S if count == 1 else 3.0 + 2 * count * sender.PERIOD_S
            listener.wait(lambda: len(received) >= count, limit_s)
            words.seek(0)
            said = words.read().decode(errors="replace").strip()[-300:]
    finally:
        listener.node.destroy_subscription(subscription)
    return _Arrivals(len(received), received[0] - began if received else _LIMIT_S, said)


@contextmanager
def _other_process(token: str, kind: str) -> Iterator[IO[bytes]]:
    """A sender, ended for certain at the end; the file of what it prints."""
    command = [sys.executable, "-m", sender.__name__, token, kind]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdout=words, stderr=words)
        try:
            yield words
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
