"""How models are trained: the ``training`` section of a spec."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from w2s_ray.foreign.limits import limit
from w2s_ray.foreign.patterns import check_pattern
from w2s_ray.spec.fields import (
    Count,
    Epochs,
    Model,
    Number,
    Positive,
    Seed,
    Text,
    Trainable,
    as_list,
    as_number,
    mistake,
    refuse,
)

Render = Literal["transcript", "chat_template"]
IdenticalPairs = Literal["leave_out", "keep"]


class LearningRates(Model):
    """Default learning rates by what is trained; a single number sets all three."""

    full: Positive = Field(
        1.0e-5,
        description="a rate above 0 (published: 1e-5)",
        examples=[1e-05],
        json_schema_extra={"unit": ""},
    )
    last_layer: Positive = Field(
        1.0e-3,
        description="a rate above 0, on standardised features",
        examples=[0.01],
        json_schema_extra={"unit": ""},
    )
    lora: Positive = Field(
        1.0e-4, description="a rate above 0", examples=[0.0001], json_schema_extra={"unit": ""}
    )


def _expression(pattern: str) -> str:
    """A regular expression that Python reads, of bounded length."""
    name = "pattern.length"
    if len(pattern) > limit(name):
        given = f"{len(pattern):,} characters"
        raise mistake(f"at most {limit(name):,} (limit {name})", given=given)
    if wrong := check_pattern(pattern):
        raise mistake(f"all-linear, or a regular expression ({wrong})")
    return pattern


class Lora(Model):
    """Low-rank adapters, for ``trainable: lora``."""

    rank: Count = Field(
        16, description="a rank, at least 1", examples=[8], json_schema_extra={"unit": ""}
    )
    alpha: Positive = Field(
        32.0,
        description="a number above 0; updates are scaled by alpha/rank",
        examples=[16.0],
        json_schema_extra={"unit": ""},
    )
    target_modules: Annotated[Text, AfterValidator(_expression)] = Field(
        "all-linear",
        description="all-linear, or a regular expression over module names",
        examples=[".*(q|v)_proj"],
    )


class WeakOverrides(Model):
    """Training of the weak model where it differs.

    ``null`` means the student's value for ``trainable``, and the value in ``training`` for the
    fields that ``training`` has too.
    """

    objective: Literal["classifier", "implicit_reward"] = Field(
        "classifier",
        description="classifier, or implicit_reward: the weak language model learns the true "
        "preferences by DPO, and labels a pair by its implicit rewards",
        examples=["implicit_reward"],
    )
    beta: Positive = Field(
        0.1,
        description="β above 0 of DPO and of the rewards, with objective: implicit_reward",
        examples=[0.5],
        json_schema_extra={"unit": ""},
    )

    trainable: Trainable | None = Field(
        None, description="full, last_layer, lora or null", examples=["full"]
    )
    epochs: Epochs | None = Field(
        None,
        description="epochs, at least 1, or null",
        examples=[3],
        json_schema_extra={"unit": "epochs"},
    )
    learning_rate: Positive | None = Field(
        None,
        description="a rate above 0, or null",
        examples=[0.0001],
        json_schema_extra={"unit": ""},
    )
    batch_size: Count | None = Field(
        None,
        description="rows per optimizer step, or null",
        examples=[32],
        json_schema_extra={"unit": "rows"},
    )
    calibrate: Literal["none", "temperature"] = Field(
        "none",
        description="none, or temperature (of its labels, fitted on a tenth of the ground truth, "
        "which it then does not train on)",
        examples=["temperature"],
    )


def rates(value: Any) -> Any:
    """Read a single number as the learning rate of all that can be trained."""
    number = as_number(value)
    if isinstance(number, int | float) and not isinstance(number, bool):
        return dict.fromkeys(LearningRates.model_fields, number)
    if not isinstance(value, dict | LearningRates):
        raise mistake("a rate above 0, or rates for full, last_layer and lora")
    return value


class Training(Model):
    """How models are trained; part of a result's identity."""

    epochs: Epochs = Field(
        1, description="epochs, at least 1", examples=[2], json_schema_extra={"unit": "epochs"}
    )
    batch_size: Count = Field(
        16,
        description="rows per optimizer step over all workers, at least 1",
        examples=[32],
        json_schema_extra={"unit": "rows"},
    )
    max_length_tokens: Annotated[int, Field(ge=2)] = Field(
        512,
        description="maximum tokens of a text; longer texts lose their beginning",
        examples=[1024],
        json_schema_extra={"unit": "tokens"},
    )
    render: Render = Field(
        "transcript",
        description="transcript (one text for all models) or chat_template (of each model)",
        examples=["chat_template"],
    )
    bos: bool = Field(
        False,
        description="true or false: whether a text begins with the BOS token (transcript)",
        examples=[True],
    )
    identical_pairs: IdenticalPairs = Field(
        "leave_out",
        description="leave_out or keep (in their batches, where they have no gradient)",
        examples=["keep"],
    )
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="bf16 or fp32, of the model", examples=["fp32"]
    )
    learning_rate: Annotated[LearningRates, BeforeValidator(rates)] = Field(
        LearningRates(),
        description="a rate above 0, or rates for full, last_layer and lora",
        examples=[{"full": 1e-05, "lora": 0.0002}],
        json_schema_extra={"unit": ""},
    )
    clip_norm: Positive | None = Field(
        None,
        description="maximum gradient norm; null: no clipping",
        examples=[1.0],
        json_schema_extra={"unit": ""},
    )
    adam_betas: Annotated[
        tuple[
            Annotated[Number, Field(ge=0, lt=1)],
            Annotated[Number, Field(ge=0, lt=1)],
        ],
        BeforeValidator(as_list),
    ] = Field(
        (0.9, 0.999),
        description="two numbers from 0 to below 1",
        examples=[[0.9, 0.95]],
        json_schema_extra={"unit": ""},
    )
    adam_epsilon: Positive = Field(
        1.0e-8, description="a number above 0", examples=[1e-06], json_schema_extra={"unit": ""}
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="cosine (decays to 0) or constant", examples=["constant"]
    )
    solver: Literal["sgd", "newton", "lbfgs"] = Field(
        "sgd",
        description="sgd (with the settings above), or newton or lbfgs (solve last layers exactly)",
        examples=["newton"],
    )
    evaluations: Count = Field(
        1,
        description="optimizer steps that are evaluated, log-spaced from 1 to the last",
        examples=[6],
        json_schema_extra={"unit": "steps"},
    )
    label_clip: Annotated[Number, Field(gt=0, lt=0.5)] = Field(
        1.0e-3,
        description="γ: soft labels are clipped to [γ, 1 - γ]",
        examples=[0.01],
        json_schema_extra={"unit": "probability"},
    )
    label_neighbours: Count = Field(
        20,
        description="k of label_filter and relabel by knn, at least 1",
        examples=[50],
        json_schema_extra={"unit": "rows"},
    )
    lora: Lora = Field(
        Lora(), description="rank, alpha and target_modules", examples=[{"rank": 8, "alpha": 16.0}]
    )
    weak_seed: Seed | None = Field(
        None,
        description="seed of the weak model; null: the cell's seed, so each has its own",
        examples=[0],
        json_schema_extra={"unit": ""},
    )
    weak: WeakOverrides = Field(
        WeakOverrides(),
        description="trainable, epochs, learning_rate, …",
        examples=[{"epochs": 3, "learning_rate": 0.0001}],
    )

    @model_validator(mode="after")
    def _one_bos(self) -> Self:
        if self.bos and self.render == "chat_template":
            expected = mistake("no bos with render: chat_template (the template writes it)")
            refuse([(("bos",), self.bos, expected)])
        return self
