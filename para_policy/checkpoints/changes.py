"""Changes to the configuration of a checkpoint whose files cannot be edited: `--set`, `--unset`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from para_policy.errors import InputError, ParaPolicyError

_T = TypeVar("_T")

REMOVED = object()
"""In place of a value: the key is taken out."""


def parse(texts: Sequence[str], removed: Sequence[str] = ()) -> dict[str, Any]:
    """Keys and values of "KEY=VALUE", values as in YAML; `REMOVED` for keys that are to go.

    Raises:
        InputError: for another form, a key given twice, or a value that is no YAML.

    >>> parse(["policy.n_action_steps=3", "policy.noise_scheduler.beta_schedule=linear"])
    {'policy.n_action_steps': 3, 'policy.noise_scheduler.beta_schedule': 'linear'}
    """
    changes: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or key in changes:
            raise InputError(f"--set {text!r}; expected KEY=VALUE, each key once")
        try:
            changes[key] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise InputError(
                f"--set {key}={value!r} is no YAML ({' '.join(str(error).split())})"
            ) from error
    for key in removed:
        if not key or key in changes:
            raise InputError(f"--unset {key!r}; expected KEY, each key once, and not in --set")
        changes[key] = REMOVED
    return changes


def read_changed(
    source: Path, config: Any, changes: Mapping[str, Any], read: Callable[[Any], _T]
) -> _T:
    """What `read` makes of a configuration with other values of some keys.

    Args:
        config: as it lies in `source`, left as it is.
        changes: by dotted key; `REMOVED` takes a key out.
        read: whose errors are passed on.

    Raises:
        InputError: for a key that has no place in the configuration, or is to go and is not there.

    Warns:
        UserWarning: for a change that makes no difference.
    """
    found = read(_changed(source, config, changes))
    for key in changes:
        others = {name: value for name, value in changes.items() if name != key}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                idle = read(_changed(source, config, others)) == found
        except ParaPolicyError:
            continue  # without it nothing could be read
        if idle:
            value = "" if changes[key] is REMOVED else f"={changes[key]!r}"
            warnings.warn(f"{_option(changes[key])} {key}{value} changes nothing", stacklevel=3)
    return found


def _changed(source: Path, config: Any, changes: Mapping[str, Any]) -> Any:
    config = copy.deepcopy(config) if changes else config
    for key, value in changes.items():
        inner, rest = config, key
        while True:
            if not isinstance(inner, dict):
                raise InputError(
                    f"{_option(value)} {key}: in '{source}' there is {inner!r:.80} at "
                    f"'{key.removesuffix(rest).rstrip('.')}', which has no keys"
                )
            name = _first(inner, rest)
            if name == rest:
                if value is not REMOVED:
                    inner[name] = value
                elif name in inner:
                    del inner[name]
                else:
                    raise InputError(f"--unset {key}: '{source}' has no such key")
                break
            inner, rest = inner[name], rest[len(name) + 1 :]
    return config


def _option(value: Any) -> str:
    """Name of the option that has asked for a change."""
    return "--unset" if value is REMOVED else "--set"


def _first(options: Mapping[str, Any], key: str) -> str:
    """Where a dotted key begins in `options`, whose own keys may have dots; all of it if it is new."""
    parts = key.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in options), key)
