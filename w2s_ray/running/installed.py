"""Refuses a study whose steps need a package that is not installed, before anything is spent."""

from collections.abc import Mapping

from w2s_ray.extras import require
from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.step import Step


def check_installed(todo: Mapping[str, Step], *, local: bool) -> None:
    """Checks the optional packages of the steps ``todo``; GGUF files and Hub data check theirs.

    Args:
        local: the steps run in one process, where several workers are not started.

    Raises:
        InputError: a package is absent; the line names what needs it and how it is installed.
    """
    for step in todo.values():
        if not isinstance(step.config, TrainConfig):
            continue
        execution, at = step.execution, f"to train {step.slug}"
        if execution.offload != "none":
            given = f"execution.offload: given {execution.offload} {at}"
            require("deepspeed", given, ("execution", "offload"))
        elif execution.uses_deepspeed and not local:
            given = f"execution.workers: given {execution.workers} {at}"
            require("deepspeed", given, ("execution", "workers"))
        if step.config.training.lora is not None:
            require("peft", f"grid.trainable: given lora {at}", ("grid", "trainable"))
