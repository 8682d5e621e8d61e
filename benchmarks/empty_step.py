"""A step that computes nothing, in a module that loads nothing: actors import it."""

from typing import Any

from w2s_ray.plan.configs import Config
from w2s_ray.plan.step import Kind, Step

KIND = Kind("student", 1, "")


class NoConfig(Config):
    """Nothing to say."""

    def as_json(self) -> dict[str, Any]:
        return {}


def empty_step(key: str) -> Step:
    """The step of this key."""
    return Step(KIND, key, "empty", NoConfig(), {})


def nothing(step: Step, store: Any, context: Any) -> dict[str, Any]:
    """Its execution."""
    return {}
