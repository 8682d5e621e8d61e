"""The resolved settings by which the models of a cell are trained."""

from functools import lru_cache

from w2s_ray.data.rendering import Rendering
from w2s_ray.plan.configs import Training
from w2s_ray.spec import training as written
from w2s_ray.spec.expansion import CellPoint
from w2s_ray.spec.fields import Trainable


class Trainings:
    """Those of one spec; equal settings are one object.

    Args:
        training: as written in the spec.
    """

    def __init__(self, training: written.Training) -> None:
        self._written = training
        self._resolved = lru_cache(maxsize=None)(self._resolve)

    def strong(self, point: CellPoint) -> Training:
        """Settings of student and ceiling."""
        return self._resolved(
            point.trainable,
            point.learning_rate,
            point.epochs,
            point.batch_size,
            point.weight_decay,
            point.readout_block,
            self._written.evaluations,
        )

    def weak(self, point: CellPoint) -> Training:
        """Settings of the weak model: the student's, unless the spec overrides them."""
        weak = self._written.weak
        return self._resolved(
            weak.trainable or point.trainable, weak.learning_rate, weak.epochs, weak.batch_size
        )

    def _resolve(
        self,
        trainable: Trainable,
        learning_rate: float | None,
        epochs: int | None,
        batch_size: int | None,
        weight_decay: float = 0.0,
        readout_block: int | None = None,
        evaluations: int = 1,
    ) -> Training:
        training = self._written
        return Training(
            trainable=trainable,
            learning_rate=learning_rate or getattr(training.learning_rate, trainable),
            epochs=epochs or training.epochs,
            batch_size=batch_size or training.batch_size,
            max_length_tokens=training.max_length_tokens,
            precision=training.precision,
            schedule=training.schedule,
            clip_norm=training.clip_norm,
            adam_betas=training.adam_betas,
            adam_epsilon=training.adam_epsilon,
            solver=training.solver if trainable == "last_layer" else None,
            lora=training.lora if trainable == "lora" else None,
            rendering=Rendering(training.render, training.bos),
            identical_pairs=training.identical_pairs,
            evaluations=evaluations,
            weight_decay=weight_decay,
            readout_block=readout_block,
        )
