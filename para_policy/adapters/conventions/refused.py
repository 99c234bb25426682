"""Policies of LeRobot 0.6.1 that parallel sampling does not help, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

_ONE_PASS = "it takes no denoising steps: one pass of the network gives the actions"
_FOUR_STEPS = "it takes 4 Euler steps, and a parallel solve needs about as many rounds"
_ALIKE = "it takes 10 steps, and its network is told one time for a whole batch"

REFUSED: Mapping[str, str] = {
    "act": _ONE_PASS,
    "fastwam": _ALIKE,
    "gaussian_actor": _ONE_PASS,
    "groot": _FOUR_STEPS,
    "lingbot_va": "it denoises video and actions in turn, through a cache that outlives the chunk",
    "molmoact2": _ALIKE,
    "pi0_fast": "it takes no denoising steps: its actions are tokens, written one after the other",
    "tdmpc": "it takes no denoising steps: it plans in a learned model of the world",
    "vla_jepa": _FOUR_STEPS,
    "vqbet": _ONE_PASS,
    "wall_x": "it takes 10 steps, each through the whole model and the whole prompt, so that rows cost "
    "as much as steps",
    "xvla": "each of its 10 steps starts again from the noise, which are no Euler steps",
}
"""`name` of a policy's class to what `accelerate` says."""
