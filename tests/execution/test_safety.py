"""Whatever comes, nothing beyond a limit goes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from para_policy.execution.blending import Blending, CrossFade, NoBlending, TemporalEnsemble
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.commander import Commander, RobotState
from para_policy.execution.coordinates import NUMBERS
from para_policy.execution.guards import Guards, Limits
from para_policy.execution.player import ChunkPlayer, Interpolation, PlayerSettings

T0 = 1_700_000_000 * 10**9
DT = 100_000_000
PERIOD = 20_000_000
PERIOD_S = PERIOD / 1e9

SETTLED = 50
"""Periods after which a robot that holds has come to rest."""

LIMITS = {
    "position_min": -1.0,
    "position_max": 1.0,
    "velocity_max": 5.0,
    "acceleration_max": 150.0,
    "max_jump": 0.6,
}
CHUNKS = st.tuples(
    st.integers(1, 8), st.sampled_from([0.01, 0.1, 0.5, 3.0, 1e300]), st.integers(0, 2**32 - 1)
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), CHUNKS),
        st.tuples(st.just("push"), st.floats(-1, 1)),
        st.tuples(st.just("enable"), st.booleans()),
        st.tuples(st.just("wait"), st.integers(1, 12)),
    ),
    min_size=10,
    max_size=40,
)


class Witness:
    """Sees what is sent, knows nothing of how it came about, and checks every limit itself."""

    def __init__(self, limits: dict[str, float]) -> None:
        self.limits = {name: limits.get(name, np.inf) for name in LIMITS}
        self.limits["position_min"] = limits.get("position_min", -np.inf)
        self.forget()

    def forget(self) -> None:
        self.last: np.ndarray | None = None
        self.velocity = np.zeros(2)
        self.still = 0

    def see(self, command: np.ndarray | None, state: np.ndarray) -> None:
        stands = command is None or np.array_equal(command, self.last)
        if not stands and self.still > SETTLED:
            self.forget()  # the robot may have been moved
        self.still = self.still + 1 if stands else 0
        if command is None:
            self.velocity = np.zeros(2)
            return
        limits = self.limits
        assert np.isfinite(command).all()
        assert (limits["position_min"] <= command).all()
        assert (command <= limits["position_max"]).all()
        assert (np.abs(command - state) <= limits["max_jump"]).all()
        with np.errstate(over="ignore", invalid="ignore"):
            # The first command moves the robot from where it stands.
            velocity = (command - (state if self.last is None else self.last)) / PERIOD_S
            acceleration = np.abs(velocity - self.velocity) / PERIOD_S
        assert (np.abs(velocity) <= limits["velocity_max"]).all()
        # A robot that holds stops where it was last told to be; only a motion is limited.
        assert not velocity.any() or (acceleration <= limits["acceleration_max"]).all()
        self.last, self.velocity = command, velocity


@given(
    EVENTS,
    st.sets(st.sampled_from(sorted(LIMITS))),
    st.sampled_from(["none", "linear"]),
    st.sampled_from([NoBlending(), CrossFade(DT), TemporalEnsemble(0.1)]),
    st.sampled_from(["silent", "repeat"]),
    st.booleans(),
)
def test_no_command_beyond_a_limit_is_ever_sent(
    events: list[tuple[str, Any]],
    active: set[str],
    interpolation: Interpolation,
    blending: Blending,
    hold: Any,
    latch: bool,
) -> None:
    limits = {name: LIMITS[name] for name in active}
    mixing = PlayerSettings(interpolation=interpolation, blending=blending, coordinates=NUMBERS)
    player = ChunkPlayer(2, mixing)
    guards = Guards(Limits(**{name: (limit,) for name, limit in limits.items()}), PERIOD_S)
    commander = Commander(player, guards, hold=hold, latch=latch, enabled=True)
    now, state, witness = T0, np.zeros(2), Witness(limits)
    for event, value in events:
        if event == "chunk":  # a walk from where the robot is
            steps, size, seed = value
            walk = size * np.random.default_rng(seed).uniform(-1, 1, (steps, 2))
            walk = walk if size > 1 else walk.cumsum(axis=0)
            player.offer(ActionChunk(now, DT, state + walk), now)
        elif event == "push":
            state = state + value
        elif event == "enable":
            if value and (commander.latched or not commander.enabled):
                witness.forget()
            commander.enable(value)
        for _ in range(value if event == "wait" else 1):
            may_move = commander.enabled and not commander.latched
            command = commander.command(now, RobotState(now, state))
            witness.see(command, state)
            assert may_move or command is None or (hold == "repeat" and commander.enabled)
            state = state if command is None else command
            now += PERIOD
