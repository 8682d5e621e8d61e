"""The steps of a study of generated text by kind: what each is given, and how it is run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from w2s_ray.capacity.execution import Execution
from w2s_ray.data.rendering import Rendering
from w2s_ray.data.sources import data_identity
from w2s_ray.errors import at
from w2s_ray.plan.configs import Config, Training
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.model_identities import model_identities
from w2s_ray.plan.step import Step, key_of
from w2s_ray.plan.text_configs import (
    ClassifierConfig,
    Draws,
    GenerateConfig,
    GivenPairsConfig,
    JudgeConfig,
    PerplexityConfig,
    PromptsConfig,
    RatiosConfig,
    TextTrainConfig,
)
from w2s_ray.plan.text_layouts import TextLayouts
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.spec.prompts import SPLITS
from w2s_ray.spec.stages import Preference, Sampling, Tuning
from w2s_ray.store.text_results import PROMPTS_OF
from w2s_ray.tasks.beginnings import Part, texts_identity
from w2s_ray.tasks.check import checks_identity
from w2s_ray.tasks.classifiers import ClassifierKind
from w2s_ray.tasks.prompts import prompts_identity


class TextSteps:
    """Makes the steps of one spec, each once.

    Raises:
        InputError: an unreadable model, or prompts that cannot be read; names the field.
    """

    def __init__(self, spec: GenerationSpec) -> None:
        self.spec = spec
        self.steps: dict[str, Step] = {}
        self.layouts = TextLayouts(spec)
        self.rendering = Rendering(spec.training.render)
        self.identities = model_identities(
            spec.models, spec.training, plain=spec.evaluation.perplexity_model
        )
        with at("prompts"):
            self.checks = checks_identity(spec.prompts)
            self.prompts = {
                split: self._prompts(split) for split in SPLITS if spec.prompts.rows(split)
            }

    def _prompts(self, split: str) -> Step:
        """The prompts of a split."""
        config = PromptsConfig(split, prompts_identity(self.spec.prompts, split))
        return self._add("prompts", f"{self.spec.study}-{split}", config, {})

    def _prompts_of(self, splits: Sequence[str]) -> dict[str, str]:
        """The prompts of several splits as inputs."""
        return {f"{PROMPTS_OF}{split}": self.prompts[split].key for split in splits}

    def given_pairs(self) -> Step | None:
        """The pairs of the researcher's own; None where they are made of samples."""
        given = self.spec.pairs.given
        if given is None:
            return None
        data = given.as_data(self.spec.prompts.seed)
        with at("pairs", "given"):
            config = GivenPairsConfig(data_identity(data), self.rendering.render)
        inputs = self._prompts_of(tuple(self.prompts))
        return self._add("pairs", f"{self.spec.study}-given", config, inputs, data=data)

    def _generate(
        self,
        model: str,
        sampling: Sampling,
        splits: tuple[str, ...],
        seed: int,
        trained: Step | None = None,
        *,
        alpha: float | None = None,
        draws: Draws = "answers",
    ) -> Step:
        """Samples of a model; with ``alpha`` contrasted with itself before its training."""
        config = replace(self._sampling(model, sampling, splits, seed), draws=draws)
        if alpha is not None:
            head = self.spec.decoding.head
            config = replace(config, mode="contrastive", alpha=alpha, head=head)
        name = f"{splits[0]}-{model}" + ("" if trained is None else f"-{trained.kind}")
        inputs = self._prompts_of(splits)
        if trained is not None:
            inputs["model"] = trained.key
        slug = f"{name}{'' if alpha is None else f'-a{alpha:g}'}-s{seed}"
        return self._add("generate", slug, config, inputs, model=model)

    def _sampling(
        self, model: str, sampling: Sampling, splits: tuple[str, ...], seed: int
    ) -> GenerateConfig:
        training = self.spec.training
        return GenerateConfig(
            model=self.identities[model],
            mode="plain",
            splits=splits,
            samples=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            penalty_acts_on=getattr(sampling, "penalty_acts_on", "log_probs"),
            max_new_tokens=sampling.max_new_tokens,
            stop=sampling.stop,
            seed=seed,
            precision=training.precision,
            max_length_tokens=training.max_length_tokens,
            rendering=self.rendering,
        )

    def _judge(self, samples: Step, *, best_of_n: bool = False, part: Part = "reward") -> Step:
        """Verdicts on samples; those of a classifier are those of one ``part`` of the texts."""
        splits = samples.config_as(GenerateConfig).splits
        inputs = {**self._prompts_of(splits), "samples": samples.key}
        if self.spec.prompts.classifier is not None:
            inputs["classifier"] = self._classifier(part).key
        return self._add("judge", samples.slug, JudgeConfig(self.checks, best_of_n), inputs)

    def _audit_of(self, samples: Step) -> dict[str, str]:
        """What the classifier that nothing is trained on says, as a role of a cell."""
        if self.spec.prompts.classifier is None:
            return {}
        return {"audit": self._judge(samples, part="audit").key}

    def _classifier(self, part: Part) -> Step:
        """The classifier of the rewards, or the one of another kind that audits them."""
        with at("prompts"):
            texts = texts_identity(self.spec.prompts)
        kind: ClassifierKind = "logistic" if part == "reward" else "naive_bayes"
        config = ClassifierConfig(kind, part, texts)
        return self._add("classifier", f"{self.spec.study}-{part}", config, {})

    def _perplexity_of(self, samples: Step) -> dict[str, str]:
        """The perplexity of answers as a role of a cell, if the spec asks for it."""
        name, training = self.spec.evaluation.perplexity_model, self.spec.training
        if name is None:
            return {}
        answers = samples.config_as(GenerateConfig)
        config = PerplexityConfig(
            self.identities[name],
            training.precision,
            training.max_length_tokens,
            training.render,
            answers,
        )
        inputs = {**self._prompts_of(answers.splits), "samples": samples.key}
        step = self._add("perplexity", f"{name}-{samples.slug}", config, inputs, model=name)
        return {"perplexity": step.key}

    def _ratios_of(self, weak: str, aligned: Step, samples: Step) -> Step:
        """The weak model's log-ratios of its answers."""
        training = self.spec.training
        answers = samples.config_as(GenerateConfig)
        config = RatiosConfig(
            self.identities[weak],
            training.precision,
            training.max_length_tokens,
            self.rendering,
            answers,
        )
        inputs = {
            **self._prompts_of(answers.splits),
            "samples": samples.key,
            "post": aligned.key,
        }
        return self._add("ratios", samples.slug, config, inputs, model=weak, second=weak)

    def _train(
        self,
        kind: str,
        model: str,
        tuning: Tuning,
        seed: int,
        objective: Any,
        inputs: dict[str, str],
        slug: str,
        *,
        compared_with: str | None = None,
        data: DataSpec | None = None,
    ) -> Step:
        """A model, trained in one stage.

        Args:
            compared_with: a model of which it must have the tokens.
            data: where the rows come from, if they were given.
        """
        config = TextTrainConfig(
            self.identities[model],
            self._training(tuning),
            seed,
            objective,
            tuning.beta if isinstance(tuning, Preference) else None,
            warmup=self.spec.training.warmup,
        )
        if "samples" in inputs:
            inputs = {**self._prompts_of(("train",)), **inputs}
        name = f"{model}-{objective}-{slug or f's{seed}'}"
        return self._add(kind, name, config, inputs, model=model, second=compared_with, data=data)

    def _training(self, tuning: Tuning) -> Training:
        training = self.spec.training
        return Training(
            trainable=training.trainable,
            learning_rate=tuning.learning_rate,
            epochs=tuning.epochs,
            batch_size=tuning.batch_size,
            max_length_tokens=training.max_length_tokens,
            precision=training.precision,
            schedule=training.schedule,
            clip_norm=training.clip_norm,
            adam_betas=(0.9, 0.999),
            adam_epsilon=1e-8,
            lora=training.lora if training.trainable == "lora" else None,
            rendering=self.rendering,
        )

    def _add(
        self,
        kind_name: str,
        slug: str,
        config: Config,
        inputs: dict[str, str],
        *,
        model: str | None = None,
        second: str | None = None,
        data: DataSpec | None = None,
    ) -> Step:
        """The step of this identity, added to the plan unless it is there."""
        kind = KINDS[kind_name]
        key = key_of(kind, config, inputs)
        if key not in self.steps:
            self.steps[key] = Step(
                kind,
                key,
                slug,
                config,
                inputs,
                self._execution(config, inputs, model, second),
                None if model is None else self.spec.models[model],
                data,
                None if model is None else self.identities[model],
                prompts=self.spec.prompts,
                second_model=None if second is None else self.spec.models[second],
            )
        return self.steps[key]

    def _execution(
        self, config: Config, inputs: dict[str, str], model: str | None, second: str | None
    ) -> Execution:
        """How a step is run."""
        if model is None:
            return Execution()
        if isinstance(config, TextTrainConfig):
            return self.layouts.training(model, config.training)
        if isinstance(config, PerplexityConfig):
            return self.layouts.generation([model])
        if isinstance(config, RatiosConfig):
            return self.layouts.generation([model, model])
        assert isinstance(config, GenerateConfig)
        others = [] if second is None else [second, second]  # after and before alignment
        reference = [model] if "model" in inputs else []
        return self.layouts.generation([model, *reference, *others])
