"""The spec: every field a researcher can write, with its unit, range and default.

A spec has two halves. `data`, `models`, `grid` and `training` say *what* is computed and enter the
identity of results; `execution` says *how* and never does. Descriptions complete the sentence
"expected …" and are used in error messages. `loading.load` reads a file into a `Spec`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.fields import (
    Axis,
    Count,
    Mistake,
    Model,
    Name,
    Number,
    Pairs,
    Place,
    Positive,
    Seed,
    Share,
    StorePlace,
    Text,
    Trainable,
    as_list,
    as_number,
    mistake,
    refuse,
)
from w2s_ray.spec.inputs import Columns, DataSpec, ModelSpec, Sizes, Splits

__all__ = [
    "AXES",
    "Cells",
    "Columns",
    "DataSpec",
    "Execution",
    "Grid",
    "LearningRates",
    "Lora",
    "Loss",
    "ModelSpec",
    "Sizes",
    "Spec",
    "Splits",
    "Training",
    "WeakOverrides",
]


class Loss(Model):
    """A loss, its parameters beside its name: `{name: symmetric_ce, a: 1.0, b: 0.1}`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Number, Field(ge=0)]]
    name: str = Field(description="the name of a loss")

    @property
    def parameters(self) -> tuple[tuple[str, float], ...]:
        """All parameters of the loss by name, defaults filled in; () for most losses."""
        known = {**DEFINITIONS[self.name].parameters, **(self.__pydantic_extra__ or {})}
        return tuple(sorted(known.items()))

    def covers(self, other: "Loss") -> bool:
        """Whether `other` has this name and every parameter written here (for `exclude`)."""
        written = set((self.__pydantic_extra__ or {}).items())
        return self.name == other.name and written <= set(other.parameters)

    @model_validator(mode="after")
    def _known(self) -> Self:
        names = tuple(DEFINITIONS)
        if self.name not in DEFINITIONS:
            expected = mistake(f"one of {', '.join(names)}", names, self.name)
            refuse([(("name",), self.name, expected)])
        own = tuple(DEFINITIONS[self.name].parameters)
        expected_text = f"one of {', '.join(own)}" if own else f"no parameter with {self.name}"
        extra = self.__pydantic_extra__ or {}
        unknown = [name for name in extra if name not in own]
        refuse([((n,), extra[n], mistake(expected_text, own, n)) for n in unknown])
        return self


def _named(value: Any) -> Any:
    if not isinstance(value, str | dict | Loss):
        raise mistake("the name of a loss, or {name: …} with its parameters")
    return {"name": value} if isinstance(value, str) else value


LossValue = Annotated[Loss, BeforeValidator(_named)]
Form = Literal["target", "sum"]
Strength = Annotated[Number, Field(ge=-1, le=1)]


class Cells(Model):
    """Named parts of axes, for `include` and `exclude`; an axis left out is ()."""

    data: Axis[str] = Field((), description="names of data sets")
    pair: Pairs = Field((), description="[weak, strong] pairs of model names")
    loss: Axis[LossValue] = Field((), description="losses")
    confidence_weight: Axis[Share] = Field((), description="α_max, 0 to 1")
    confidence_warmup: Axis[Share] = Field((), description="fraction of steps, 0 to 1")
    confidence_form: Axis[Form] = Field((), description="target or sum")
    noise_ratio: Axis[Share] = Field((), description="fraction of rows, 0 to 1")
    noise_strength: Axis[Strength] = Field((), description="-1 (flip) to 1 (no change)")
    trainable: Axis[Trainable] = Field((), description="full, last_layer or lora")
    learning_rate: Axis[Positive | None] = Field((), description="learning rates above 0, or null")
    epochs: Axis[Count | None] = Field((), description="numbers of epochs, or null")
    batch_size: Axis[Count | None] = Field((), description="rows a step, or null")
    seed: Axis[Seed] = Field((), description="seeds")

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_fields_set:
            raise mistake("at least one axis")
        return self


