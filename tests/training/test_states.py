"""States: whole or not at all, two of them, and the newest whole one is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from para_policy.errors import InputError
from para_policy.training.states import States


def add(states: States, step: int) -> None:
    states.begin()
    (states.unfinished / "weights").write_text(f"weights of {step}")
    (states.unfinished / "rest").write_bytes(bytes(1000))
    states.finish(step, 0.5 * step)


@pytest.fixture
def states(tmp_path: Path) -> States:
    made = States(tmp_path / "state")
    for step in (100, 200, 300):
        add(made, step)
    return made


def test_the_last_two_are_kept(states: States) -> None:
    assert [path.name for path in states.newest_first()] == ["step_00000300", "step_00000200"]
    assert len(list(states.folder.iterdir())) == 2
    path, facts = states.newest()
    assert (path.name, facts.step, facts.seconds) == ("step_00000300", 300, 150.0)
    assert set(facts.files) == {"weights", "rest"}


def cut(path: Path) -> None:
    (path / "weights").write_bytes((path / "weights").read_bytes()[:-1])


def change(path: Path) -> None:
    (path / "rest").write_bytes(bytes(999) + b"\1")


def forget(path: Path) -> None:
    (path / "state.json").unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "holds a damaged weights": cut,
    "holds a damaged rest": change,
    "lacks rest": lambda path: (path / "rest").unlink(),
    "has no readable state.json": forget,
    "has no readable": lambda path: (path / "state.json").write_text('{"step": -1}'),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_state_is_passed_over_and_makes_room(states: States, message: str) -> None:
    newest, older = states.newest_first()
    DAMAGES[message](newest)
    assert states.newest()[0] == older
    DAMAGES[message](older)
    with pytest.raises(InputError, match=f"step_00000200 {message}"):
        states.newest()
    add(states, 150)  # after 100, copied back
    assert [path.name for path in states.newest_first()] == ["step_00000150"]


def test_what_a_killed_run_left_half_written_is_no_state(states: States) -> None:
    states.begin()
    (states.unfinished / "weights").write_text("half of")
    assert states.newest()[1].step == 300
    add(states, 400)
    assert not states.unfinished.exists()
    assert states.newest()[1].step == 400
