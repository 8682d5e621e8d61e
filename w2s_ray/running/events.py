"""The events of a run, and who hears them."""

from collections.abc import Callable
from typing import Any

from w2s_ray.plan.step import Step

OnEvent = Callable[[str, Step, dict[str, Any]], None]
"""Takes ``started``, ``progress``, ``done``, ``failed`` or ``crashed``, the step, and numbers."""


def to_all(*listeners: OnEvent) -> OnEvent:
    """One listener that passes each event on to all of these, in this order."""

    def pass_on(event: str, step: Step, numbers: dict[str, Any]) -> None:
        for listener in listeners:
            listener(event, step, numbers)

    return pass_on