AXES: tuple[str, ...] = tuple(Cells.model_fields)


class Grid(Model):
    """The axes; cells are their product in this order (seed fastest), ∪ include, minus exclude."""

    data: Axis[str] = Field((), description="names of data sets; left out: the only one")
    pair: Pairs = Field(description="a list of [weak, strong] pairs of model names")
    loss: Axis[LossValue] = Field(
        (Loss(name="forward_ce"),), description="losses of the student on the weak labels"
    )
    confidence_weight: Axis[Share] = Field(
        (0.0,), description="α_max of the confidence regularisation, 0 to 1"
    )
    confidence_warmup: Axis[Share] = Field(
        (0.2,), description="fraction of steps over which α rises, 0 to 1"
    )
    confidence_form: Axis[Form] = Field(
        ("target",), description="target (mix the labels) or sum (mix the losses)"
    )
    noise_ratio: Axis[Share] = Field(
        (0.0,), description="fraction of the student's weak labels that is changed, 0 to 1"
    )
    noise_strength: Axis[Strength] = Field(
        (-1.0,), description="factor of a changed label's distance from even, -1 (flip) to 1"
    )
    trainable: Axis[Trainable] = Field(("full",), description="full, last_layer or lora")
    learning_rate: Axis[Positive | None] = Field(
        (None,), description="Adam's rate for student and ceiling; null: training's for trainable"
    )
    epochs: Axis[Count | None] = Field(
        (None,), description="passes over the data of student and ceiling; null: training's"
    )
    batch_size: Axis[Count | None] = Field(
        (None,), description="rows a step of student and ceiling; null: training's"
    )
    seed: Axis[Seed] = Field((0,), description="seeds of heads, orders, noise and random weights")
    include: Annotated[tuple[Cells, ...], BeforeValidator(as_list)] = Field(
        (), description="a list of sub-products to add; an axis left out takes the grid's values"
    )
    exclude: Annotated[tuple[Cells, ...], BeforeValidator(as_list)] = Field(
        (), description="a list of parts to remove: cells that match every axis named"
    )


class LearningRates(Model):
    """Default rates of Adam by what is trained; one number stands for all three."""

    full: Positive = Field(1.0e-5, description="a rate above 0 (published: 1e-5)")
    last_layer: Positive = Field(1.0e-3, description="a rate above 0, on standardised features")
    lora: Positive = Field(1.0e-4, description="a rate above 0")


class Lora(Model):
    """Low-rank adapters, for `trainable: lora`."""

    rank: Count = Field(16, description="a rank, at least 1")
    alpha: Positive = Field(32.0, description="a scale above 0; updates are scaled by alpha/rank")
    target_modules: Text = Field(
        "all-linear", description="all-linear, or a regular expression over module names"
    )


class WeakOverrides(Model):
    """How the weak model is trained where it differs; null: as the student's / training's."""

    trainable: Trainable | None = Field(None, description="full, last_layer, lora or null")
    epochs: Count | None = Field(None, description="passes over the data, or null")
    learning_rate: Positive | None = Field(None, description="a rate above 0, or null")
    batch_size: Count | None = Field(None, description="rows a step, or null")


def _for_all(value: Any) -> Any:
    number = as_number(value)
    if isinstance(number, int | float) and not isinstance(number, bool):
        return dict.fromkeys(LearningRates.model_fields, number)
    if not isinstance(value, dict | LearningRates):
        raise mistake("a rate above 0, or rates for full, last_layer and lora")
    return value


