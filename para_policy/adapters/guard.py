"""Guard of a policy's sampling method: the first call proves the acceleration, a fault ends it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from para_policy.adapters.account import Account
from para_policy.adapters.conventions import recognise
from para_policy.adapters.patch import HANDLE, accelerate
from para_policy.adapters.preferences import Preferences, is_off, preferences
from para_policy.adapters.proof import Randomness, prove
from para_policy.checkpoints.calibration import FOLDER
from para_policy.checkpoints.files import weights_sha256
from para_policy.errors import InputError, ParaPolicyError
from para_policy.inference.circumstances import describe_machine

_LOG = logging.getLogger("para_policy")


def guard(policy: Any, directory: Path | None = None) -> Account | None:
    """Let a policy that was loaded to act accelerate by itself, as its user prefers.

    Args:
        directory: of its checkpoint, if it is on this machine: for preferences and calibration.

    Returns:
        What becomes of it; None if it is left as it is, which the log says, too.
    """
    if is_off():
        return None
    try:
        return Guard(policy, preferences(directory), directory).account
    except ParaPolicyError as error:
        _LOG.warning("para_policy: %s is left as it is: %s", type(policy).__name__, error)
        return None


class Guard:
    """An acceleration that nobody asked for in code, and which must never do harm.

    It waits for the first call of the sampling method in evaluation mode. That call is made both ways, with
    the same noise, and answered by the policy's own loop; the policy is accelerated from then on if
    the other way was right and faster, and is as before if not. What goes wrong later ends it: the
    call is made again, with the same noise, by the policy's own loop. Where that has no finite answer
    either, as for an observation with NaN, nothing was proven and nothing ends.

    Args:
        policy: as for `accelerate`.
        preferences: how it is accelerated.
        directory: of the checkpoint, where a calibration may lie.

    Attributes:
        account: what became of the policy.

    Raises:
        InputError: for a policy that cannot be accelerated, or is guarded already.
    """

    def __init__(
        self, policy: Any, preferences: Preferences, directory: Path | None = None
    ) -> None:
        self.policy, self.preferences, self.directory = policy, preferences, directory
        self._convention = recognise(policy)
        self._owner, self._method = self._convention.owner, self._convention.method
        self._original = getattr(self._owner, self._method)
        self._own = vars(self._owner).get(self._method)
        if isinstance(getattr(self._own, "__self__", None), Guard):
            raise InputError("it accelerates by itself already")
        self.account = Account(
            type(policy).__name__,
            preferences.record,
            {
                "checkpoint": None if directory is None else str(directory),
                "preferences": preferences.model_dump(),
            },
        )
        self._way = self._first
        self._put(self._sample)

    def _put(self, method: Any) -> None:
        """Replace the sampling method; None: that of the class."""
        vars(self._owner).pop(self._method, None)
        if method is not None:
            vars(self._owner)[self._method] = method

    def _withdraw(self) -> None:
        """Leave the policy to itself; what others have put around our method stays."""
        self._way = self._original
        if vars(self._owner).get(self._method) == self._sample:
            self._put(self._own)

    # What the solver does with numbers of its rounds cannot be traced.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _sample(self, *args: Any, **kwargs: Any) -> Tensor:
        """In place of the sampling method, from the beginning to the end."""
        way = self._original if getattr(self._owner, "training", False) else self._way
        return way(*args, **kwargs)

    def _first(self, *args: Any, **kwargs: Any) -> Tensor:
        """The first call."""
        if getattr(self.policy, HANDLE, None) is not None:
            self._withdraw()
            self.account.leave("it is accelerated by code of its user")
            return self._original(*args, **kwargs)
        try:
            self._accelerate()
        except Exception as error:
            self._withdraw()
            self.account.leave(_said(error))
            return self._original(*args, **kwargs)
        allowed = self.preferences.allowed
        try:
            answer, proof = prove(self._original, self._faster, *args, allowed=allowed, **kwargs)
        except BaseException:  # of the policy itself: for who called it
            self.acceleration.undo()
            raise
        if not _is_finite(answer):
            self.acceleration.undo()
            return answer
        self.account.proof = self._proof = proof
        last = self.acceleration.last
        if proof.refusal or last is None:
            self.acceleration.undo()
            self._withdraw()
            self.account.leave(
                proof.refusal or "its calls are of a kind that only its own loop makes"
            )
        else:
            self.account.begin(proof, last)
            while len(self.acceleration.seen) > 1:  # of one observation
                self.acceleration.seen.pop()
            self._way = self._later
        return answer

    def _accelerate(self) -> None:
        chosen, calibrated = self.preferences, None
        if self.directory is not None and (self.directory / FOLDER).is_dir():
            calibrated = self.directory
        self.account.facts |= describe_machine(self.policy)
        if chosen.record is not None:
            self.account.facts["weights_sha256"] = weights_sha256(self._convention.weights())
        present = vars(self._owner).get(self._method)  # ours, maybe in a wrapper of others
        self._put(self._own)
        try:
            accelerate(
                self.policy,
                chosen.sampler,
                calibration=calibrated,
                engine=chosen.engine,
                precision=chosen.precision,
                deadline_s=chosen.deadline_s,
                tolerance=chosen.tolerance,
            )
            self.acceleration = getattr(self.policy, HANDLE)
            self._faster = vars(self._owner)[self._method]
        finally:
            self._put(present)

    def _later(self, *args: Any, **kwargs: Any) -> Tensor:
        """A call once the acceleration is proven."""
        before, last = Randomness.now(*args, *kwargs.values()), self.acceleration.last
        try:
            answer = self._faster(*args, **kwargs)
        except Exception as error:  # whatever it is, the robot goes on as before
            before.restore()
            answer = self._original(*args, **kwargs)
            if _is_finite(answer):
                self.acceleration.undo()
                self._withdraw()
                self.account.leave(_said(error))
            return answer
        if self.acceleration.last is not last:
            self.account.count(self._proof, self.acceleration.last)
        return answer


def _is_finite(answer: Tensor) -> bool:
    return bool(answer.isfinite().all())


def _said(error: Exception) -> str:
    """Ours say all in words."""
    return str(error) if isinstance(error, ParaPolicyError) else f"{type(error).__name__}: {error}"
