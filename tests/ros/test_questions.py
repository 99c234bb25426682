"""Requests whose answer gets lost on its way, over real DDS."""

from __future__ import annotations

from typing import Any

import pytest
from rclpy.node import Node
from std_srvs.srv import Trigger

from para_policy.ros.own_node import Question
from tests.ros.graph import Graph


class Forgetful:
    """A service that handles every request and loses its first answers."""

    def __init__(self, node: Node, lost: int) -> None:
        self.handled = 0
        self._lost = lost
        service = node.create_service(Trigger, "forgetful", self._handle)
        self._send, service.send_response = service.send_response, self._maybe_send

    def _handle(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.handled += 1
        response.message = str(self.handled)
        return response

    def _maybe_send(self, response: Any, header: Any) -> None:
        if self.handled > self._lost:
            self._send(response, header)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_lost_answer_is_asked_for_again(graph: Graph, lost: int) -> None:
    service = Forgetful(graph.add(lambda **options: Node("server", **options)), lost)
    client = graph.probe.create_client(Trigger, "forgetful")
    graph.wait(client.service_is_ready)

    question = Question(client, Trigger.Request(), again_s=0.3)
    graph.wait(question.answered)
    graph.spin_for(0.6)

    assert question.answer().message == str(lost + 1)
    assert service.handled == lost + 1  # none is sent once the answer is here


def test_what_must_not_happen_twice_is_asked_once(graph: Graph) -> None:
    service = Forgetful(graph.add(lambda **options: Node("server", **options)), lost=1)
    client = graph.probe.create_client(Trigger, "forgetful")
    graph.wait(client.service_is_ready)

    question = Question(client, Trigger.Request(), again_s=60.0)
    assert not question.answered()
    graph.spin_for(0.6)

    assert not question.answered()
    assert question.answer() is None
    assert service.handled == 1