class Training(Model):
    """How every model is trained; part of a result's identity."""

    epochs: Count = Field(1, description="passes over the data, at least 1")
    batch_size: Count = Field(16, description="rows a step, over all workers, at least 1")
    max_length_tokens: Annotated[int, Field(ge=2)] = Field(
        512, description="tokens of one text; longer ones lose their beginning"
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="bf16 or fp32 (of the model)")
    learning_rate: Annotated[LearningRates, BeforeValidator(_for_all)] = Field(
        LearningRates(), description="a rate above 0, or rates for full, last_layer and lora"
    )
    clip_norm: Positive | None = Field(None, description="largest gradient norm; null: no limit")
    adam_betas: Annotated[
        tuple[
            Annotated[Number, Field(ge=0, lt=1)],
            Annotated[Number, Field(ge=0, lt=1)],
        ],
        BeforeValidator(as_list),
    ] = Field((0.9, 0.999), description="two numbers from 0 to below 1")
    adam_epsilon: Positive = Field(1.0e-8, description="a number above 0")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="cosine (to 0) or constant"
    )
    solver: Literal["sgd", "newton", "lbfgs"] = Field(
        "sgd", description="sgd (the steps above), or newton or lbfgs: last layers to the minimum"
    )
    label_clip: Annotated[Number, Field(gt=0, lt=0.5)] = Field(
        1.0e-3, description="γ: soft labels are clipped to [γ, 1 - γ]"
    )
    lora: Lora = Field(Lora(), description="rank, alpha and target_modules")
    weak_seed: Seed | None = Field(
        None, description="seed of the weak model; null: the cell's own (whole pipeline repeated)"
    )
    weak: WeakOverrides = Field(WeakOverrides(), description="trainable, epochs, learning_rate, …")


class Execution(Model):
    """How and where it is computed; never part of a key."""

    gpu_type: Text | None = Field(
        None,
        description="a type of gpu_types.json, for which null fields below are chosen",
    )
    workers: Count | None = Field(
        None, description="processes that train one model together; null: the fewest that fit, or 1"
    )
    max_workers: Count = Field(64, description="the most workers that are ever chosen, at least 1")
    min_workers: Count | None = Field(
        None, description="fewest to go on with when machines are lost; null: as many as before"
    )
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = Field(
        None, description="DeepSpeed ZeRO, 0 to 3; null: the mildest that fits, or 2"
    )
    offload: Literal["none", "optimizer", "parameters"] | None = Field(
        None, description="none, optimizer or parameters (both) in host memory; null: chosen"
    )
    offload_path: Text | None = Field(
        None, description="a folder on a local NVMe disk that takes what is offloaded, or null"
    )
    activation_checkpointing: bool | None = Field(
        None, description="true: blocks are computed again in backward; null: where needed"
    )
    memory_margin: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.1, description="share of a GPU that stays free, 0 to below 1"
    )
    micro_batch_tokens: Count | None = Field(
        None,
        description="tokens of one worker's pass; null: 4,096, on a GPU 16,384, of a gpu_type "
        "what fits",
    )
    checkpoint_steps: Count | None = Field(
        None, description="optimizer steps from one checkpoint to the next; null: by the clock"
    )
    checkpoint_minutes: Positive | None = Field(
        10.0, description="minutes from one checkpoint to the next; null: none by the clock"
    )
    cpus_per_worker: Positive = Field(1.0, description="CPU cores, above 0")
    gpus_per_worker: Annotated[Number, Field(ge=0)] | None = Field(
        None,
        description="GPUs: 0, 1, or with one worker a fraction (steps then share one); null: 1 "
        "with a gpu_type, else 0",
    )
    max_concurrent_steps: Count | None = Field(None, description="steps at a time; null: what fits")
    lora_together: Count = Field(
        1, description="LoRA students trained in one pass of their backbone, at least 1"
    )
    keep_models: Annotated[
        tuple[Literal["weak", "student", "ceiling"], ...], BeforeValidator(as_list)
    ] = Field(("weak",), description="roles whose weights stay (weak always does)")
    export_models: Annotated[
        tuple[Literal["weak", "student", "ceiling"], ...], BeforeValidator(as_list)
    ] = Field((), description="roles written as AutoModelForSequenceClassification folders")

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        """Weights are offloaded, and to a disk, by ZeRO 3 alone. A process drives one GPU; NCCL
        does not join two processes on one."""
        path, offload = self.offload_path, self.offload
        if path is not None and offload in (None, "none"):
            expected = "null without offload: optimizer or parameters"
            refuse([(("offload_path",), path, mistake(expected))])
        if self.zero_stage not in (None, 3) and (path is not None or offload == "parameters"):
            reason = "offload: parameters" if path is None else "an offload_path"
            refuse([(("zero_stage",), self.zero_stage, mistake(f"3 or null with {reason}"))])
        gpus, alone = self.gpus_per_worker, self.workers in (None, 1)
        if gpus is None:
            return self
        if self.gpu_type is not None and gpus != 1.0:
            refuse([(("gpus_per_worker",), gpus, mistake("1 with a gpu_type", given=f"{gpus:g}"))])
        if gpus not in (0.0, 1.0) and not (gpus < 1 and alone):
            shared = "0, 1 or a fraction of 1"
            expected = shared if alone else f"0 or 1 with workers: {self.workers}"
            refuse([(("gpus_per_worker",), gpus, mistake(expected, given=f"{gpus:g}"))])
        return self

    @model_validator(mode="after")
    def _workers_in_order(self) -> Self:
        """`max_workers` bounds what is chosen; its default does not bound what is written."""
        workers, fewest, most = self.workers, self.min_workers, self.max_workers
        if workers is None:
            return self
        if fewest is not None and fewest > workers:
            expected = mistake(f"at most {workers} with workers: {workers}")
            refuse([(("min_workers",), fewest, expected)])
        if "max_workers" in self.model_fields_set and workers > most:
            expected = mistake(f"at most {most} with max_workers: {most}")
            refuse([(("workers",), workers, expected)])
        return self


