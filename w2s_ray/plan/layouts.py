"""The ``execution`` of every step that runs a model: what the spec says, the rest chosen.

Without a ``gpu_type`` nothing is chosen: one process, or as many as the spec says. With one, each
way to train each model is planned once (``planner``), whatever the number of its steps.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from w2s_ray.capacity.fit_gpus import Constraints, Workload, check_inference, choose_layout
from w2s_ray.capacity.gpu_types import Gpu, gpu_type
from w2s_ray.capacity.memory import adapter_parameters
from w2s_ray.catalog.architecture import Shape, shape
from w2s_ray.errors import InputError

if TYPE_CHECKING:
    from w2s_ray.spec.schema import Spec

TEXTS_A_ROW = {"preference": 2, "classification": 1}


class Placing:
    """Chooses for the steps of one spec.

    Raises:
        InputError: the GPU type is not known; ``place`` names the field.
    """

    def __init__(self, spec: "Spec") -> None:
        execution = spec.execution
        self._spec = spec
        self._gpu: Gpu | None = None
        if execution.gpu_type is not None:
            self._gpu = gpu_type(execution.gpu_type)
        gpus = execution.gpus_per_worker
        if gpus is None:
            gpus = 0.0 if self._gpu is None else 1.0
        on_disk = execution.offload_path is not None
        stage = 3 if execution.offload == "parameters" or on_disk else 2
        self._fixed = execution.model_dump(mode="json") | {
            "workers": execution.workers or 1,
            "zero_stage": stage if execution.zero_stage is None else execution.zero_stage,
            "offload": execution.offload or "none",
            "activation_checkpointing": bool(execution.activation_checkpointing),
            "gpus_per_worker": gpus,
            "predicted_memory_bytes": None,
            "placement": None,
        }
        self._wishes = Constraints(
            workers=execution.workers,
            max_workers=execution.max_workers,
            zero_stage=execution.zero_stage,
            offload=execution.offload,
            activation_checkpointing=execution.activation_checkpointing,
            micro_batch_tokens=execution.micro_batch_tokens,
            margin=execution.memory_margin,
            on_disk=on_disk,
        )
        self._models = {n: model.model_dump(mode="json") for n, model in spec.models.items()}
        self._shapes: dict[str, Shape | None] = {}
        self._chosen: dict[tuple[Any, ...], Mapping[str, Any]] = {}

    def training(self, data: str, model: str, training: Mapping[str, Any]) -> Mapping[str, Any]:
        """How a model is trained; a head on stored features needs no group of workers.

        Raises:
            InputError: the model does not fit as the spec wants it, or nobody knows its shape.
        """
        trainable, batch_size = str(training["trainable"]), int(training["batch_size"])
        texts = TEXTS_A_ROW[self._spec.data[data].kind]
        known = ("training", model, trainable, batch_size, texts)
        if known not in self._chosen:
            self._chosen[known] = self._training(model, trainable, batch_size, texts)
        return self._chosen[known]

    def inference(self, model: str, kind: str | None) -> Mapping[str, Any]:
        """How ``features`` are computed or labels given: by one process.

        Args:
            kind: of the step; None: it runs no backbone.

        Raises:
            InputError: the model is too large for one GPU of the type.
        """
        known = ("inference", model, kind)
        if known not in self._chosen:
            execution = {**self._fixed, "workers": 1, "model": self._models[model]}
            if self._gpu is not None and kind is not None and self._shape(model) is not None:
                work = self._work(model, "last_layer", 1, 1)
                memory = check_inference(work, self._gpu, self._wishes.margin, kind)
                execution["predicted_memory_bytes"] = memory.total
            self._chosen[known] = execution
        return self._chosen[known]

    def _training(
        self, model: str, trainable: str, batch_size: int, texts: int
    ) -> Mapping[str, Any]:
        execution = {**self._fixed, "model": self._models[model]}
        if trainable == "last_layer":
            return {**execution, "workers": 1}
        if self._gpu is None:
            return execution
        wishes = self._wishes
        if self._shape(model) is None:
            if wishes.workers is None or wishes.zero_stage is None:
                raise InputError(
                    f"execution.gpu_type: the shape of model '{model}' is not known here, so "
                    "nothing can be planned for it; give workers and zero_stage, or put its "
                    "config.json into the local Hugging Face cache",
                    ("execution", "gpu_type"),
                )
            return execution
        chosen = choose_layout(self._work(model, trainable, batch_size, texts), self._gpu, wishes)
        return {
            **execution,
            "workers": chosen.workers,
            "zero_stage": chosen.zero_stage,
            "offload": chosen.offload,
            "activation_checkpointing": chosen.activation_checkpointing,
            "micro_batch_tokens": chosen.micro_batch_tokens,
            "predicted_memory_bytes": chosen.memory.total,
            "placement": chosen.why,
        }

    def _work(self, model: str, trainable: str, batch_size: int, texts: int) -> Workload:
        settings = self._spec.training
        found = self._shape(model)
        assert found is not None
        adapters = 0
        if trainable == "lora":
            adapters = adapter_parameters(found, settings.lora.rank, settings.lora.target_modules)
            adapters *= self._spec.execution.lora_together
        return Workload(
            name=model,
            shape=found,
            precision=settings.precision,
            trainable=trainable,
            batch_size=batch_size,
            longest_row=texts * settings.max_length_tokens,
            adapters=adapters,
        )

    def _shape(self, model: str) -> Shape | None:
        if model not in self._shapes:
            self._shapes[model] = shape(self._spec.models[model])
        return self._shapes[model]
