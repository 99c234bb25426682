"""The latency experiment without ROS: who played what, resuming, and the numbers of known episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from para_policy.errors import ParaPolicyError
from sim import plots
from sim.evaluation.partial import PartialResults
from sim.pusht.task import PUSHT
from sim.ros.disturbance import Disturbance
from sim.ros.disturbed import Condition as DisturbedCondition
from sim.ros.latency.__main__ import main
from sim.ros.latency.conditions import Arguments, Condition
from sim.ros.latency.report import figure, holds, summarize, table
from sim.ros.latency.runs import Runs, _blocks
from sim.ros.latency.segments import segments
from sim.tasks.episode import Chunk, Episode

CONDITIONS = {
    "compensated, 0 ms": Condition("compensated", 0.0),
    "compensated, 100 ms": Condition("compensated", 100.0),
    "chunking_hard, 0 ms": Condition("chunking_hard", 0.0),
    "chunking_hard, 100 ms": Condition("chunking_hard", 100.0),
}
NAMES = ("in_process", *CONDITIONS)
SEEDS = range(7, 12)


def line(first: float, count: int, step: float = 1.0) -> np.ndarray:
    """Actions along x."""
    return np.stack([first + step * np.arange(count), np.zeros(count)], axis=1)


def episode(seed: int, coverage: float, chunks: list[np.ndarray], latency_s: float) -> Episode:
    steps = [0, *np.cumsum([len(chunk) for chunk in chunks]).tolist()]
    return Episode(
        task=PUSHT,
        seed=seed,
        states=np.zeros((steps[-1] + 1, 5)),
        scores=np.full(steps[-1], coverage),
        chunks=tuple(
            Chunk(step, 4, 40, 0.0, True, (), 1, latency_s, actions, 0)
            for step, actions in zip(steps, chunks, strict=False)
        ),
        first_sample=np.empty((0, 2)),
    )


def test_actions_find_their_chunk() -> None:
    first, second = line(0, 8), line(100, 8)
    # Action 3 is played twice as nothing else is due, and the first two of the second are late.
    played = np.concatenate([first[1:4], first[3:4], second[2:6]])
    assert segments(played, [first, second]) == [(0, 0, 4), (1, 4, 8)]


def test_frozen_actions_count_for_the_chunk_that_decided_them() -> None:
    first = line(0, 8)
    second = np.concatenate([first[4:6], line(200, 6)])
    played = np.concatenate([first[:6], second[2:5]])
    assert segments(played, [first, second]) == [(0, 0, 6), (1, 6, 9)]


def test_a_chunk_that_was_never_played_is_passed_over() -> None:
    played = np.concatenate([line(0, 2), line(200, 2)])
    assert segments(played, [line(0, 4), line(100, 4), line(200, 4)]) == [(0, 0, 2), (2, 2, 4)]


def test_an_action_out_of_nowhere_is_an_error() -> None:
    with pytest.raises(ParaPolicyError, match=r"action 1 of the episode, .* is in none of the 1"):
        segments(np.array([[0.0, 0.0], [0.5, 0.0]]), [line(0, 4)])


def test_numbers_of_known_episodes(tmp_path: Path) -> None:
    smooth, jumping = [line(0, 8), line(8, 8)], [line(0, 8), line(20, 8)]
    runs = {
        name: [
            episode(seed, 0.95 if name == "in_process" else 0.475, chunks, 0.25) for seed in SEEDS
        ]
        for name, chunks in zip(NAMES, [smooth, jumping, jumping, smooth, smooth], strict=True)
    }
    document = summarize(runs, CONDITIONS, "in_process", margin=0.05)
    result = document["conditions"]["compensated, 0 ms"]
    assert result["mean_max_reward"] == pytest.approx(0.5)
    assert result["minus_reference"]["difference"] == pytest.approx(-0.5)
    assert not result["minus_reference"]["equivalent"]
    # 10 px/s everywhere, but 130 px/s over the seam from 7 to 20.
    assert result["seams"]["velocity_jump_px_per_s"]["seam"]["mean"] == pytest.approx(120)
    assert result["latency_ms"]["p50"] == pytest.approx(250)
    assert result["actions_per_chunk"] == 8
    smooth_seam = document["conditions"]["chunking_hard, 0 ms"]["seams"]["velocity_jump_px_per_s"]
    assert smooth_seam["seam"]["mean"] == pytest.approx(0, abs=1e-9)
    assert len(table(document).splitlines()) == 2 + len(NAMES)
    in_process, over_ros, *_ = table(document).splitlines()[2:]
    assert "| 0 (0) | 0 (0) |" in in_process
    assert in_process.endswith("| - |")
    assert over_ros.endswith("| 250 / 250 |")
    plots.save(figure, document, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").stat().st_size > 1000


def test_a_reference_over_ros_has_a_latency_too() -> None:
    runs = {name: [episode(7, 0.95, [line(0, 8)], 0.25)] for name in ("clean", "all")}
    conditions = {name: DisturbedCondition(1, Disturbance()) for name in runs}
    document = summarize(runs, conditions, "clean", margin=0.05)
    clean, disturbed = table(document).splitlines()[2:]
    assert clean.endswith("| 250 / 250 |")
    assert disturbed.endswith("| 250 / 250 |")


def test_holds_are_repeated_actions() -> None:
    chunks = [np.concatenate([line(0, 3), line(2, 1), line(2, 1)]), line(5, 3)]
    assert holds(episode(0, 0.5, chunks, 0.1)) == 2


def test_finished_episodes_are_not_played_again(tmp_path: Path) -> None:
    identities = {name: {"of": name} for name in NAMES}
    partial = PartialResults(tmp_path / "x.partial.jsonl", Episode.reader(PUSHT), identities)
    runs = Runs(partial, NAMES)
    done = "compensated, 100 ms"
    for seed in (7, 8, 10):
        runs.keep(done, episode(seed, 0.5, [line(0, 8)], 0.1))
    again = Runs(partial, NAMES)
    assert again.missing(done, SEEDS) == [9, 11]
    blocks = list(_blocks(Arguments(json=Path("unused"), block=2), CONDITIONS, again, SEEDS))
    of_done = [seeds for name, seeds in blocks if name == done]
    assert of_done == [[9], [11]]
    # The conditions take turns, and not always in the same order.
    orders = [
        [name for name, seeds in blocks if set(seeds) <= set(part)] for part in ((7, 8), (9, 10))
    ]
    assert sorted(orders[1]) == sorted(CONDITIONS)
    assert [name for name in orders[1] if name != done] != orders[0]


def test_other_circumstances_begin_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.partial.jsonl"

    def runs(steps: int) -> Runs:
        identities = {name: {"steps": steps} for name in NAMES}
        return Runs(PartialResults(path, Episode.reader(PUSHT), identities), NAMES)

    runs(16).keep("in_process", episode(7, 0.5, [line(0, 8)], 0.1))
    other = runs(100)
    assert other.missing("in_process", [7]) == [7]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--modes", "magic"], "unknown mode 'magic'"),
        (["--episodes", "0"], "--episodes is 0; expected 1 or more"),
        (["--checkpoint", "/nowhere"], "no checkpoint at '/nowhere'"),
        (["nobody/nothing-at-all"], "the Hugging Face Hub does not give it"),
    ],
)
def test_bad_input_ends_in_one_line(
    tmp_path: Path,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pytest.importorskip("rclpy")
    assert main(["--json", str(tmp_path / "out.json"), *arguments]) == 2
    assert reason in capsys.readouterr().err
