"""Checks of arguments of classes of the original diffusion_policy project."""

from __future__ import annotations

from pydantic import AfterValidator, BaseModel, ConfigDict


class Options(BaseModel):
    """Arguments of a class; those that are not listed are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def only(allowed: object, why: str) -> AfterValidator:
    """Refuse every other value of an option."""

    def check(value: object) -> object:
        if value != allowed:
            raise ValueError(f"expected {allowed!r}; {why}")
        return value

    return AfterValidator(check)
