"""The spec: every field a researcher can write, with its unit, range and default.

A spec has two halves. ``data``, ``models``, ``grid`` and ``training`` say *what* is computed and
are part of a result's identity; ``execution`` says *how* and never is. Descriptions complete the
sentence "expected …" and appear in error messages. ``loading.load`` reads a file into a ``Spec``.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.controls import CONTROLS, Control
from w2s_ray.spec.execution import Execution
from w2s_ray.spec.fields import (
    Axis,
    Chains,
    Combine,
    Count,
    Location,
    Mistake,
    Model,
    Name,
    NotNegative,
    Number,
    Pairs,
    Positive,
    Seed,
    Share,
    StoreLocation,
    Trainable,
    as_list,
    distinct,
    mistake,
    refuse,
)
from w2s_ray.spec.inputs import Columns, DataSpec, ModelSpec, Sizes, Splits
from w2s_ray.spec.training import LearningRates, Lora, Training, WeakOverrides

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
    """A loss with its parameters, ``{name: symmetric_ce, a: 1.0, b: 0.1}``, or its name alone."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]
    name: str = Field(description="the name of a loss", examples=["symmetric_ce"])

    @property
    def parameters(self) -> tuple[tuple[str, float], ...]:
        """All parameters of the loss with their values, sorted by name; () for most losses."""
        values = {**DEFINITIONS[self.name].defaults, **(self.__pydantic_extra__ or {})}
        return tuple(sorted(values.items()))

    def covers(self, other: "Loss") -> bool:
        """Whether ``other`` has this name and every parameter written here (for ``exclude``)."""
        written = set((self.__pydantic_extra__ or {}).items())
        return self.name == other.name and written <= set(other.parameters)

    @model_validator(mode="after")
    def _is_defined(self) -> Self:
        """Check the name, the names of the parameters and their ranges."""
        names = tuple(DEFINITIONS)
        if self.name not in DEFINITIONS:
            expected = mistake(f"one of {', '.join(names)}", names, self.name)
            refuse([(("name",), self.name, expected)])
        parameters = DEFINITIONS[self.name].parameters
        allowed = tuple(parameters)
        expected_text = f"no parameter with {self.name}"
        if allowed:
            expected_text = f"one of {', '.join(allowed)}"
        wrong: list[Mistake] = []
        for parameter, value in (self.__pydantic_extra__ or {}).items():
            if parameter not in parameters:
                wrong.append(((parameter,), value, mistake(expected_text, allowed, parameter)))
            elif not parameters[parameter].allows(value):
                wrong.append(((parameter,), value, mistake(parameters[parameter].expected)))
        refuse(wrong)
        return self


def loss_by_name(value: Any) -> Any:
    """Read the name of a loss as the loss with its default parameters."""
    if not isinstance(value, str | dict | Loss):
        raise mistake("the name of a loss, or {name: …} with its parameters")
    return {"name": value} if isinstance(value, str) else value


LossValue = Annotated[Loss, BeforeValidator(loss_by_name)]
Form = Literal["target", "sum"]
Strength = Annotated[Number, Field(ge=-1, le=1)]


class Cells(Model):
    """Values on some of the axes of ``grid``, for ``include`` and ``exclude``.

    An omitted axis takes the grid's values in ``include`` and matches every value in ``exclude``.
    """

    data: Axis[str] = Field((), description="names of data sets")
    pair: Pairs = Field((), description="[weak, strong] pairs of model names")
    chain: Chains = Field((), description="chains of model names")
    combine: Axis[Combine] = Field((), description="mean, product or learned")
    loss: Axis[LossValue] = Field((), description="losses")
    confidence_weight: Axis[Share] = Field((), description="α_max, 0 to 1")
    confidence_warmup: Axis[Share] = Field((), description="fraction of steps, 0 to 1")
    confidence_form: Axis[Form] = Field((), description="target or sum")
    label_temperature: Axis[NotNegative] = Field((), description="temperatures, 0 or above")
    noise_ratio: Axis[Share] = Field((), description="fraction of rows, 0 to 1")
    noise_strength: Axis[Strength] = Field((), description="-1 (flip) to 1 (no change)")
    trainable: Axis[Trainable] = Field((), description="full, last_layer or lora")
    learning_rate: Axis[Positive | None] = Field((), description="learning rates above 0, or null")
    epochs: Axis[Count | None] = Field((), description="numbers of epochs, or null")
    batch_size: Axis[Count | None] = Field((), description="rows per optimizer step, or null")
    seed: Axis[Seed] = Field((), description="seeds")

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_fields_set:
            raise mistake("at least one axis")
        return self


