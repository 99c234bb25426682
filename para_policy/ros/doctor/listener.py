"""A node that asks and listens for a while, and is no part of what it examines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from para_policy.ros.own_node import OwnNode, Question

NAME = "para_policy_doctor"


class Listener(OwnNode):
    """Waits for what may never come; a context manager."""

    def __init__(self) -> None:
        super().__init__(NAME, enable_rosout=False, start_parameter_services=False)

    def wait(self, condition: Callable[[], Any], limit_s: float) -> bool:
        """Listen until `condition` holds, or in vain for `limit_s`."""
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() >= end:
                return False
            self.spin_once()
        return True

    def listen(self, seconds: float) -> None:
        self.wait(lambda: False, seconds)

    def call(self, kind: type, service: str, request: Any, limit_s: float = 3.0) -> Any:
        """The answer of a service, or None when there is none in time."""
        client = self.node.create_client(kind, service)
        if not self.wait(client.service_is_ready, limit_s):
            return None
        question = Question(client, request)
        self.wait(question.answered, limit_s)
        return question.answer()
