"""Which robot client is served."""

from __future__ import annotations

import pytest

from para_policy.errors import InputError
from para_policy.lerobot_server import clients
from para_policy.lerobot_server.clients import Clients

REFUSED = "another robot client has connected"


def call(served: Clients, address: str) -> None:
    with served.call(address):
        served.check(address)


@pytest.fixture
def served() -> Clients:
    made = Clients()
    made.ready("one")
    call(made, "one")
    return made


def after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_SILENT_S", 0.0)


def test_the_last_one_that_is_ready_is_served(served: Clients) -> None:
    served.ready("two")
    call(served, "two")
    with pytest.raises(InputError, match=REFUSED):
        call(served, "one")
    served.ready("one")
    call(served, "one")


def test_a_call_that_another_client_overtakes_goes_no_further(served: Clients) -> None:
    with served.call("one"):
        served.ready("two")
        with pytest.raises(InputError, match=REFUSED):
            served.check("one")


def test_a_client_may_come_back_from_another_address(
    served: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=REFUSED):
        call(served, "one again")
    after_a_silence(monkeypatch)
    call(served, "one again")
    with pytest.raises(InputError, match=REFUSED):
        call(served, "one")


def test_a_client_that_was_overtaken_does_not_come_back_from_another_address(
    served: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It calls while the one that is served does, so that it is another one."""
    served.ready("two")
    with pytest.raises(InputError, match=REFUSED):
        call(served, "one again")
    call(served, "two")
    after_a_silence(monkeypatch)
    for address in ("one", "one again"):
        with pytest.raises(InputError, match=REFUSED):
            call(served, address)
    call(served, "two again")


def test_a_long_call_is_no_silence(served: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    after_a_silence(monkeypatch)
    with served.call("one"), pytest.raises(InputError, match=REFUSED):
        call(served, "two")


def test_a_client_of_the_server_before_is_heard() -> None:
    call(Clients(), "one")
