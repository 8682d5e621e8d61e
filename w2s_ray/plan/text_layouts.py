"""How the steps of a study of generated text are run: one process generates, one or more train."""

from collections.abc import Sequence
from dataclasses import replace

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.fit_gpus import choose_layout
from w2s_ray.capacity.generation import generation_bytes
from w2s_ray.capacity.gpu_types import gpu_types
from w2s_ray.capacity.layout import Constraints, Workload
from w2s_ray.capacity.machines import planned_gpu
from w2s_ray.capacity.memory import adapter_parameters, gib
from w2s_ray.capacity.token_budgets import DECODED_ROWS_CANDIDATES
from w2s_ray.catalog.shapes import Shape, shape
from w2s_ray.errors import InputError
from w2s_ray.plan.configs import Training
from w2s_ray.plan.layouts import written_execution
from w2s_ray.plan.text_cost import OF_MAXIMUM
from w2s_ray.spec.generation import GenerationSpec

TEXTS = 2
"""Answers of a row: a pair's, which share their prompt."""


class TextLayouts:
    """The executions of the steps of one spec.

    Raises:
        InputError: the GPU or machine type is not known; ``place`` names the field.
    """

    def __init__(self, spec: GenerationSpec) -> None:
        self._spec, written = spec, spec.execution
        self._gpu = planned_gpu(written)
        self._written = replace(written_execution(written), offload="none")
        self._alone = replace(self._written, workers=1, min_workers=None)
        self._shapes: dict[str, Shape | None] = {}
        self._trained: dict[tuple[str, int], Execution] = {}

    def generation(self, models: Sequence[str]) -> Execution:
        """How answers are sampled with these models, all at once in one process.

        Raises:
            InputError: they exceed what one GPU of the type has.
        """
        shapes = [self._shape(name) for name in models]
        known = [of for of in shapes if of is not None]
        if self._gpu is None or len(known) < len(shapes):
            return self._alone
        training = self._spec.training
        margin = self._spec.execution.memory_margin
        for rows in DECODED_ROWS_CANDIDATES:
            memory = generation_bytes(
                known,
                precision=training.precision,
                rows=rows,
                row_tokens=training.max_length_tokens,
            )
            if memory.total <= self._gpu.usable(margin):
                break
        else:
            fitting = [of.name for of in gpu_types().values() if memory.total <= of.usable(margin)]
            remedy = f"it fits {', '.join(fitting)}" if fitting else "no listed GPU type holds it"
            raise InputError(
                f"execution.gpu_type: generating with {' and '.join(models)} runs in one process "
                f"and needs {gib(memory.total)}, one {self._gpu.name} has "
                f"{gib(self._gpu.usable(margin))} usable; {remedy}",
                ("execution", "gpu_type"),
            )
        return replace(self._alone, decoded_rows=rows, predicted_memory_bytes=memory.total)

    def training(self, model: str, training: Training) -> Execution:
        """How a model is trained on text.

        Raises:
            InputError: it does not fit as many GPUs of the type as the spec allows.
        """
        known = self._shape(model)
        if self._gpu is None or known is None:
            return self._written
        name = model, training.batch_size
        if name not in self._trained:
            self._trained[name] = self._training(model, known, training)
        return self._trained[name]

    def _training(self, model: str, known: Shape, training: Training) -> Execution:
        written = self._spec.execution
        adapters = 0
        if training.lora is not None:
            adapters = adapter_parameters(known, training.lora.rank, training.lora.target_modules)
        work = Workload(
            name=model,
            shape=known,
            precision=training.precision,
            trainable=training.trainable,
            batch_size=training.batch_size,
            longest_row=TEXTS * training.max_length_tokens,
            row_tokens=OF_MAXIMUM * training.max_length_tokens,
            adapters=adapters,
        )
        constraints = Constraints(
            prefer=written.prefer,
            workers=written.workers,
            max_workers=written.max_workers,
            zero_stage=written.zero_stage,
            offload="none",
            activation_checkpointing=written.activation_checkpointing,
            micro_batch_tokens=written.micro_batch_tokens,
            margin=written.memory_margin,
            steps_at_once=written.max_concurrent_steps,
        )
        assert self._gpu is not None
        chosen = choose_layout(work, self._gpu, constraints)
        return replace(
            self._written,
            workers=chosen.workers,
            zero_stage=chosen.zero_stage,
            activation_checkpointing=chosen.activation_checkpointing,
            micro_batch_tokens=chosen.micro_batch_tokens,
            predicted_memory_bytes=chosen.memory.total,
            layout_reason=chosen.why,
        )

    def _shape(self, model: str) -> Shape | None:
        if model not in self._shapes:
            self._shapes[model] = shape(self._spec.models[model])
        return self._shapes[model]
