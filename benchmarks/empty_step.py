"""A step that computes nothing, in a module that loads nothing: actors import it."""

from collections.abc import Mapping
from typing import Any

from w2s_ray.plan.configs import Config
from w2s_ray.plan.step import Kind, Step
from w2s_ray.store.drafts import Draft

KIND = Kind("student", 1, "benchmarks.empty_step")


class NoConfig(Config):
    """Nothing to say."""

    def as_json(self) -> dict[str, Any]:
        return {}


def empty_step(key: str) -> Step:
    """The step of this key."""
    return Step(KIND, key, "empty", NoConfig(), {})


def run(step: Step, inputs: Mapping[str, Any], draft: Draft, context: Any) -> None:
    """Writes a file, where the step is to be in a store."""
    (draft.folder / "file.bin").write_bytes(bytes(1024))


def nothing(step: Step, store: Any, context: Any) -> dict[str, Any]:
    """Its execution."""
    return {}
