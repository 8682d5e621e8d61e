"""How every step that runs a model is executed: what the spec says, and the rest chosen.

Without a ``gpu_type`` nothing is chosen: one process, or as many as the spec says. With one, the
layout of each way to train each model is chosen once (``capacity.fit_gpus``), whatever the number
of its steps or rows.
"""

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from w2s_ray.capacity.execution import Execution
from w2s_ray.capacity.fit_gpus import choose_layout, fit_inference
from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.layout import Constraints, Layout, Workload
from w2s_ray.capacity.machines import planned_gpu
from w2s_ray.capacity.memory import adapter_parameters
from w2s_ray.catalog.shapes import Shape, shape
from w2s_ray.errors import InputError
from w2s_ray.plan.configs import Training
from w2s_ray.plan.cost import tokens_per_row
from w2s_ray.spec.execution import Execution as WrittenExecution

if TYPE_CHECKING:
    from w2s_ray.spec.schema import Spec

TEXTS_PER_ROW = {"preference": 2, "classification": 1}
TRAINED = ("weak", "student", "ceiling", "strong_on_weak_rows")
"""All kinds of steps whose weights may be kept."""


class Layouts:
    """The executions of the steps of one spec.

    Raises:
        InputError: the GPU or machine type is not known; ``place`` names the field.
    """

    def __init__(self, spec: "Spec") -> None:
        execution = spec.execution
        self._spec = spec
        self._gpu = planned_gpu(execution)
        self._written = written_execution(execution)
        self._constraints = Constraints(
            prefer=execution.prefer,
            workers=execution.workers,
            max_workers=execution.max_workers,
            zero_stage=execution.zero_stage,
            offload=execution.offload,
            activation_checkpointing=execution.activation_checkpointing,
            micro_batch_tokens=execution.micro_batch_tokens,
            margin=execution.memory_margin,
            on_disk=execution.offload_path is not None,
            steps_at_once=execution.max_concurrent_steps,
        )
        self._shapes: dict[str, Shape | None] = {}
        self._chosen: dict[tuple[Any, ...], Execution] = {}

    def training(
        self, data: str, model: str, training: Training, *, anchored: bool = False
    ) -> Execution:
        """How a model is trained; a head on stored features runs in one process.

        The weights of every model stay where the data set has further test sets: they are scored
        by them.

        Args:
            data, model: names in the spec.
            anchored: whether the initial weights are kept.

        Raises:
            InputError: the model does not fit as the spec wants it, or its shape is not known.
        """
        rows = self._spec.data[data]
        texts, row_tokens = TEXTS_PER_ROW[rows.kind], tokens_per_row(rows)
        has_weights = training.trainable != "last_layer" and bool(rows.tests)
        settings = (training.trainable, training.batch_size, texts, row_tokens)
        name = ("training", model, *settings, has_weights, anchored)
        if name not in self._chosen:
            chosen = self._training(model, training, texts, row_tokens, anchored)
            self._chosen[name] = replace(chosen, keep_models=TRAINED) if has_weights else chosen
        return self._chosen[name]

    def alone(self, data: str, model: str, training: Training) -> Execution:
        """How one process trains a model, and then gives the rewards of the two that it has.

        Raises:
            InputError: no GPU of the type holds either.
        """
        written = replace(self._written, workers=1, offload="none")
        known = self._shape(model)
        if self._gpu is None or known is None:
            return written
        self.inference(model, "reward")
        rows = self._spec.data[data]
        texts, row_tokens = TEXTS_PER_ROW[rows.kind], tokens_per_row(rows)
        work = self._workload(model, known, training, texts, row_tokens, anchored=False)
        one = replace(self._constraints, workers=1, max_workers=1, zero_stage=0, offload="none")
        return _as_chosen(written, choose_layout(work, self._gpu, one))

    def inference(self, model: str, kind: str | None) -> Execution:
        """How a backbone is run forward: by processes that have the whole model each, on one GPU
        or on the fewest of a machine that hold it.

        Args:
            kind: of the step; None: it runs no backbone.

        Raises:
            InputError: the model is too large for a GPU of the type, or for a machine of them.
        """
        name = ("inference", model, kind)
        if name not in self._chosen:
            self._chosen[name] = self._inference(model, kind)
        return self._chosen[name]

    def _inference(self, model: str, kind: str | None) -> Execution:
        together = 1 if kind is None else self._spec.execution.inference_workers
        execution = replace(self._written, workers=1, inference_workers=together)
        known = self._shape(model)
        if self._gpu is None or kind is None or known is None:
            return execution
        settings = self._spec.training
        work = Workload(
            name=model,
            shape=known,
            precision=settings.precision,
            trainable="last_layer",
            batch_size=1,
            longest_row=settings.max_length_tokens,
            row_tokens=settings.max_length_tokens,
        )
        chosen = fit_inference(work, self._gpu, self._constraints.margin, kind)
        return replace(
            execution,
            inference_gpus=chosen.gpus,
            predicted_memory_bytes=chosen.memory.total,
            layout_reason=chosen.why,
        )

    def _training(
        self, model: str, training: Training, texts: int, row_tokens: int, anchored: bool
    ) -> Execution:
        if training.trainable == "last_layer":
            return replace(self._written, workers=1)
        if self._gpu is None:
            return self._written
        known = self._shape(model)
        if known is None:
            if self._constraints.workers is None or self._constraints.zero_stage is None:
                raise InputError(
                    f"execution.gpu_type: the shape of model '{model}' is not known here, so "
                    "nothing can be planned for it; give workers and zero_stage, or put its "
                    "config.json into the local Hugging Face cache",
                    ("execution", "gpu_type"),
                )
            return self._written
        work = self._workload(model, known, training, texts, row_tokens, anchored)
        return _as_chosen(self._written, self._choose(work, self._gpu))

    def _workload(
        self,
        model: str,
        known: Shape,
        training: Training,
        texts: int,
        row_tokens: int,
        anchored: bool,
    ) -> Workload:
        adapters = 0
        if training.lora is not None:
            adapters = adapter_parameters(known, training.lora.rank, training.lora.target_modules)
            adapters *= self._spec.execution.lora_together
        return Workload(
            name=model,
            shape=known,
            precision=training.precision,
            trainable=training.trainable,
            batch_size=training.batch_size,
            longest_row=texts * training.max_length_tokens,
            row_tokens=row_tokens,
            adapters=adapters,
            anchored=anchored,
        )

    def _choose(self, work: Workload, gpu: Gpu) -> Layout:
        """The layout of a training; only a single process that offloads nothing can anchor."""
        if work.anchored:
            fixed = self._constraints
            alone = replace(fixed, workers=fixed.workers or 1, offload=fixed.offload or "none")
            with suppress(InputError):  # the student is refused, as one that needs a group
                return choose_layout(work, gpu, alone)
        return choose_layout(work, gpu, self._constraints)

    def _shape(self, model: str) -> Shape | None:
        if model not in self._shapes:
            self._shapes[model] = shape(self._spec.models[model])
        return self._shapes[model]


