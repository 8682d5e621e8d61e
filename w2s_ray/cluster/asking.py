"""Asks the training loop of another process to end early (``training.early_end``)."""

from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from w2s_ray.training.early_end import ask

ANSWER_SECONDS = 5.0


def ask_worker(worker: Any) -> bool:
    """Whether the loop in the process of the actor ``worker`` will end; False if none is there."""
    with suppress(RayError):  # among them that it does not answer in time
        return bool(ray.get(worker.__ray_call__.remote(_ask), timeout=ANSWER_SECONDS))
    return False


def _ask(worker: Any) -> bool:
    return ask()
