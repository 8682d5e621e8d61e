"""``weak``, ``ceiling`` and ``student``, one step by itself.

What is trained decides which code runs, and what it has to import: a head on stored features needs
no transformers. Groups of steps go to ``train_heads`` and ``train_adapters`` directly.
"""

from collections.abc import Mapping

from w2s_ray.plan.configs import TrainConfig
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Context
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Trains the model; what is written is said by the two modules."""
    if step.config_as(TrainConfig).training.trainable == "last_layer":
        from w2s_ray.steps import train_heads

        train_heads.run(step, inputs, draft, context)
    else:
        from w2s_ray.steps import train_model

        train_model.run(step, inputs, draft, context)
