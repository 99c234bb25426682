"""Replay of a whole bag: all robots, with the policy and threads of the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from para_policy.checkpoints.load import make_policy, read_checkpoint, resolve
from para_policy.errors import CheckpointError, DataError, InputError
from para_policy.execution.coordinates import UNKNOWN
from para_policy.inference import AUTO, EngineConfig
from para_policy.inference.device import check_device, expected_engine
from para_policy.policies.sampler_spec import SamplerSpec
from para_policy.ros.bags.comparison import Outcome, circumstances, judge
from para_policy.ros.bags.reader import Bag
from para_policy.ros.bags.records import Run, read_all_settings, read_run
from para_policy.ros.bags.replay import Replay
from para_policy.ros.bags.report import summarise
from para_policy.ros.bags.topics import recorded_policies
from para_policy.ros.messages.settings import RecordedSettings
from para_policy.terminal import progress_bars

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy


def replay_bag(
    path: Path,
    checkpoint: Path | None = None,
    device: str | None = None,
    other: SamplerSpec | None = None,
    plots: Path | None = None,
    on_run: Callable[[Mapping[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """Replay every run in a bag and return the report; see docs/recording.md for its keys.

    Args:
        checkpoint, device: None for those of the recording.
        other: a sampler to run beside the recorded one.
        plots: folder that receives figures.
        on_run: is given the report of each run before its figures are written.
    Raises:
        DataError: when the bag cannot be read or lacks what replaying needs.
        CheckpointError: when the policy cannot be loaded.
    """
    bag = Bag(path)
    settings = read_all_settings(bag)
    runs = [read_run(bag, node) for node in recorded_policies(bag.topics)]
    if not any(run.chunks for run in runs):
        raise DataError(
            f"bag '{path}' holds no chunk with its info; record ~/action_chunk and ~/chunk_info"
        )
    recorded = next(iter(settings.values()))
    policy, sha256 = _load(recorded, checkpoint, device)
    drawn: list[Path] = []
    with _threads(recorded.threads):
        replay = Replay(bag, settings, policy, sha256, other)
        reports = []
        for run in runs:
            reports.append(_report(replay, run, settings))
            on_run(reports[-1])
            if plots is not None:
                drawn += _draw(run, reports[-1], policy, plots, len(runs) > 1)
    return {
        "bag": str(path),
        "checkpoint": str(checkpoint or recorded.checkpoint),
        "warnings": [bag.incomplete] if bag.incomplete else [],
        "equal": all(_is_equal(report) for report in reports),
        "runs": reports,
        "plots": [str(path) for path in drawn],
    }


def _report(replay: Replay, run: Run, settings: Mapping[str, RecordedSettings]) -> dict[str, Any]:
    policy = replay.policy
    units = 1 / policy.normalizers["action"].scale.cpu().abs().numpy()
    differs = {
        name: circumstances(policy, replay.weights_sha256, recorded)
        for name, recorded in settings.items()
    }
    outcomes: list[Outcome] = []
    with progress_bars() as progress:
        for replayed in progress.track(replay.chunks(run), len(run.chunks), description=run.node):
            outcomes.append(judge(replayed, units, differs[replayed.record.settings]))
    coordinates = UNKNOWN
    if run.chunks:
        coordinates = replay.planner_settings(run.chunks[0]).action_coordinates
    report = summarise(run, outcomes, coordinates)
    if replay.other is not None:
        report["other_name"] = replay.other.label
    return report


def _draw(
    run: Run, report: Mapping[str, Any], policy: DiffusionPolicy, folder: Path, several: bool
) -> list[Path]:
    from para_policy.ros.bags.plots import save_plots

    prefix = run.node.strip("/").replace("/", "_") + "_" if several else ""
    return save_plots(run.chunks, report["seams"], policy.config.action_names, folder, prefix)


def _is_equal(report: Mapping[str, Any]) -> bool:
    """A run without chunks has nothing to differ in; one of which none can be compared has failed."""
    compared = report["equal"] + report["close"]
    return not report["different"] and bool(compared or not report["chunks"])


def _load(
    recorded: RecordedSettings, checkpoint: Path | None, device: str | None
) -> tuple[DiffusionPolicy, str]:
    chosen = recorded.checkpoint if checkpoint is None else str(checkpoint)
    try:
        directory = resolve(chosen)
        found = read_checkpoint(directory)
    except CheckpointError as error:
        if checkpoint is not None:
            raise
        raise CheckpointError(
            f"the checkpoint of the recording cannot be loaded ({error}); give --checkpoint DIR"
        ) from error
    where = check_device(device or str(recorded.values.get("device", "cpu")))
    engine = recorded.engine
    try:
        expected_engine(engine, where)
    except InputError:  # made on another machine; `circumstances` tells
        engine = EngineConfig(AUTO)
    return make_policy(found, directory, where, engine=engine), found.sha256


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many threads as in the recording: with others, sums are rounded in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