def written_execution(written: WrittenExecution) -> Execution:
    """What the spec says, with the defaults of a spec that says nothing."""
    needs_zero_3 = written.offload == "parameters" or written.offload_path is not None
    stage = 3 if needs_zero_3 else 2
    gpus = 0.0 if written.gpu_type is None else 1.0
    return Execution(
        gpu_type=written.gpu_type,
        workers=written.workers or 1,
        min_workers=written.min_workers,
        zero_stage=stage if written.zero_stage is None else written.zero_stage,
        offload=written.offload or "none",
        offload_path=written.offload_path,
        activation_checkpointing=bool(written.activation_checkpointing),
        micro_batch_tokens=written.micro_batch_tokens,
        checkpoint_steps=written.checkpoint_steps,
        checkpoint_minutes=written.checkpoint_minutes,
        cpus_per_worker=written.cpus_per_worker,
        gpus_per_worker=gpus if written.gpus_per_worker is None else written.gpus_per_worker,
        lora_together=written.lora_together,
        keep_models=written.keep_models,
        export_models=written.export_models,
        train_predictions=written.train_predictions,
    )


def _as_chosen(written: Execution, chosen: Layout) -> Execution:
    """The execution with this layout."""
    return replace(
        written,
        workers=chosen.workers,
        zero_stage=chosen.zero_stage,
        offload=chosen.offload,
        activation_checkpointing=chosen.activation_checkpointing,
        micro_batch_tokens=chosen.micro_batch_tokens,
        predicted_memory_bytes=chosen.memory.total,
        layout_reason=chosen.why,
    )
