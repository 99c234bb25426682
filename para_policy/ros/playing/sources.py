"""Whether more than one node sends the chunks that the executor plays."""

from __future__ import annotations

from collections.abc import Collection

from para_policy.ros.graph_checks import NAMELESS


class ChunkSources:
    """Notices a second publisher of chunks, but not a node that died and came back.

    A process that was killed stays in the graph until its DDS lease runs out (20 s with the
    defaults of Fast DDS). Its successor has the same name and counts its messages from 1 again;
    two living nodes of one name make the count step back time and again. Middleware that does
    not number messages (Humble) tells nothing of nodes of one name.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._steps_back = 0

    def heard(self, number: int | None) -> None:
        """A chunk has come; `number` counts the messages of its publisher."""
        if number is None:
            return
        if self._last is not None and number <= self._last:
            self._steps_back += 1
        self._last = number

    def problem(self, publishers: Collection[str]) -> str:
        """What is wrong with `publishers`, the node names of all in the graph; '': nothing."""
        if len(publishers) < 2:
            self._steps_back = 0
            return ""
        known = sorted({name for name in publishers if NAMELESS not in name})
        if len(known) < 2 and self._steps_back < 2:
            return ""
        return (
            f"{len(publishers)} publishers of action_chunk: {', '.join(known)}; expected one, "
            "stop the others"
        )
