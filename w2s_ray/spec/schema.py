"""The spec: every field a researcher can write, with its unit, range and default.

A spec has two halves. ``data``, ``models``, ``grid`` and ``training`` say *what* is computed and
are part of a result's identity; ``execution`` says *how* and never is. Descriptions complete the
sentence "expected …" and appear in error messages. ``loading.load`` reads a file into a ``Spec``.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.axis_checks import axis_mistakes
from w2s_ray.spec.controls import CONTROLS, Control
from w2s_ray.spec.execution import Execution
from w2s_ray.spec.fields import (
    Location,
    Mistake,
    Model,
    Name,
    StoreLocation,
    as_list,
    distinct,
    mistake,
    refuse,
)
from w2s_ray.spec.grid import AXES, Cells, Grid
from w2s_ray.spec.inputs import Columns, DataSpec, ModelSpec, Sizes, Splits
from w2s_ray.spec.labels import (
    LabelFilter,
    calibrations_without_rows,
    filters_without_rows,
    rewards_without_pairs,
)
from w2s_ray.spec.loss import Loss
from w2s_ray.spec.selection import CELL_AXES, Select, Validation
from w2s_ray.spec.selection_checks import Selection
from w2s_ray.spec.training import LearningRates, Lora, Training, WeakOverrides

__all__ = [
    "AXES",
    "Cells",
    "Columns",
    "DataSpec",
    "Execution",
    "Grid",
    "LabelFilter",
    "LearningRates",
    "Lora",
    "Loss",
    "ModelSpec",
    "Select",
    "Sizes",
    "Spec",
    "Splits",
    "Training",
    "Validation",
    "WeakOverrides",
]


class _Reference(NamedTuple):
    """A name in the grid, where it is written, and the section that defines such names."""

    location: Location
    name: str
    section: Literal["data", "models"]


MOST_LISTED = 50  # names in a message


def _listed(names: Iterable[str]) -> str:
    """Names with commas between them; of very many the first, and how many more."""
    every = tuple(names)
    more = len(every) - MOST_LISTED
    return ", ".join(every[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")


class Spec(Model):
    """A study, as written in one YAML file."""

    study: Name = Field(
        description="a name of letters, digits, '.', '_' and '-'", examples=["my-study"]
    )
    task: Literal["soft_labels", "generation"] = Field(
        "soft_labels",
        description="soft_labels, or generation (whose spec has other fields)",
        examples=["soft_labels"],
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
    validation: Validation | None = Field(
        None,
        description="rows held out of the students' training; null: none",
        examples=[{"rows": 500}],
    )
    select: Select | None = Field(
        None,
        description="how one of several students is chosen; null: none is",
        examples=[{"over": ["learning_rate", "step"], "by": "weak_ce"}],
    )
    execution: Execution = Field(
        Execution(), description="how steps are run", examples=[{"gpu_type": "H100"}]
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Check that every data set and model named in the grid is defined."""
        wrong: list[Mistake] = []
        defined: dict[str, tuple[str, ...]] = {
            "data": tuple(self.data),
            "models": tuple(self.models),
        }
        expected_of = {section: f"one of {_listed(names)}" for section, names in defined.items()}
        for location, name, section in self._references():
            if name not in getattr(self, section):
                expected = mistake(expected_of[section], defined[section], name)
                wrong.append((location, name, expected))
        if not self.grid.data and len(self.data) > 1:
            expected = mistake(f"one or more of {_listed(self.data)}", given="nothing")
            wrong.append((("grid", "data"), None, expected))
        refuse(wrong)
        return self

    def _references(self) -> Iterator[_Reference]:
        """Every name in the grid that refers to a data set or model."""
        parts: list[tuple[Location, Grid | Cells]] = [(("grid",), self.grid)]
        for field in ("include", "exclude"):
            entries = enumerate(getattr(self.grid, field))
            parts += [(("grid", field, position), entry) for position, entry in entries]
        for location, part in parts:
            for position, name in enumerate(part.data):
                yield _Reference((*location, "data", position), name, "data")
            for position, (weak, strong) in enumerate(part.pair):
                here = (*location, "pair", position)
                yield from (_Reference((*here, 0, i), n, "models") for i, n in enumerate(weak))
                yield _Reference((*here, 1), strong, "models")
            for position, chain in enumerate(part.chain):
                for link, members in enumerate(chain):
                    here = (*location, "chain", position, link)
                    yield from (_Reference((*here, i), n, "models") for i, n in enumerate(members))

    @model_validator(mode="after")
    def _rows_remain(self) -> Self:
        """Check that filters and calibration leave rows, where the spec gives their number."""
        parts: list[tuple[Location, Grid | Cells]] = [(("grid",), self.grid)]
        parts += [(("grid", "include", n), part) for n, part in enumerate(self.grid.include)]
        truth = {name: data.sizes.ground_truth for name, data in self.data.items()}
        wrong = calibrations_without_rows(self.training.weak.calibrate, truth)
        for location, part in parts:
            names = part.data or self.grid.data or tuple(self.data)
            weak = {name: self.data[name].sizes.weak for name in names}
            for within, given, expected in filters_without_rows(part.label_filter, weak):
                wrong.append(((*location, "label_filter", *within), given, expected))
        refuse(wrong)
        return self

    @model_validator(mode="after")
    def _rewards_have_pairs(self) -> Self:
        """Check that implicit rewards are those of a language model on pairs."""
        weak = self.training.weak
        parts: list[Grid | Cells] = [self.grid, *self.grid.include]
        trainable = {t for part in parts for t in part.trainable}
        if weak.trainable is not None:
            trainable = {weak.trainable}
        named = {name for part in parts for name in part.data or self.grid.data or self.data}
        kinds = {name: data.kind for name, data in self.data.items() if name in named}
        identical = self.training.identical_pairs
        refuse(rewards_without_pairs(weak, kinds, trainable, identical))
        return self

    @model_validator(mode="after")
    def _axes_fit(self) -> Self:
        """Check the values of axes that other fields limit."""
        held_out = 0 if self.validation is None else self.validation.rows
        sizes = {name: data.sizes.weak for name, data in self.data.items()}
        rows = {name: None if size is None else size - held_out for name, size in sizes.items()}
        refuse(axis_mistakes(self.grid, rows))
        return self

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        """Check that an exact solver has only last layers and fixed targets to solve for."""
        solver = self.training.solver
        parts: list[Grid | Cells] = [self.grid, *self.grid.include]
        if solver == "sgd":
            return self
        other = sorted({t for part in parts for t in part.trainable} - {"last_layer"})
        weights = sorted({w for part in parts for w in part.confidence_weight if w > 0})
        moving = sorted({x.name for p in parts for x in p.loss if DEFINITIONS[x.name].moves_target})
        reason = ""
        if other:
            reason = f"trainable: {', '.join(other)}"
        elif weights:
            reason = f"confidence_weight: {weights[0]:g}"
        elif moving:
            reason = f"loss: {moving[0]}"
        if reason:
            refuse([(("training", "solver"), solver, mistake(f"sgd with {reason} in the grid"))])
        return self

    @model_validator(mode="after")
    def _selectable(self) -> Self:
        """Check that there is something to choose from, and rows to choose by."""
        parts: list[Grid | Cells] = [self.grid, *self.grid.include]
        values = {axis: {v for part in parts for v in getattr(part, axis)} for axis in CELL_AXES}
        chosen = Selection(self.data, self.training, self.validation, self.select, values)
        refuse(list(chosen.mistakes())[:1])
        return self
