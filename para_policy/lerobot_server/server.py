"""LeRobot's `PolicyServer` that accelerates policies and gives them the observations that they need."""

from __future__ import annotations

import logging
import math
import pickle
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any

import grpc
import torch
from lerobot.async_inference import constants, helpers
from lerobot.async_inference.configs import PolicyServerConfig
from lerobot.configs.types import PolicyFeature
from lerobot.policies.utils import populate_queues
from lerobot.transport import services_pb2
from lerobot.utils.constants import ACTION, OBS_IMAGES
from torch import Tensor

from para_policy.adapters.account import Account
from para_policy.adapters.guard import guard
from para_policy.checkpoints.load import resolve
from para_policy.errors import InputError, NonFiniteError, ParaPolicyError
from para_policy.lerobot_server.clients import Clients
from para_policy.lerobot_server.features import check_features, check_finite, image_sizes
from para_policy.lerobot_server.history import History
from para_policy.lerobot_server.messages import Part, joined, read
from para_policy.terminal import notes

# While the class is made it asks for a logger, and LeRobot's way makes a folder "logs" here.
_get_logger, helpers.get_logger = helpers.get_logger, logging.getLogger
try:
    from lerobot.async_inference.policy_server import PolicyServer
finally:
    helpers.get_logger = _get_logger

_ADDED_POLICIES = ("multi_task_dit",)
"""Policies that LeRobot's server leaves out, and that work with a history."""
_WAIT_S = 0.5
"""How long a client that asks for actions waits for its own observation before it asks again."""
_LONGEST_LINE = 2000
"""Characters of an error; gRPC carries no more than 8 kB of it."""
_NONE = -1
"""Step before the first one."""
_LOST_S = 1.0
"""A robot whose step has not changed for so long after a chunk for it has not got the chunk."""
_SHORTEST = 2
"""Actions in a chunk: LeRobot's client drops the one of the step that it has just executed."""


@dataclass
class _Seen(helpers.TimedObservation):
    """An observation and those before it: `window`, raw as the robot gave them, the newest last."""

    window: tuple[Any, ...] = ()


@dataclass
class Counts:
    """What was done since the start: chunks that were answered, and seconds of work for them."""

    chunks: int = 0
    seconds: float = 0.0


