"""How text is sampled in a study of generated text, and how models are trained in each stage."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from w2s_ray.spec.fields import (
    Count,
    Epochs,
    Model,
    Name,
    NotNegative,
    Number,
    Positive,
    Share,
    Text,
    as_list,
    mistake,
    refuse,
)
from w2s_ray.spec.given_pairs import GivenPairs

PenaltyOn = Literal["log_probs", "released"]


class Sampling(Model):
    """How answers are sampled, token by token."""

    samples: Count = Field(
        1,
        description="answers per prompt, at least 1",
        examples=[4],
        json_schema_extra={"unit": "samples"},
    )
    temperature: NotNegative = Field(
        0.8,
        description="a temperature; 0: the most probable token, of one sample",
        examples=[1.0],
        json_schema_extra={"unit": ""},
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] = Field(
        0.95,
        description="probability of the nucleus that is sampled from, above 0 to 1",
        examples=[1.0],
        json_schema_extra={"unit": "probability"},
    )
    repetition_penalty: Annotated[Number, Field(ge=1)] = Field(
        1.0,
        description="divisor of the scores of tokens that were seen, 1 (none) or above",
        examples=[1.2],
        json_schema_extra={"unit": ""},
    )
    max_new_tokens: Count = Field(
        128,
        description="tokens of an answer, at most, and fewer than training.max_length_tokens; one "
        "that has not ended by then is cut off",
        examples=[2048],
        json_schema_extra={"unit": "tokens"},
    )
    stop: Annotated[tuple[Text, ...], BeforeValidator(as_list)] = Field(
        (), description="texts that end an answer, and are no part of it", examples=[["\n\n"]]
    )


class Decoding(Sampling):
    """How the texts that the strong model learns from are sampled from the weak model."""

    repetition_penalty: Annotated[Number, Field(ge=1)] = Field(
        1.2,
        description="divisor of the scores of tokens that were seen, 1 (none) or above",
        examples=[1.0],
        json_schema_extra={"unit": ""},
    )
    penalty_acts_on: PenaltyOn = Field(
        "log_probs",
        description="log_probs (of generated tokens), or released (as the published code: scores "
        "with an offset of (1 - α) log V, and the prompt's tokens too)",
        examples=["released"],
    )
    head: Share = Field(
        0.1,
        description="tokens with a probability of at least head · max are scored, 0 to 1",
        examples=[0.1],
        json_schema_extra={"unit": "probability"},
    )


class Evaluation(Sampling):
    """How the answers to the test prompts are sampled."""

    samples: Count = Field(
        4,
        description="answers per prompt, at least 1",
        examples=[8],
        json_schema_extra={"unit": "samples"},
    )
    perplexity_model: Name | None = Field(
        None,
        description="name of a model of no pair, under which answers have their perplexity; null: "
        "none is computed",
        examples=["gpt2"],
    )


class PairMaking(Model):
    """How preference pairs are made of a model's own samples, or which ones are given."""

    samples: Annotated[int, Field(ge=2)] = Field(
        8,
        description="samples per prompt that pairs are chosen from, at least 2",
        examples=[5],
        json_schema_extra={"unit": "samples"},
    )
    length_tolerance: NotNegative = Field(
        0.2,
        description="largest difference of the answers' lengths in words, by the longer one",
        examples=[0.5],
        json_schema_extra={"unit": "fraction"},
    )
    most_per_prompt: Count = Field(
        2,
        description="pairs of one prompt, at most",
        examples=[1],
        json_schema_extra={"unit": "pairs"},
    )
    given: GivenPairs | None = Field(
        None,
        description="pairs of your own that align models, in place of judged samples (with "
        "prompts.sizes.align: 0); null: pairs are made of samples",
        examples=[{"source": "pairs.jsonl", "rows": 5000}],
    )

    @model_validator(mode="after")
    def _made_or_given(self) -> Self:
        made = type(self).model_fields.keys() - {"given"}
        if self.given is not None and (extra := sorted(made & self.model_fields_set)):
            expected = mistake("nothing beside given, whose pairs are taken as they are")
            refuse([((name,), getattr(self, name), expected) for name in extra])
        return self


class Tuning(Model):
    """How a model is trained in one stage."""

    epochs: Epochs = Field(
        1, description="epochs, at least 1", examples=[2], json_schema_extra={"unit": "epochs"}
    )
    batch_size: Count = Field(
        16,
        description="rows per optimizer step, at least 1",
        examples=[64],
        json_schema_extra={"unit": "rows"},
    )
    learning_rate: Positive = Field(
        1.0e-5,
        description="a rate above 0",
        examples=[8e-07],
        json_schema_extra={"unit": ""},
    )


class Finetune(Tuning):
    """How the strong model is fine-tuned on sampled answers."""

    epochs: Epochs = Field(
        2, description="epochs, at least 1", examples=[1], json_schema_extra={"unit": "epochs"}
    )


class Preference(Tuning):
    """How a model is trained on preference pairs (DPO)."""

    beta: Positive = Field(
        0.1,
        description="β of the implicit reward β log(π/π_ref), above 0",
        examples=[0.5],
        json_schema_extra={"unit": ""},
    )


class Prefer(Preference):
    """How the strong model is trained on preferences after its fine-tuning (DPO)."""

    beta: Positive = Field(
        0.5,
        description="β of the implicit reward β log(π/π_ref), above 0",
        examples=[0.1],
        json_schema_extra={"unit": ""},
    )
