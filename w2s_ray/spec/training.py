"""How models are trained: the ``training`` section of a spec."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from w2s_ray.spec.fields import (
    Count,
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

    full: Positive = Field(1.0e-5, description="a rate above 0 (published: 1e-5)")
    last_layer: Positive = Field(1.0e-3, description="a rate above 0, on standardised features")
    lora: Positive = Field(1.0e-4, description="a rate above 0")


class Lora(Model):
    """Low-rank adapters, for ``trainable: lora``."""

    rank: Count = Field(16, description="a rank, at least 1")
    alpha: Positive = Field(32.0, description="a number above 0; updates are scaled by alpha/rank")
    target_modules: Text = Field(
        "all-linear", description="all-linear, or a regular expression over module names"
    )


class WeakOverrides(Model):
    """Training of the weak model where it differs.

    ``null`` means the student's value for ``trainable``, and the value in ``training`` for the
    other fields.
    """

    trainable: Trainable | None = Field(None, description="full, last_layer, lora or null")
    epochs: Count | None = Field(None, description="epochs, at least 1, or null")
    learning_rate: Positive | None = Field(None, description="a rate above 0, or null")
    batch_size: Count | None = Field(None, description="rows per optimizer step, or null")


def _rates(value: Any) -> Any:
    number = as_number(value)
    if isinstance(number, int | float) and not isinstance(number, bool):
        return dict.fromkeys(LearningRates.model_fields, number)
    if not isinstance(value, dict | LearningRates):
        raise mistake("a rate above 0, or rates for full, last_layer and lora")
    return value


class Training(Model):
    """How models are trained; part of a result's identity."""

    epochs: Count = Field(1, description="epochs, at least 1")
    batch_size: Count = Field(
        16, description="rows per optimizer step over all workers, at least 1"
    )
    max_length_tokens: Annotated[int, Field(ge=2)] = Field(
        512, description="maximum tokens of a text; longer texts lose their beginning"
    )
    render: Render = Field(
        "transcript",
        description="transcript (one text for all models) or chat_template (of each model)",
    )
    bos: bool = Field(
        False, description="true or false: whether a text begins with the BOS token (transcript)"
    )
    identical_pairs: IdenticalPairs = Field(
        "leave_out",
        description="leave_out or keep (in their batches, where they have no gradient)",
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="bf16 or fp32, of the model")
    learning_rate: Annotated[LearningRates, BeforeValidator(_rates)] = Field(
        LearningRates(), description="a rate above 0, or rates for full, last_layer and lora"
    )
    clip_norm: Positive | None = Field(None, description="maximum gradient norm; null: no clipping")
    adam_betas: Annotated[
        tuple[
            Annotated[Number, Field(ge=0, lt=1)],
            Annotated[Number, Field(ge=0, lt=1)],
        ],
        BeforeValidator(as_list),
    ] = Field((0.9, 0.999), description="two numbers from 0 to below 1")
    adam_epsilon: Positive = Field(1.0e-8, description="a number above 0")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="cosine (decays to 0) or constant"
    )
    solver: Literal["sgd", "newton", "lbfgs"] = Field(
        "sgd",
        description="sgd (with the settings above), or newton or lbfgs (solve last layers exactly)",
    )
    label_clip: Annotated[Number, Field(gt=0, lt=0.5)] = Field(
        1.0e-3, description="γ: soft labels are clipped to [γ, 1 - γ]"
    )
    lora: Lora = Field(Lora(), description="rank, alpha and target_modules")
    weak_seed: Seed | None = Field(
        None, description="seed of the weak model; null: the cell's seed, so each has its own"
    )
    weak: WeakOverrides = Field(WeakOverrides(), description="trainable, epochs, learning_rate, …")

    @model_validator(mode="after")
    def _one_bos(self) -> Self:
        if self.bos and self.render == "chat_template":
            expected = mistake("no bos with render: chat_template (the template writes it)")
            refuse([(("bos",), self.bos, expected)])
        return self
