"""Options of the engine benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.common import Common
from benchmarks.engine.policies import ON_CPU, ON_GPU, parse
from benchmarks.engine.synthetic import PUBLISHED
from para_policy.comparison import REFERENCE
from para_policy.errors import InputError
from para_policy.inference import EngineConfig


@dataclass(frozen=True)
class Options(Common):
    """Calls, chunks, deadlines and batches on every engine that works here, against the roofline.

    Needs a checkpoint that is calibrated for DDPM 100 and DDIM 16. Under ten minutes on two cores.
    The parts that matter most come first, and after each of them the numbers are written.
    """

    engines: tuple[str, ...] = ()
    """BACKEND or BACKEND:PRECISION, several; by default all that the device may have."""
    best: str | None = None
    """BACKEND or BACKEND:PRECISION for the parallel samplers; by default cuda-graph on a GPU, and
    elsewhere the fastest at 64 rows."""
    precision: str = "float32"
    """The best is looked for among engines of this precision."""
    samplers: tuple[str, ...] = (
        REFERENCE,
        "paradigms",
        "parataa:order=10,history=3,window=20",
        "pcm",
        "chord",
        "collocation",
    )
    """What takes turns, on the eager engine and on the best one."""
    chunks: int = 200
    """Chunks of each case; fewer where a chunk is dear and the time does not suffice."""
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 48, 64, 100, 128)
    """Sizes of network calls."""
    robots: tuple[int, ...] = (1, 4, 8, 16, 64)
    """Robots in a batch."""
    networks: tuple[str, ...] = tuple(PUBLISHED)
    """Published networks that are timed with random weights, the most important first."""
    image: str | None = "config/training/pusht_image.yaml"
    """Configuration of an image policy, timed with random weights; None for nothing."""
    budget_s: float = 540.0
    """Seconds for everything but starting up. What does not fit is left out; what has begun is
    brought to an end, which can be one compilation or a few chunks longer."""

    def wanted(self) -> list[EngineConfig]:
        """The engines to be measured.

        Raises:
            InputError: for unknown names.
        """
        return [
            parse(text) for text in self.engines or (ON_CPU if self.device == "cpu" else ON_GPU)
        ]

    def check(self) -> None:
        """Raise InputError for what cannot be measured."""
        if self.chunks < 1 or self.budget_s <= 0:
            raise InputError(
                f"--chunks is {self.chunks} and --budget-s {self.budget_s:g}; "
                "expected at least 1 and more than 0"
            )
        for name in ("rows", "robots"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise InputError(
                    f"--{name} is {getattr(self, name)}; expected numbers of 1 or more"
                )
        unknown = sorted(set(self.networks) - set(PUBLISHED))
        if unknown:
            raise InputError(f"--networks {unknown} unknown; expected some of {list(PUBLISHED)}")