class Spec(Model):
    """A study, as written in one YAML file."""

    study: Name = Field(description="a name of letters, digits, '.', '_' and '-'")
    store: StorePlace | None = Field(None, description="a folder or URI; null: ../store")
    data: dict[Name, DataSpec] = Field(min_length=1, description="data sets by name")
    models: dict[Name, ModelSpec] = Field(min_length=1, description="models by name")
    grid: Grid = Field(description="the axes of the study")
    training: Training = Field(Training(), description="how models are trained")
    execution: Execution = Field(Execution(), description="how steps are run")

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Every data set and model that the grid names is there."""
        wrong: list[Mistake] = []

        def check(name: str, known: tuple[str, ...], *loc: int | str) -> None:
            if name not in known:
                expected = f"one of {', '.join(known)}"
                wrong.append((loc, name, mistake(expected, known, name)))

        parts: list[tuple[Place, Grid | Cells]] = [(("grid",), self.grid)]
        for where in ("include", "exclude"):
            entries = enumerate(getattr(self.grid, where))
            parts += [(("grid", where, position), entry) for position, entry in entries]
        for loc, part in parts:
            for position, name in enumerate(part.data):
                check(name, tuple(self.data), *loc, "data", position)
            for position, pair in enumerate(part.pair):
                for side, name in enumerate(pair):
                    check(name, tuple(self.models), *loc, "pair", position, side)
        if not self.grid.data and len(self.data) > 1:
            expected = mistake(f"one or more of {', '.join(self.data)}", given="nothing")
            wrong.append((("grid", "data"), None, expected))
        refuse(wrong)
        return self

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        """A solver minimises what a last layer is trained on, and that may not move with it."""
        solver = self.training.solver
        parts: list[Grid | Cells] = [self.grid, *self.grid.include]
        if solver == "sgd":
            return self
        other = sorted({t for part in parts for t in part.trainable} - {"last_layer"})
        weights = sorted({w for part in parts for w in part.confidence_weight if w > 0})
        reason = f"trainable: {', '.join(other)}" if other else ""
        reason = reason or (f"confidence_weight: {weights[0]:g}" if weights else "")
        if reason:
            refuse([(("training", "solver"), solver, mistake(f"sgd with {reason} in the grid"))])
        return self
