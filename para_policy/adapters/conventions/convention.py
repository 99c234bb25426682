"""Everything that differs between the projects whose policies are accelerated: `Convention`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from para_policy.adapters.call import Call
from para_policy.adapters.plan import Plan, Settings
from para_policy.errors import InputError

_M = TypeVar("_M")


class Convention(ABC):
    """How the policies of one project sample, bound to a policy of it.

    A subclass says where the sampling method is, how its call is read, how its network is called,
    and how its process is made. It keeps no state but the policy, so that copies of an accelerated
    policy are independent.

    Args:
        policy: any object.

    Attributes:
        title: for error messages, "a ...".
        entry: public method of the policy that takes one observation.
        place: attribute of the policy that owns the sampling method, with dots where it lies deeper;
            "" for the policy itself.
        method: name of the sampling method, which is replaced.
        required, optional: parameters of it.
        needs: further attributes of the owner.
        calibrates: whether `chord` and `collocation` can be calibrated on conditions of its network.
        policy, owner: the objects.

    Raises:
        InputError: what was looked for in the policy, and what was found instead.
    """

    title: ClassVar[str]
    entry: ClassVar[str]
    place: ClassVar[str] = ""
    method: ClassVar[str] = "conditional_sample"
    required: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    calibrates: ClassVar[bool] = True

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.owner: Any = _at(policy, self.place)
        place = f"{self.place}." if self.place else ""
        if self.owner is None:
            raise InputError(f"no attribute {self.place}")
        method = getattr(self.owner, self.method, None)
        if method is None:
            raise InputError(f"no method {place}{self.method}")
        found = _parameters(method)
        if not found:  # what was put over it in this object passes on whatever it gets
            found = _parameters(getattr(type(self.owner), self.method, method))[1:]
        if set(self.required) - set(found) or set(found) - {*self.required, *self.optional}:
            raise InputError(
                f"{place}{self.method} takes ({', '.join(found)}), "
                f"expected ({', '.join((*self.required, *self.optional))})"
            )
        missing = [name for name in self.needs if getattr(self.owner, name, None) is None]
        if missing:
            raise InputError(f"no attribute {', '.join(place + name for name in missing)}")

    def sample(
        self,
        solve: Callable[[Call], Tensor],
        original: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Answer a call of the sampling method.

        Args:
            solve: gives the sample of a call, in a tensor of its own.
            original: the method that is replaced, for calls that are better left to it.
            args, kwargs: of the call.
        """
        return solve(self.read(*args, **kwargs))

    @abstractmethod
    def read(self, *args: Any, **kwargs: Any) -> Call:
        """The arguments of the sampling method.

        Raises:
            InputError: if parallel sampling does not support them.
        """

    @abstractmethod
    def network(self) -> Callable[..., Tensor]:
        """The network as it is now: `network(x, t)` or `network(x, t, condition)`, rows (M, ...).

        Not asked for where a call brings its own. Engines run those that are modules, see `Named`.

        Raises:
            InputError: see `steady`.
        """

    @abstractmethod
    def plan(self, settings: Settings, loop_options: Mapping[str, Any]) -> Plan:
        """The process that the policy would sample with now, changed as the settings say.

        Raises:
            InputError: if it cannot be represented.
        """

    @abstractmethod
    def source(self, loop_options: Mapping[str, Any]) -> tuple[Any, ...]:
        """What `plan` reads of the policy: the plan holds as long as this is equal."""

    def layout(self) -> tuple[int, int] | None:
        """Actions of a chunk that are executed, and the first one's place in it; None if unknown."""
        return layout_of(getattr(self.policy, "config", None))

    @property
    def holder(self) -> nn.Module:
        """What holds the weights."""
        module: nn.Module = self.owner
        return module

    def weights(self) -> dict[str, Tensor]:
        """The weights that a calibration belongs to, by the names that they have in our own network.

        So it serves the checkpoint of the policy as well as the live one. Where we have no such
        network: by the project's names.
        """
        return as_ours(self.holder.state_dict())


class Named(nn.Module):
    """A module that is called as `network(x, t, condition)`.

    Args:
        name: of its parameter for conditions.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self._name = module, name

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        output: Tensor = self.module(x, t, **{self._name: condition})
        return output


def layout_of(told: Any) -> tuple[int, int] | None:
    """`Convention.layout` of what has `n_action_steps` and `n_obs_steps`, the first action being that
    of the last observation."""
    executed, observed = (getattr(told, name, None) for name in ("n_action_steps", "n_obs_steps"))
    return (executed, observed - 1) if executed and observed else None


def as_ours(
    weights: Mapping[str, Tensor],
    rename: Callable[[str], str] = lambda name: name,
    left_out: Callable[[str], object] = lambda name: None,
) -> dict[str, Tensor]:
    """Weights of a live object under other names, without what torch.compile puts into names.

    Args:
        left_out: truthy for what is no weight of our network.
    """
    bare = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
    return {rename(name): value for name, value in bare.items() if not left_out(name)}


def steady(network: _M, name: str) -> _M:
    """The same network.

    Raises:
        InputError: if its answers are random, or depend on the rest of a batch.
    """
    if (
        isinstance(network, nn.Module)
        and network.training
        and any(map(_unsteady, network.modules()))
    ):
        raise InputError(
            f"{name} is in training mode and has dropout or batch normalisation, so that "
            "each call gives another answer; call policy.eval() first"
        )
    return network


def _unsteady(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of parameters; none where it takes any arguments."""
    told = inspect.signature(function).parameters
    anything = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return () if {one.kind for one in told.values()} == anything else tuple(told)


def _at(policy: Any, place: str) -> Any:
    owner = policy
    for name in filter(None, place.split(".")):
        owner = getattr(owner, name, None)
    return owner
