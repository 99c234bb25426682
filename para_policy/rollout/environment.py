"""Gymnasium environments as a policy sees them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from para_policy.errors import InputError, ParaPolicyError
from para_policy.extras import extra
from para_policy.policies.config import PolicyConfig
from para_policy.policies.sampler_spec import parse_options

# What pygame reads when it is imported: draw without a display, and print no greeting.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

with extra("sim", "--rollout"):
    import gymnasium

_ALIASES = {
    "observation.state": "agent_pos",
    "observation.environment_state": "environment_state",
    "observation.image": "pixels",
    "image": "pixels",
}
"""What LeRobot calls that which its environments observe."""
_LEROBOT_CAMERA, _CAMERA = "observation.images.", "pixels."


class Environment:
    """One environment, which observes what a policy takes.

    Args:
        spec: `NAME` or `NAME:OPTION=VALUE,...`, as `gymnasium.make` takes them. The package of a
            name such as "gym_pusht/PushT-v0" is imported.

    Raises:
        MissingPackageError: if gymnasium is not installed.
        InputError: if it cannot be made, or does not take the policy's actions.
    """

    def __init__(self, spec: str, config: PolicyConfig) -> None:
        head, _, rest = spec.rpartition(":")
        self._name, text = (head, rest) if head and "=" in rest else (spec, "")
        options: dict[str, Any] = {}
        if text:
            options |= parse_options(text, f"environment {spec!r}")
        self._config = config
        with self._playing():
            package = self._name.partition("/")[0]
            if "/" in self._name and package.isidentifier() and importlib.util.find_spec(package):
                importlib.import_module(package)
            self._env: Any = gymnasium.make(self._name, disable_env_checker=True, **options)
        found = getattr(self._env.action_space, "shape", None)
        if found != (config.action_dim,):
            raise InputError(
                f"environment {self._name!r} takes actions of shape {found}; the policy's are "
                f"({config.action_dim},)"
            )

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Begin an episode: the first observation {input: (*shape)}."""
        with self._playing():
            observation, _ = self._env.reset(seed=seed)
            return self._named(observation)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], bool]:
        """Take an action: the next observation, and whether the episode is over."""
        with self._playing():
            observation, _, terminated, truncated, _ = self._env.step(action)
            return self._named(observation), bool(terminated or truncated)

    def close(self) -> None:
        self._env.close()

    def _named(self, observation: Any) -> dict[str, np.ndarray]:
        """An observation under the names, and in the shapes, of the policy's inputs."""
        parts = dict(_flat(observation))
        return {
            name: self._shaped(name, self._part(name, parts), shape)
            for name, shape in self._config.inputs.items()
        }

    def _part(self, name: str, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        if list(parts) == [""] and len(self._config.inputs) == 1:
            return parts[""]
        camera = _CAMERA + name.removeprefix(_LEROBOT_CAMERA)
        for candidate in (name, _ALIASES.get(name, ""), camera):
            if candidate in parts:
                return parts[candidate]
        raise InputError(
            f"environment {self._name!r} observes {sorted(parts)}; the policy needs {name!r}. Give "
            f"options of the environment, as in {self._name}:obs_type=pixels_agent_pos"
        )

    def _shaped(self, name: str, part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        camera = name in self._config.cameras
        values = np.moveaxis(part, -1, 0) if camera and part.ndim == 3 else part
        fits = values.shape == shape if camera else values.size == np.prod(shape)
        if not fits or (camera and values.dtype != np.uint8):
            raise InputError(
                f"environment {self._name!r} observes {name!r} as {part.dtype} {part.shape}; the "
                f"policy needs {'uint8 ' if camera else ''}{shape}"
            )
        return values if camera else values.astype(np.float32).reshape(shape)

    @contextmanager
    def _playing(self) -> Iterator[None]:
        """Turn what goes wrong in another project's code into one line."""
        try:
            yield
        except ParaPolicyError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"environment {self._name!r} does not work: {reason}; expected a name that "
                "gymnasium.make knows, such as gym_pusht/PushT-v0, with its own options"
            ) from error


def _flat(observation: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of nested dictionaries, with names joined by dots."""
    if not isinstance(observation, Mapping):
        yield prefix, np.asarray(observation)
        return
    for key, value in observation.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