AXES: tuple[str, ...] = tuple(Cells.model_fields)


class Grid(Model):
    """The axes of the study: the cells are their product.

    They are nested in this order, with seed innermost.
    """

    data: Axis[str] = Field(
        (), description="names of data sets; omitted: the only one", examples=["hh"]
    )
    pair: Pairs = Field(
        (),
        description="a list of [weak, strong] pairs of model names; a list as weak is an ensemble",
        examples=[[["small", "large"], [["small", "medium"], "large"]]],
    )
    chain: Chains = Field(
        (),
        description="a list of chains [m1, m2, m3] of model names, in which each student labels "
        "for the next; the pairs [m1, m2] and [m1, m3] are cells too",
        examples=[[["small", "medium", "large"]]],
    )
    combine: Axis[Combine] = Field(
        ("mean",),
        description="how the labels of an ensemble are combined: mean, product (normalised "
        "geometric mean) or learned (weights from the models' agreement)",
        examples=[["mean", "learned"]],
    )
    loss: Axis[LossValue] = Field(
        (Loss(name="forward_ce"),),
        description="losses of the student on the weak labels",
        examples=[["forward_kl", {"name": "symmetric_ce", "a": 1.0, "b": 0.2}]],
    )
    confidence_weight: Axis[Share] = Field(
        (0.0,),
        description="α_max of the confidence regularisation, 0 to 1",
        examples=[[0.0, 0.5]],
        json_schema_extra={"unit": ""},
    )
    confidence_warmup: Axis[Share] = Field(
        (0.2,),
        description="fraction of steps over which α rises, 0 to 1",
        examples=[[0.2]],
        json_schema_extra={"unit": "fraction of optimizer steps"},
    )
    confidence_form: Axis[Form] = Field(
        ("target",),
        description="target (mix the labels) or sum (mix the losses)",
        examples=[["target", "sum"]],
    )
    label_temperature: Axis[NotNegative] = Field(
        (1.0,),
        description="T of the weak labels softmax(log w / T), before noise; 0: hard labels",
        examples=[[1.0, 0.5, 0.0]],
        json_schema_extra={"unit": ""},
    )
    noise_ratio: Axis[Share] = Field(
        (0.0,),
        description="fraction of the student's weak labels with noise, 0 to 1",
        examples=[[0.0, 0.2, 0.4]],
        json_schema_extra={"unit": "fraction of rows"},
    )
    noise_strength: Axis[Strength] = Field(
        (-1.0,),
        description="factor on a noisy label's distance from 1/K, -1 (flip) to 1 (no change)",
        examples=[[-1.0, 0.0]],
        json_schema_extra={"unit": ""},
    )
    trainable: Axis[Trainable] = Field(
        ("full",), description="full, last_layer or lora", examples=[["full", "lora"]]
    )
    learning_rate: Axis[Positive | None] = Field(
        (None,),
        description="learning rates of student and ceiling; null: as in training",
        examples=[[1e-05, 3e-05]],
        json_schema_extra={"unit": ""},
    )
    epochs: Axis[Count | None] = Field(
        (None,),
        description="epochs of student and ceiling; null: as in training",
        examples=[[1, 2]],
        json_schema_extra={"unit": "epochs"},
    )
    batch_size: Axis[Count | None] = Field(
        (None,),
        description="rows per optimizer step of student and ceiling; null: as in training",
        examples=[[16, 64]],
        json_schema_extra={"unit": "rows"},
    )
    seed: Axis[Seed] = Field(
        (0,),
        description="seeds of new heads and adapters, row order and noise",
        examples=[[0, 1, 2]],
        json_schema_extra={"unit": ""},
    )
    include: Annotated[tuple[Cells, ...], BeforeValidator(as_list)] = Field(
        (),
        description="a list of products to add; an omitted axis takes the grid's values",
        examples=[[{"loss": "jeffreys", "seed": 0}]],
    )
    exclude: Annotated[tuple[Cells, ...], BeforeValidator(as_list)] = Field(
        (),
        description="a list of entries; cells that match every axis of an entry are removed",
        examples=[[{"trainable": "lora", "noise_ratio": 0.4}]],
    )

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        """Check that there is a student."""
        if not self.pair and not self.chain:
            expected = "a list of [weak, strong] pairs of model names, or a chain"
            refuse([(("pair",), None, mistake(expected, given="nothing"))])
        return self


