"""Executables of the simulators; their imports are as slow as those of the other nodes."""

from __future__ import annotations

from para_policy.ros.start import start_node


def pusht_sim() -> int:
    return start_node("sim.ros.pusht_sim")


def aloha_sim() -> int:
    return start_node("sim.ros.aloha_sim")
