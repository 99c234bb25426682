"""Common parts of the benchmarks: options, the policy under test, output, and colours of the plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tyro

from para_policy import comparison, load_policy
from para_policy.checkpoints.load import resolve
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import InputError
from para_policy.files import check_distinct, check_output_file, write_text
from para_policy.inference.device import set_threads
from para_policy.policies.policy import DiffusionPolicy
from para_policy.terminal import run
from sim import plots
from sim.plots import Document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One colour per method through all plots.
_METHODS = (
    "sequential",
    "paradigms",
    "parataa",
    "x0",
    "chord",
    "benchmarks.peers",
    "auto",
    "pcm",
    "collocation",
)


@dataclass(frozen=True)
class Common:
    """Options of every benchmark."""

    json: Path
    """Where the numbers go."""
    plot: Path | None = None
    """Where the plot goes (png, pdf or svg)."""
    checkpoint: Path = Path("checkpoints/pusht_state")
    """Checkpoint: directory, or its name on the Hugging Face Hub."""
    device: str = "cpu"
    """Where the network runs."""
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""

    @cached_property
    def directory(self) -> Path:
        """Of the checkpoint; the Hub is asked once. Raises CheckpointError if it has none."""
        return resolve(self.checkpoint)


@dataclass(frozen=True)
class Subject:
    """The policy under test and its shipped observations {name: (n, To, *shape)}."""

    policy: DiffusionPolicy
    observations: dict[str, np.ndarray]

    @property
    def available(self) -> int:
        """How many observations there are; calibration uses the second half."""
        return len(next(iter(self.observations.values())))

    def some(self, first: int, count: int) -> dict[str, np.ndarray]:
        """A batch of observations.

        Raises:
            InputError: if the checkpoint does not hold so many.
        """
        if count < 1 or first + count > self.available:
            raise InputError(
                f"{count} observations from {first} on asked for; "
                f"the checkpoint holds {self.available}"
            )
        return {name: values[first : first + count] for name, values in self.observations.items()}

    def unseen(self) -> dict[str, np.ndarray]:
        """The first half of the observations, which calibration does not use."""
        return self.some(0, max(self.available // 2, 1))


def load(options: Common) -> Subject:
    """Load what the options name.

    Raises:
        InputError: for options that cannot be used.
    """
    set_threads(options.threads)
    policy = load_policy(options.directory, device=options.device)
    return Subject(policy, read_observations(options.directory, policy.config))


def take_consistency(policy: DiffusionPolicy, options: Common, directory: Path) -> None:
    """Give the policy under test the PCM weights of a directory.

    Raises:
        CheckpointError: for weights that were trained on others.
    """
    trained = load_policy(options.directory, consistency=directory)
    policy.consistency_models = trained.consistency_models


def circumstances(options: Common, policy: DiffusionPolicy) -> dict[str, Any]:
    """What a figure means nothing without."""
    return {
        "checkpoint": str(options.checkpoint),
        "checkpoint_sha256": checkpoint_hash(options.directory),
        **comparison.describe_machine(policy.network, policy.runtime.in_use),
        **comparison.describe_software(),
    }


def colors_of(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each sampler, no two alike: the first of a method has the method's own."""
    labels = list(labels)
    own = zip(_METHODS, plots.COLORS, strict=False)
    return plots.colors(
        labels,
        {label: color for name, color in own for label in labels if label.startswith(name)},
    )


AnyOptions = TypeVar("AnyOptions", bound=Common)


def main(
    kind: type[AnyOptions],
    measure: Callable[[AnyOptions], dict[str, Any]],
    figure: Callable[[Document], Figure],
) -> None:
    """Command line of a benchmark: measure, write the numbers, draw the plot."""
    options = tyro.cli(kind)

    def command() -> None:
        check_output_file(options.json)
        check_distinct(options.json, options.plot)
        if options.plot is not None:
            plots.check_output(options.plot)
        document = measure(options)
        numbers = json.dumps(document, indent=1) + "\n"
        try:
            write_text(options.json, numbers)
        except InputError:  # the disk is full or gone, and measuring took hours
            print(numbers)
            raise
        print(f"numbers: {options.json}")
        if options.plot is not None:
            plots.save(figure, document, options.plot)
            print(f"plot: {options.plot}")

    sys.exit(run(command))


def quantiles(values: Any) -> dict[str, float]:
    """Median, 95th and 99th percentile and largest of `values`; empty where there are none."""
    if not len(values):
        return {}
    return {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99, 100)}


def run_within_limits(command: Callable[[], None], broken: Sequence[str]) -> int:
    """Exit code of `command`, as of `terminal.run`; 1 when it has put sentences into `broken`."""
    code = run(command)
    for sentence in broken:
        print(f"limit broken: {sentence}", file=sys.stderr)
    return code or int(bool(broken))
