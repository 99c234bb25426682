"""A domain that there is not: an error in the place of the end of the process, which Fast DDS brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from para_policy.errors import InputError
from para_policy.ros.bags.recorder import record
from para_policy.ros.bags.topics import RecordedNodes
from para_policy.ros.domain import HIGHEST, check_domain
from para_policy.ros.own_node import OwnNode
from para_policy.ros.parameters.offline import offline_node
from tests.ros.graph import CONFIG

WRONG = r"ROS_DOMAIN_ID is '300'; expected 0 to 232, the same for all nodes"


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "300")


@pytest.mark.parametrize("text", ["", "0", "7", "101", "232"])
def test_domains(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", text)
    check_domain()


@pytest.mark.parametrize("text", ["233", "-1", "1e2", "robot", "²", "9" * 5000])
def test_none_of_them(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", text)
    with pytest.raises(InputError, match="expected 0 to 232"):
        check_domain()


@pytest.mark.parametrize("domain_id", [-1, HIGHEST + 1])
def test_a_number_that_is_given(domain_id: int) -> None:
    check_domain(HIGHEST)
    with pytest.raises(InputError, match=f"ROS domain is '{domain_id}'"):
        check_domain(domain_id)


def test_no_node_is_made() -> None:
    with pytest.raises(InputError, match=WRONG):
        OwnNode("nobody")


def test_no_bag_is_begun(tmp_path: Path) -> None:
    nodes = RecordedNodes(None, "/", "policy_node")
    with pytest.raises(InputError, match=WRONG):
        record(tmp_path / "bag", "mcap", nodes, None, lambda counts: None)
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_file_is_read_all_the_same() -> None:
    with offline_node("policy_node", "/", CONFIG / "policy.yaml", given=True) as node:
        assert node.get_parameter("device").value == "cpu"
