"""The spec of a study of generated text: ``task: generation``.

The weak model is aligned by preferences, texts are sampled from it, and the strong model learns
from these texts (ConG, arXiv 2510.07884, and what it is compared with). ``methods`` says what each
value of ``grid.method`` is.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from w2s_ray.spec.execution import Execution
from w2s_ray.spec.fields import (
    Axis,
    Mistake,
    Model,
    Name,
    Positive,
    Seed,
    Share,
    StoreLocation,
    as_pairs,
    distinct,
    mistake,
    refuse,
)
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.spec.methods import ALWAYS, METHODS, Method
from w2s_ray.spec.prompts import Prompts
from w2s_ray.spec.stages import Decoding, Evaluation, Finetune, PairMaking, Prefer, Preference
from w2s_ray.spec.training import Lora, Render

NOT_HERE = (
    "inference_workers",
    "offload",
    "offload_path",
    "lora_together",
    "keep_models",
    "export_models",
    "train_predictions",
)
"""Fields of ``execution`` that have no effect on generated text yet."""
_PERPLEXITY_MODEL = "evaluation", "perplexity_model"

ModelPairs = Annotated[
    tuple[tuple[str, str], ...],
    BeforeValidator(as_pairs),
    Field(min_length=1),
    AfterValidator(distinct),
]


class TextTraining(Model):
    """What the stages share; part of a result's identity."""

    trainable: Literal["full", "lora"] = Field(
        "full", description="full or lora", examples=["lora"]
    )
    lora: Lora = Field(
        Lora(), description="rank, alpha and target_modules", examples=[{"rank": 8, "alpha": 16.0}]
    )
    max_length_tokens: Annotated[int, Field(ge=2)] = Field(
        512,
        description="maximum tokens of prompt and answer; a prompt that leaves less than "
        "max_new_tokens is not answered, which is counted",
        examples=[2048],
        json_schema_extra={"unit": "tokens"},
    )
    render: Render = Field(
        "chat_template",
        description="chat_template (of each model), or transcript (the prompt as it is)",
        examples=["transcript"],
    )
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="bf16 or fp32, of the model", examples=["fp32"]
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="cosine (to 0) or constant", examples=["constant"]
    )
    warmup: Share = Field(
        0.1,
        description="fraction of optimizer steps over which the rate rises, 0 to 1",
        examples=[0.0],
        json_schema_extra={"unit": "fraction of optimizer steps"},
    )
    clip_norm: Positive | None = Field(
        1.0,
        description="maximum gradient norm; null: no clipping",
        examples=[0.5],
        json_schema_extra={"unit": ""},
    )


class TextGrid(Model):
    """The axes of a study of generated text; the cells are their product."""

    pair: ModelPairs = Field(
        description="a list of [weak, strong] pairs of model names; one model may be both",
        examples=[[["small", "large"]]],
    )
    method: Axis[Method] = Field(
        ("untrained", "sft_before", "weak_sft", "cong_s", "cong"),
        description=f"{', '.join(m for m in METHODS if m not in ALWAYS)}; "
        f"{', '.join(ALWAYS)} are always there",
        examples=[["weak_sft", "cong_s"]],
    )
    alpha: Axis[Share] = Field(
        (0.4,),
        description="α of contrastive decoding, 0 to 1 (1: the aligned model alone, from its head)",
        examples=[[0.2, 0.4, 0.8]],
        json_schema_extra={"unit": ""},
    )
    learning_rate_factor: Axis[Positive] = Field(
        (1.0,),
        description="factors on the learning rates of the strong model: of finetune, prefer and "
        "wspo, and of align for the ceiling",
        examples=[[0.3, 1.0, 3.0]],
        json_schema_extra={"unit": ""},
    )
    seed: Axis[Seed] = Field(
        (0,),
        description="seeds of sampling, adapters and row order",
        examples=[[0, 1, 2]],
        json_schema_extra={"unit": ""},
    )