class _Reference(NamedTuple):
    """A name in the grid, where it is written, and the names that are defined."""

    location: Location
    name: str
    defined: tuple[str, ...]


class Spec(Model):
    """A study, as written in one YAML file."""

    study: Name = Field(
        description="a name of letters, digits, '.', '_' and '-'", examples=["my-study"]
    )
    store: StoreLocation | None = Field(
        None,
        description="a folder or URI; null: ../store, relative to the spec",
        examples=["s3://my-bucket/store?region=eu-west-1"],
    )
    data: dict[Name, DataSpec] = Field(
        min_length=1,
        description="data sets by name",
        examples=[
            {
                "hh": {
                    "kind": "preference",
                    "source": "hf:Anthropic/hh-rlhf",
                    "sizes": {"ground_truth": 4000, "weak": 4000, "test": 2000},
                }
            }
        ],
    )
    models: dict[Name, ModelSpec] = Field(
        min_length=1,
        description="models by name",
        examples=[
            {"small": {"source": "hf:Qwen/Qwen2.5-0.5B"}, "large": {"source": "hf:Qwen/Qwen2.5-3B"}}
        ],
    )
    grid: Grid = Field(
        description="the axes of the study",
        examples=[{"pair": [["small", "large"]], "loss": ["forward_kl", "reverse_kl"]}],
    )
    controls: Annotated[tuple[Control, ...], BeforeValidator(as_list), AfterValidator(distinct)] = (
        Field(
            (),
            description=f"controls beside the students: {', '.join(CONTROLS)}",
            examples=[["weak_student", "strong_on_weak_rows", "tfidf"]],
        )
    )
    training: Training = Field(
        Training(),
        description="how models are trained",
        examples=[{"epochs": 2, "precision": "bf16"}],
    )
    execution: Execution = Field(
        Execution(), description="how steps are run", examples=[{"gpu_type": "H100"}]
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Check that every data set and model named in the grid is defined."""
        wrong: list[Mistake] = []
        for location, name, defined in self._references():
            if name not in defined:
                expected = mistake(f"one of {', '.join(defined)}", defined, name)
                wrong.append((location, name, expected))
        if not self.grid.data and len(self.data) > 1:
            expected = mistake(f"one or more of {', '.join(self.data)}", given="nothing")
            wrong.append((("grid", "data"), None, expected))
        refuse(wrong)
        return self

    def _references(self) -> Iterator[_Reference]:
        """Every name in the grid that refers to a data set or model."""
        datasets, models = tuple(self.data), tuple(self.models)
        parts: list[tuple[Location, Grid | Cells]] = [(("grid",), self.grid)]
        for field in ("include", "exclude"):
            entries = enumerate(getattr(self.grid, field))
            parts += [(("grid", field, position), entry) for position, entry in entries]
        for location, part in parts:
            for position, name in enumerate(part.data):
                yield _Reference((*location, "data", position), name, datasets)
            for position, (weak, strong) in enumerate(part.pair):
                here = (*location, "pair", position)
                yield from (_Reference((*here, 0, i), name, models) for i, name in enumerate(weak))
                yield _Reference((*here, 1), strong, models)
            for position, chain in enumerate(part.chain):
                for link, members in enumerate(chain):
                    here = (*location, "chain", position, link)
                    yield from (_Reference((*here, i), n, models) for i, n in enumerate(members))

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        """Check that an exact solver has only last layers and fixed targets to solve for."""
        solver = self.training.solver
        parts: list[Grid | Cells] = [self.grid, *self.grid.include]
        if solver == "sgd":
            return self
        other = sorted({t for part in parts for t in part.trainable} - {"last_layer"})
        weights = sorted({w for part in parts for w in part.confidence_weight if w > 0})
        reason = ""
        if other:
            reason = f"trainable: {', '.join(other)}"
        elif weights:
            reason = f"confidence_weight: {weights[0]:g}"
        if reason:
            refuse([(("training", "solver"), solver, mistake(f"sgd with {reason} in the grid"))])
        return self
