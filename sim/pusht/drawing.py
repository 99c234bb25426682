"""Picture of the board: the T, its goal, the agent and the chunk that the policy predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sim.pusht.env import BOARD_SIZE, GOAL_POSE
from sim.tasks.episode import Chunk, Episode
from sim.tasks.task import Array

T_OUTLINE = np.array(
    [[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], float
)
"""Corners of the T in its own frame, pixels, in the order of drawing."""
AGENT_RADIUS = 15.0
SUPERSAMPLING = 2

Color = tuple[int, int, int]
BACKGROUND: Color = (250, 250, 248)
MUTED: Color = (110, 116, 124)
GOAL: Color = (178, 222, 183)
GOAL_EDGE: Color = (140, 200, 148)
BLOCK: Color = (124, 138, 158)
BLOCK_EDGE: Color = (88, 101, 120)
AGENT: Color = (43, 98, 191)
EXECUTED: Color = (226, 99, 30)
REST: Color = (140, 86, 189)
WALL: Color = (205, 208, 212)


@dataclass(frozen=True)
class Moment:
    """What one picture shows."""

    step: int
    state: Array
    chunk: Chunk
    n_actions: int
    """How many actions of the chunk are executed."""


def moments(episode: Episode) -> list[Moment]:
    """One moment per state: before the first action and after each one."""
    starts = [chunk.step for chunk in episode.chunks]
    ends = [*starts[1:], episode.steps]
    shown = []
    for step, state in enumerate(episode.states):
        index = int(np.searchsorted(starts, step, side="right")) - 1
        shown.append(Moment(step, state, episode.chunks[index], ends[index] - starts[index]))
    return shown


def draw(moment: Moment, size: int = 480) -> NDArray[np.uint8]:
    """The board, (size, size, 3) RGB."""
    board = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING), BACKGROUND)
    canvas = ImageDraw.Draw(board, "RGBA")
    scale = size * SUPERSAMPLING / BOARD_SIZE
    edge = 5 * scale
    canvas.rectangle(
        (edge, edge, board.width - edge, board.height - edge), outline=WALL, width=round(3 * scale)
    )
    _polygon(canvas, np.array(GOAL_POSE), GOAL, GOAL_EDGE, scale)
    _polygon(canvas, moment.state[2:], BLOCK, BLOCK_EDGE, scale)
    _disc(canvas, moment.state[:2], AGENT_RADIUS, (*AGENT, 255), scale)
    _draw_chunk(canvas, moment, scale)
    return np.asarray(board.reduce(SUPERSAMPLING))


def _polygon(
    canvas: ImageDraw.ImageDraw, pose: Array, color: Color, outline: Color, scale: float
) -> None:
    x, y, angle = pose
    c, s = np.cos(angle), np.sin(angle)
    corners = (T_OUTLINE @ np.array([[c, s], [-s, c]]) + [x, y]) * scale
    canvas.polygon(
        [tuple(corner) for corner in corners], fill=color, outline=outline, width=round(2 * scale)
    )


def _disc(
    canvas: ImageDraw.ImageDraw, centre: Array, radius: float, color: tuple[int, ...], scale: float
) -> None:
    x, y, r = centre[0] * scale, centre[1] * scale, radius * scale
    canvas.ellipse((x - r, y - r, x + r, y + r), fill=tuple(color))


def _draw_chunk(canvas: ImageDraw.ImageDraw, moment: Moment, scale: float) -> None:
    """Executed actions in orange, the rest of the horizon in violet; those past are faint."""
    chunk = moment.chunk
    first, last = chunk.first_action, chunk.first_action + moment.n_actions
    done = first + moment.step - chunk.step
    points = chunk.prediction[first:]
    path = [tuple(point * scale) for point in points]
    canvas.line(path, fill=(*MUTED, 90), width=round(1.5 * scale))
    for index, point in reversed(list(enumerate(points, start=first))):
        color = EXECUTED if index < last else REST
        ahead = (index - first) / max(1, len(points) - 1)
        alpha = 60 if index < done else round(255 - 130 * ahead)
        _disc(canvas, point, 4.5, (*color, alpha), scale)
