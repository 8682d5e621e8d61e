"""The configurations of the steps of generated text; ``configs`` says how they become keys."""

from dataclasses import dataclass, field
from typing import Any, Literal

from w2s_ray.data.rendering import Rendering
from w2s_ray.plan.absent import without_absent
from w2s_ray.plan.configs import Config, Json, Precision, TrainConfig
from w2s_ray.spec.stages import PenaltyOn
from w2s_ray.spec.training import Render
from w2s_ray.tasks.beginnings import Part
from w2s_ray.tasks.classifiers import ClassifierKind
from w2s_ray.tasks.given_pairs import PAIRS_VERSION

Draws = Literal["answers", "rejected"]
Mode = Literal["plain", "contrastive", "proxy"]
PairSource = Literal["verdicts", "samples"]
TextObjective = Literal["sft", "dpo", "wspo"]


@dataclass(frozen=True, slots=True)
class PromptsConfig(Config):
    """``prompts`` of one split: the digest of their source, and how they are split."""

    split: str
    prompts: Json

    def as_json(self) -> dict[str, Any]:
        return {"prompts": self.prompts}


@dataclass(frozen=True, slots=True)
class GenerateConfig(Config):
    """``generate``: which model answers which prompts, and how tokens are drawn.

    Attributes:
        model: identity of the weights of the model whose tokens are drawn, before any training;
            what an input ``model`` has trained comes on top.
        mode: plain; contrastive, against the same model without the input ``model``; or proxy,
            with the log-ratio of a second model and its input ``post``.
        second: identity of the weights of that second model; None: there is none.
        alpha: of contrastive decoding; None in other modes.
        splits: of the prompts, in order.
        seed: with prompt, number of the sample and ``draws``, that of every draw.
        draws: which random numbers; answers that are paired with others have numbers of their own.
        max_length_tokens: of a prompt; a longer one is not answered, and that is recorded.
    """

    model: Json
    mode: Mode
    splits: tuple[str, ...]
    samples: int
    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int
    stop: tuple[str, ...]
    seed: int
    precision: Precision
    max_length_tokens: int
    rendering: Rendering
    second: Json | None = None
    alpha: float | None = None
    head: float = 0.0
    penalty_acts_on: PenaltyOn = "log_probs"
    draws: Draws = "answers"

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "model": self.model,
            "mode": self.mode,
            "splits": list(self.splits),
            "samples": self.samples,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
            "max_new_tokens": self.max_new_tokens,
            "stop": list(self.stop),
            "seed": self.seed,
            "precision": self.precision,
            "max_length_tokens": self.max_length_tokens,
            **self.rendering.as_json(),
        }
        if self.second is not None:
            values["second"] = self.second
        if self.mode == "contrastive":
            values |= {"alpha": self.alpha, "head": self.head}
        if self.mode == "proxy":  # earlier steps have those of the strong model
            values["log_probs"] = "combined"
        if self.draws != "answers":
            values["draws"] = self.draws
        if self.repetition_penalty != 1.0:
            values["penalty_acts_on"] = self.penalty_acts_on
        return values


@dataclass(frozen=True, slots=True)
class JudgeConfig(Config):
    """``judge``: the answers, and the check of each prompt, are inputs.

    Attributes:
        checks: what judges them: the version of the rules, or name and digest of a checker.
        best_of_n: whether a prompt counts by the best of its samples.
    """

    checks: Json
    best_of_n: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"checks": self.checks, "best_of_n": self.best_of_n}


@dataclass(frozen=True, slots=True)
class ClassifierConfig(Config):
    """``classifier``: which labelled texts it learns from, and how.

    Attributes:
        texts: what the texts and their parts depend on.
        part: the texts that it learns from.
    """

    kind: ClassifierKind
    part: Part
    texts: Json

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "part": self.part, "texts": self.texts}


@dataclass(frozen=True, slots=True)
class PerplexityConfig(Config):
    """``perplexity``: how likely a model of no pair finds the answers, which are an input.

    Attributes:
        model: identity of its weights.
        max_length_tokens: of prompt and answer, by its tokenizer.
        render: how the study's own models read a prompt; ``prompt_before`` says what follows.
        answers: how the answers were sampled: for the price alone, no part of the key.
    """

    model: Json
    precision: Precision
    max_length_tokens: int
    render: Render
    answers: GenerateConfig

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "precision": self.precision,
            "max_length_tokens": self.max_length_tokens,
            "render": self.render,
        }


@dataclass(frozen=True, slots=True)
class RatiosConfig(Config):
    """``ratios``: the weak model's log-ratio of each token of its answers, for WSPO.

    Attributes:
        model: identity of the weak model's weights before its alignment, which is an input.
        max_length_tokens, rendering: as those of the model that is trained to follow them.
        answers: how the answers were sampled: for the price alone, no part of the key.
    """

    model: Json
    precision: Precision
    max_length_tokens: int
    rendering: Rendering
    answers: GenerateConfig

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "precision": self.precision,
            "max_length_tokens": self.max_length_tokens,
            **self.rendering.as_json(),
        }


@dataclass(frozen=True, slots=True)
class PairsConfig(Config):
    """``pairs``: preferences between answers to one prompt.

    Attributes:
        source: verdicts (samples of one model that differ in their verdict), or samples (those of
            the input ``chosen`` are preferred to those of ``rejected``).
        length_tolerance: largest difference of the answers' lengths in words, by the longer one.
        most_per_prompt: pairs of one prompt, at most.
        seed: of the choice.
    """

    source: PairSource
    seed: int
    length_tolerance: float | None = None
    most_per_prompt: int = 1

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "seed": self.seed,
            "length_tolerance": self.length_tolerance,
            "most_per_prompt": self.most_per_prompt,
        }


@dataclass(frozen=True, slots=True)
class GivenPairsConfig(Config):
    """``pairs`` that the researcher has given.

    Attributes:
        data: digest of the files, and how rows are read and chosen.
        render: chat_template, which needs a question and an answer, or transcript.
    """

    data: Json
    render: Render

    def as_json(self) -> dict[str, Any]:
        return {"data": self.data, "render": self.render, "rows": PAIRS_VERSION}


@dataclass(frozen=True, slots=True)
class TextTrainConfig(TrainConfig):
    """``align``, ``finetune`` and ``prefer``.

    Attributes:
        objective: sft, dpo or wspo.
        beta: of dpo and wspo; None with sft.
        warmup: share of the optimizer steps over which the rate rises.
    """

    objective: TextObjective
    beta: float | None = None
    warmup: float = field(default=0.0, kw_only=True)

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "model": self.model,
            "training": self.training.as_json(),
            "seed": self.seed,
            "objective": self.objective,
            "warmup": self.warmup,
        }
        if self.beta is not None:
            values["beta"] = self.beta
        return without_absent(values)