class GenerationSpec(Model):
    """A study of generated text, as written in one YAML file."""

    study: Name = Field(
        description="a name of letters, digits, '.', '_' and '-'", examples=["my-study"]
    )
    task: Literal["generation"] = Field(description="generation", examples=["generation"])
    store: StoreLocation | None = Field(
        None,
        description="a folder or URI; null: ../store, relative to the spec",
        examples=["s3://my-bucket/store?region=eu-west-1"],
    )
    prompts: Prompts = Field(
        description="the prompts, and what checks their answers",
        examples=[{"source": "generate:constraints"}],
    )
    models: dict[Name, ModelSpec] = Field(
        min_length=1,
        description="models by name",
        examples=[{"small": {"source": "hf:Qwen/Qwen2.5-0.5B-Instruct"}}],
    )
    grid: TextGrid = Field(
        description="the axes of the study",
        examples=[{"pair": [["small", "large"]], "method": ["weak_sft", "cong_s"]}],
    )
    pairs: PairMaking = Field(
        PairMaking(),
        description="how preference pairs are made of a model's own samples, or given",
        examples=[{"samples": 8}],
    )
    decoding: Decoding = Field(
        Decoding(),
        description="how the texts that the strong model learns from are sampled",
        examples=[{"temperature": 0.8, "repetition_penalty": 1.2}],
    )
    evaluation: Evaluation = Field(
        Evaluation(),
        description="how the answers to the test prompts are sampled",
        examples=[{"samples": 4, "temperature": 0.8}],
    )
    align: Preference = Field(
        Preference(),
        description="DPO of the weak model and of the ceiling (published: β 0.1, rate 8e-7)",
        examples=[{"beta": 0.1, "learning_rate": 8e-07}],
    )
    finetune: Finetune = Field(
        Finetune(),
        description="fine-tuning on sampled answers (published: rate 1e-5, 2 epochs)",
        examples=[{"epochs": 2, "learning_rate": 1e-05}],
    )
    prefer: Prefer = Field(
        Prefer(),
        description="DPO after fine-tuning (published: β 0.5, rate 6e-7)",
        examples=[{"beta": 0.5, "learning_rate": 6e-07}],
    )
    wspo: Preference = Field(
        Preference(),
        description="WSPO (published: β 0.1, rate 1e-5)",
        examples=[{"beta": 0.1, "learning_rate": 1e-05}],
    )
    training: TextTraining = Field(
        TextTraining(),
        description="what all trainings share",
        examples=[{"trainable": "lora", "precision": "bf16"}],
    )
    execution: Execution = Field(
        Execution(), description="how steps are run", examples=[{"gpu_type": "H100"}]
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Check that every model of the grid is defined."""
        names = tuple(self.models)
        wrong: list[Mistake] = []
        for position, pair in enumerate(self.grid.pair):
            for side, name in enumerate(pair):
                if name not in names:
                    expected = mistake(f"one of {', '.join(names)}", names, name)
                    wrong.append((("grid", "pair", position, side), name, expected))
        outside = self.evaluation.perplexity_model
        if outside is not None and outside not in names:
            expected = mistake(f"one of {', '.join(names)}", names, outside)
            wrong.append((_PERPLEXITY_MODEL, outside, expected))
        refuse(wrong)
        return self

    @model_validator(mode="after")
    def _judges_from_outside(self) -> Self:
        """Check that the model which says how likely answers are has no part in them."""
        name = self.evaluation.perplexity_model
        paired = {self.models[of] for pair in self.grid.pair for of in pair}
        if name is not None and self.models[name] in paired:
            expected = mistake("a model of no pair in grid.pair, which it would favour")
            refuse([(_PERPLEXITY_MODEL, name, expected)])
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Check that samples of a prompt can differ, and that answers have room."""
        wrong: list[Mistake] = []
        for section in ("decoding", "evaluation"):
            new, most = getattr(self, section).max_new_tokens, self.training.max_length_tokens
            if new >= most:
                expected = mistake(f"fewer than training.max_length_tokens ({most:,})")
                wrong.append(((section, "max_new_tokens"), new, expected))
        if self.decoding.temperature == 0:
            expected = mistake("above 0: pairs are made of samples that differ")
            wrong.append((("decoding", "temperature"), self.decoding.temperature, expected))
        for field in NOT_HERE:
            given = getattr(self.execution, field)
            if given != Execution.model_fields[field].get_default():
                expected = mistake(f"no {field} with task: generation")
                wrong.append((("execution", field), given, expected))
        align, given = self.prompts.sizes.align, self.pairs.given
        if (align > 0) == (given is not None):
            is_default = "align" not in self.prompts.sizes.model_fields_set
            hint = " (align: 0 in prompts.sizes; its default is 400)" if is_default else ""
            expected = mistake(
                f"0 with pairs.given{hint}" if align else "1 or more, or pairs.given"
            )
            wrong.append((("prompts", "sizes", "align"), align, expected))
        greedy = self.evaluation.samples > 1 and self.evaluation.temperature == 0
        if greedy:
            expected = mistake("1 with temperature: 0, where all samples are the same")
            wrong.append((("evaluation", "samples"), self.evaluation.samples, expected))
        refuse(wrong)
        return self

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method of the study: those of the grid, and those that are always there."""
        chosen: Iterable[str] = (*ALWAYS, *self.grid.method)
        return tuple(method for method in METHODS if method in set(chosen))
