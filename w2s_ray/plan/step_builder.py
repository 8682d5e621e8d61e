"""What every part of the plan that adds steps asks of ``build.Builder``."""

from collections.abc import Mapping
from typing import Protocol

from w2s_ray.capacity.execution import Execution
from w2s_ray.plan.configs import Config
from w2s_ray.plan.step import Kind, Step
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.spec.schema import Spec


class StepBuilder(Protocol):
    """Its steps, and how one more is added; each part extends this by what it needs itself."""

    spec: Spec

    def prepare(self, data: str) -> Step: ...
    def add(
        self,
        kind: Kind,
        slug: str,
        config: Config,
        inputs: Mapping[str, str],
        execution: Execution = ...,
        *,
        model: str | None = None,
        data: str | DataSpec | None = None,
        second_model: str | None = None,
    ) -> Step: ...