class Server(PolicyServer):
    """Server of one robot at a time; a client that connects takes over, see `Clients`.

    Different from LeRobot's own:

    - Policies are accelerated, if they prove at their first observation that it is right and faster.
    - Policies with several observation steps get them. An observation without those before it only
      counts if the robot has no actions left.
    - No observation is left out because the robot has hardly moved; see `still`.
    - An error reaches the client, in one line, and the observation may be sent again; so may one whose
      chunk was lost on its way.
    - What does not fit the policy is refused before it moves the robot, and so are NaN and infinity.
    - Policies that fit images themselves get them as they are, as in LeRobot's training and other programs.
    - Messages are read as data, by `messages.read`.
    - Chunks are answered as soon as they are there.

    Args:
        fps: actions per second, for their time stamps.
        still: norm, in the units of the robot's state, below which a change of the state asks for no
            new chunk; 0 to plan for every observation. LeRobot has 1.

    Attributes:
        counts: what was done.
        accounts: what became of the policies that can be accelerated.
    """

    def __init__(self, fps: int = 30, still: float = 0.0) -> None:
        super().__init__(
            PolicyServerConfig(fps=fps, inference_latency=0, obs_queue_timeout=_WAIT_S)
        )
        self.last_processed_obs: Any = None
        self.counts = Counts()
        self.accounts: list[Account] = []
        self._still = still
        self._history = History()
        self._newest = _NONE
        self._loaded = False
        self._answered_s = 0.0
        self._clients = Clients()
        self._working = threading.Lock()
        self._taking = threading.Lock()
        for kind in _ADDED_POLICIES:
            if kind not in constants.SUPPORTED_POLICIES:
                constants.SUPPORTED_POLICIES.append(kind)

    def Ready(self, request: Any, context: Any) -> Any:
        with self._working, self._taking:
            self._clients.ready(context.peer())
            self._newest, self.last_processed_obs, self._loaded = _NONE, None, False
            return super().Ready(request, context)

    def SendPolicyInstructions(self, request: Any, context: Any) -> Any:
        with self._answering(context), self._working:
            self._clients.check(context.peer())
            self._loaded = False
            specs = read(request.data, helpers.RemotePolicyConfig)
            # Unpickled there: what was read, and not what came.
            own = services_pb2.PolicySetup(data=pickle.dumps(specs))
            answer = super().SendPolicyInstructions(own, context)
            for line in check_features(specs, self.policy.config):
                say(line)
            lengths = [queue.maxlen for queue in self._queues.values()]
            self._history = History(max(lengths, default=1))
            name = specs.pretrained_name_or_path
            account = guard(self.policy, resolve(name))
            if account is not None:
                self.accounts.append(account)
            self._loaded = True
            say(f"{context.peer()}: {specs.policy_type} {name} on {specs.device}")
            return answer

    def SendObservations(self, request_iterator: Iterable[Part], context: Any) -> Any:
        with self._answering(context):
            seen = read(joined(request_iterator), helpers.TimedObservation)
            check_finite(seen.get_observation())
            with self._taking:  # another one may have connected while this one was on its way
                self._clients.check(context.peer())
                self._history.add(seen.get_timestep(), seen.get_observation())
                self._enqueue_observation(_Seen(**vars(seen), window=self._history.window))
            return services_pb2.Empty()

    def GetActions(self, request: Any, context: Any) -> Any:
        with self._answering(context):
            try:
                seen = self.observation_queue.get(timeout=self.config.obs_queue_timeout)
            except Empty:
                return services_pb2.Actions()
            with self._working:
                self._clients.check(context.peer())  # as above
                return services_pb2.Actions(data=pickle.dumps(self._planned(seen)))

    def _planned(self, seen: _Seen) -> list[helpers.TimedAction]:
        if not self._loaded:
            raise InputError("no policy is loaded; start the robot client again")
        started, before = time.monotonic(), self._newest
        self._newest, self._answered_s = seen.get_timestep(), math.inf
        try:
            chunk = self._predict_action_chunk(seen)
        except Exception:
            self._newest, self.last_processed_obs = before, None
            raise
        self._answered_s = time.monotonic()
        self.counts.chunks += 1
        self.counts.seconds += self._answered_s - started
        return chunk

    def _obs_sanity_checks(self, obs: _Seen, previous_obs: _Seen) -> bool:
        """Whether an observation is planned for; LeRobot asks where the robot has actions left."""
        if not self._history.complete or obs.get_timestep() < self._newest:
            return False
        if obs.get_timestep() == self._newest:
            return time.monotonic() - self._answered_s > _LOST_S
        compared = obs, previous_obs, self.lerobot_features
        return not (self._still and helpers.observations_similar(*compared, atol=self._still))

    @property
    def policy_image_features(self) -> dict[str, PolicyFeature]:
        return image_sizes(self.lerobot_features, self.policy.config)

    def _predict_action_chunk(self, observation_t: _Seen) -> list[helpers.TimedAction]:
        """Actions for an observation and those before it, of which each is preprocessed once."""
        for queue in self._queues.values():
            queue.clear()  # the first one fills it up, as at the beginning of an episode
        # Before LeRobot preprocesses the newest: a state that a step keeps for the actions is that one's.
        for raw in observation_t.window[:-1]:
            features = self.lerobot_features, self.policy_image_features
            self._see(self.preprocessor(helpers.raw_observation_to_observation(raw, *features)))
        actions: list[helpers.TimedAction] = super()._predict_action_chunk(observation_t)
        return actions

    def _get_action_chunk(self, observation: dict[str, Tensor]) -> Tensor:
        """Chunk (1, n, action_dim) for what was seen and this preprocessed observation."""
        if self._queues:
            observation = self._see(observation)
        chunk: Tensor = super()._get_action_chunk(observation)
        if chunk.shape[1] < _SHORTEST:
            raise InputError(
                f"a chunk has {chunk.shape[1]} action; LeRobot's client drops the first of each, so that the "
                f"robot would not move: set actions_per_chunk and n_action_steps to {_SHORTEST} or more"
            )
        if not chunk.isfinite().all():
            raise NonFiniteError(
                "the policy answers with NaN or infinity, which is kept from the robot"
            )
        return chunk

    def _see(self, preprocessed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Append an observation to those that the policy has seen; so does its `select_action`."""
        batch = {name: value for name, value in preprocessed.items() if name != ACTION}
        if OBS_IMAGES in self._queues:
            cameras = [batch[name] for name in self.policy.config.image_features]
            batch[OBS_IMAGES] = torch.stack(cameras, dim=-4)
        populate_queues(self._queues, batch)
        return batch

    @property
    def _queues(self) -> dict[str, Any]:
        """Last observations of the policy, by name; empty for a policy that keeps none."""
        queues = getattr(self.policy, "_queues", None) or {}
        return {name: queue for name, queue in queues.items() if name != ACTION}

    @contextmanager
    def _answering(self, context: Any) -> Iterator[None]:
        """What goes wrong within is one line here and at the client, and the server lives on."""
        try:
            with self._clients.call(context.peer()):
                yield
        except Exception as error:
            line = " ".join(str(error).split())[:_LONGEST_LINE] or type(error).__name__
            say(f"error: {context.peer()}: {line}")
            ours = isinstance(error, ParaPolicyError)
            status = grpc.StatusCode
            context.abort(status.FAILED_PRECONDITION if ours else status.INTERNAL, line)


def say(line: str) -> None:
    """Tell what happens, on stderr."""
    notes().print(line, markup=False, highlight=False, soft_wrap=True)
