"""The grid of a spec: its axes, and entries that add or remove cells."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from w2s_ray.spec.fields import (
    Axis,
    Chains,
    Combine,
    Count,
    Epochs,
    Model,
    NotNegative,
    Number,
    Pairs,
    Positive,
    Seed,
    Share,
    Trainable,
    as_list,
    mistake,
    refuse,
)
from w2s_ray.spec.labels import ExampleWeight, FilterValue, Relabel
from w2s_ray.spec.loss import Loss, LossValue

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
    weak_seed: Axis[Seed | None] = Field((), description="seeds, or null")
    loss: Axis[LossValue] = Field((), description="losses")
    confidence_weight: Axis[Share] = Field((), description="α_max, 0 to 1")
    confidence_warmup: Axis[Share] = Field((), description="fraction of steps, 0 to 1")
    confidence_form: Axis[Form] = Field((), description="target or sum")
    label_temperature: Axis[NotNegative] = Field((), description="temperatures, 0 or above")
    label_filter: Axis[FilterValue] = Field((), description="{keep, by}, or null")
    relabel: Axis[Relabel] = Field((), description="none, probe or knn")
    example_weight: Axis[ExampleWeight] = Field((), description="none or confidence")
    noise_ratio: Axis[Share] = Field((), description="fraction of rows, 0 to 1")
    noise_strength: Axis[Strength] = Field((), description="-1 (flip) to 1 (no change)")
    train_rows: Axis[Count | None] = Field((), description="numbers of rows, or null")
    trainable: Axis[Trainable] = Field((), description="full, last_layer or lora")
    readout_block: Axis[Count | None] = Field((), description="numbers of blocks, or null")
    learning_rate: Axis[Positive | None] = Field((), description="learning rates above 0, or null")
    weight_decay: Axis[NotNegative] = Field((), description="weight decays, 0 or above")
    anchor: Axis[NotNegative] = Field((), description="λ, 0 or above")
    epochs: Axis[Epochs | None] = Field((), description="numbers of epochs, or null")
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
    weak_seed: Axis[Seed | None] = Field(
        (None,),
        description="seeds of the weak model; null: as in training, else the cell's seed",
        examples=[[0, 1, 2]],
        json_schema_extra={"unit": ""},
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
    label_filter: Axis[FilterValue] = Field(
        (None,),
        description="{keep: share of rows, by: what makes a label good}; null: no filter",
        examples=[[None, {"keep": 0.5, "by": "confidence"}]],
    )
    relabel: Axis[Relabel] = Field(
        ("none",),
        description="none, or probe or knn (labels by the strong model's features)",
        examples=[["none", "probe"]],
    )
    example_weight: Axis[ExampleWeight] = Field(
        ("none",),
        description="none, or confidence (a row weighs 2|w - 1/2|, with mean 1)",
        examples=[["none", "confidence"]],
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
    train_rows: Axis[Count | None] = Field(
        (None,),
        description="weak rows that students learn from, nested; null: all",
        examples=[[500, 1000, None]],
        json_schema_extra={"unit": "rows"},
    )
    trainable: Axis[Trainable] = Field(
        ("full",), description="full, last_layer or lora", examples=[["full", "lora"]]
    )
    readout_block: Axis[Count | None] = Field(
        (None,),
        description="block of the strong model after which last layers read; null: the last",
        examples=[[6, 12, None]],
        json_schema_extra={"unit": "blocks"},
    )
    learning_rate: Axis[Positive | None] = Field(
        (None,),
        description="learning rates of student and ceiling; null: as in training",
        examples=[[1e-05, 3e-05]],
        json_schema_extra={"unit": ""},
    )
    weight_decay: Axis[NotNegative] = Field(
        (0.0,),
        description="decoupled weight decay (AdamW) of student and ceiling",
        examples=[[0.0, 0.1]],
        json_schema_extra={"unit": ""},
    )
    anchor: Axis[NotNegative] = Field(
        (0.0,),
        description="λ of the student's penalty λ/2 ‖θ - θ₀‖², θ₀ its initial weights",
        examples=[[0.0, 0.01]],
        json_schema_extra={"unit": "nat"},
    )
    epochs: Axis[Epochs | None] = Field(
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
