"""From a spec of generated text to the unique graph of its steps.

    prompts ─▶ generate ─▶ judge ─▶ pairs ─▶ align ─▶ generate ─▶ finetune ─▶ prefer
                 (own samples)              (weak model)  (texts)   (strong model)

and of every model that a method ends with: generate (answers to the test prompts) ─▶ judge, and
perplexity under a model of no pair, where the spec names one.
Methods, values of α and studies share the steps that do not depend on them: the weak model is
aligned once.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from w2s_ray.capacity.execution import Execution
from w2s_ray.catalog.identity import template_identity, weights_identity
from w2s_ray.catalog.shapes import shape
from w2s_ray.data.rendering import Rendering
from w2s_ray.errors import InputError, at
from w2s_ray.plan.configs import Config, Training
from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Step, key_of
from w2s_ray.plan.text_configs import (
    ClassifierConfig,
    Draws,
    GenerateConfig,
    JudgeConfig,
    PairsConfig,
    PerplexityConfig,
    PromptsConfig,
    TextTrainConfig,
)
from w2s_ray.plan.text_layouts import TextLayouts
from w2s_ray.spec.generation import GenerationSpec, Preference, Sampling, Tuning
from w2s_ray.spec.prompts import SPLITS
from w2s_ray.spec.text_points import TextPoint, text_points
from w2s_ray.store.text_results import PROMPTS_OF, UPSTREAM
from w2s_ray.tasks.beginnings import Part, texts_identity
from w2s_ray.tasks.check import checks_identity
from w2s_ray.tasks.classifiers import ClassifierKind
from w2s_ray.tasks.prompts import prompts_identity

TuningT = TypeVar("TuningT", bound=Tuning)


class _Arm(NamedTuple):
    """Where a method ends: the model as trained (None: as it is), its answers, their verdicts."""

    model: Step | None
    samples: Step
    verdicts: Step


class TextBuilder:
    """Builds the steps of one spec; a method for each kind of step.

    Raises:
        InputError: an unreadable model, or prompts that cannot be read; names the field.
    """

    def __init__(self, spec: GenerationSpec) -> None:
        self.spec = spec
        self.steps: dict[str, Step] = {}
        self.layouts = TextLayouts(spec)
        self.rendering = Rendering(spec.training.render)
        self.identities = {name: self._model_identity(name) for name in spec.models}
        with at("prompts"):
            self.checks = checks_identity(spec.prompts)
            self.prompts = {
                split: self._prompts(split) for split in SPLITS if spec.prompts.rows(split)
            }

    def plan(self) -> Plan:
        """All steps and cells."""
        cells = tuple(self._cell(point) for point in text_points(self.spec))
        return Plan(self.spec.study, self.steps, cells, task="generation")

    def _cell(self, point: TextPoint) -> Cell:
        factors = self.spec.grid.learning_rate_factor
        factor = point.learning_rate_factor or (1.0 if 1.0 in factors else factors[0])
        of_all = point._replace(learning_rate_factor=factor)
        weak, ceiling = (self._arm(of_all._replace(method=name)) for name in ("weak", "ceiling"))
        arm = self._arm(point)
        keys = {
            **self._prompts_of(self._test_splits),
            "weak": weak.samples.key,
            "weak_evaluate": weak.verdicts.key,
            "ceiling": ceiling.samples.key,
            "ceiling_evaluate": ceiling.verdicts.key,
            "student": arm.samples.key,
            "student_evaluate": arm.verdicts.key,
            **({} if arm.model is None else {"model": arm.model.key}),
            **self._perplexity_of(arm.samples),
            **self._audit_of(arm.samples),
            **self._upstream(arm.samples),
        }
        values = {"study": self.spec.study, "prompts": self.spec.prompts.name, **point._asdict()}
        return Cell(values, keys)

    def _prompts(self, split: str) -> Step:
        """The prompts of a split."""
        config = PromptsConfig(split, prompts_identity(self.spec.prompts, split))
        return self._add("prompts", f"{self.spec.study}-{split}", config, {})

    def _prompts_of(self, splits: Sequence[str]) -> dict[str, str]:
        """The prompts of several splits as inputs."""
        return {f"{PROMPTS_OF}{split}": self.prompts[split].key for split in splits}

    def _upstream(self, step: Step) -> dict[str, str]:
        """The steps that one depends on, nearest first, by role."""
        found: dict[str, None] = {}
        stack = list(step.inputs.values())
        while stack:
            key = stack.pop(0)
            if key not in found:
                found[key] = None
                stack += self.steps[key].inputs.values()
        return {
            f"{UPSTREAM}{number}_{self.steps[key].kind}": key
            for number, key in enumerate(found, start=1)
        }

    def _arm(self, point: TextPoint) -> _Arm:
        """The steps of one method."""
        weak, strong, method, seed = point.weak, point.strong, point.method, point.seed
        if method in ("weak_before", "untrained", "best_of_n"):
            samples = self._answers(weak if method == "weak_before" else strong, None, seed)
            return _Arm(None, samples, self._judge(samples, best_of_n=method == "best_of_n"))
        if method == "proxy":
            samples = self._proxy_answers(weak, strong, seed)
            return _Arm(None, samples, self._judge(samples))
        model = self._trained(point)
        samples = self._answers(weak if method == "weak" else strong, model, seed)
        return _Arm(model, samples, self._judge(samples))

    def _trained(self, point: TextPoint) -> Step:
        """The model that a method ends with."""
        weak, strong, method, seed = point.weak, point.strong, point.method, point.seed
        if method == "weak":
            return self._aligned(weak, weak, seed)
        factor = point.learning_rate_factor or 1.0
        if method == "ceiling":
            return self._aligned(weak, strong, seed, 1.0 if weak == strong else factor)
        if method == "wspo":
            return self._wspo(weak, strong, seed, factor)
        texts = self._texts(point)
        finetune = _faster(self.spec.finetune, factor)
        if method == "weak_sft_published":
            finetune = finetune.model_copy(update={"epochs": max(1, finetune.epochs // 2)})
        tuned = self._train(
            "finetune", strong, finetune, seed, "sft", {"samples": texts.key}, texts.slug
        )
        if method != "cong":
            return tuned
        plain = self.spec.decoding.model_copy(update={"repetition_penalty": 1.0})
        own = self._generate(strong, plain, ("train",), seed, tuned, draws="rejected")
        pairs = self._add(
            "pairs",
            f"{texts.slug}-over-{strong}",
            PairsConfig("samples", seed),
            {**self._prompts_of(("train",)), "chosen": texts.key, "rejected": own.key},
        )
        inputs = {"pairs": pairs.key, "model": tuned.key}
        prefer = _faster(self.spec.prefer, factor)
        return self._train("prefer", strong, prefer, seed, "dpo", inputs, pairs.slug)

    def _texts(self, point: TextPoint) -> Step:
        """The answers that a method's strong model is fine-tuned on."""
        weak, decoding = point.weak, self.spec.decoding
        if point.method == "sft_before":
            return self._generate(weak, decoding, ("train",), point.seed)
        aligned = self._aligned(weak, weak, point.seed)
        if point.method == "weak_sft_published":
            decoding = decoding.model_copy(update={"repetition_penalty": 1.0})
        return self._generate(weak, decoding, ("train",), point.seed, aligned, alpha=point.alpha)

    def _aligned(self, weak: str, model: str, seed: int, factor: float = 1.0) -> Step:
        """A model aligned by preferences between samples of the weak model."""
        spec = self.spec
        sampling = spec.decoding.model_copy(
            update={"samples": spec.pairs.samples, "repetition_penalty": 1.0}
        )
        own = self._generate(weak, sampling, ("align",), seed)
        pairs = self._add(
            "pairs",
            own.slug,
            PairsConfig("verdicts", seed, spec.pairs.length_tolerance, spec.pairs.most_per_prompt),
            {
                **self._prompts_of(("align",)),
                "samples": own.key,
                "verdicts": self._judge(own).key,
            },
        )
        align = _faster(spec.align, factor)
        return self._train("align", model, align, seed, "dpo", {"pairs": pairs.key}, "")

    def _wspo(self, weak: str, strong: str, seed: int, factor: float) -> Step:
        """The strong model, whose log-ratios follow those of the weak model on its answers."""
        aligned = self._aligned(weak, weak, seed)
        texts = self._generate(weak, self.spec.decoding, ("train",), seed, aligned)
        inputs = {"samples": texts.key, "post": aligned.key}
        wspo = _faster(self.spec.wspo, factor)
        return self._train("prefer", strong, wspo, seed, "wspo", inputs, texts.slug, second=weak)

    def _answers(self, model: str, trained: Step | None, seed: int) -> Step:
        """Answers to the test prompts."""
        return self._generate(model, self.spec.evaluation, self._test_splits, seed, trained)

    @property
    def _test_splits(self) -> tuple[str, ...]:
        return ("test", "transfer") if self.spec.prompts.has_transfer else ("test",)

    def _proxy_answers(self, weak: str, strong: str, seed: int) -> Step:
        """Answers of the strong model, shifted by the weak model's log-ratio."""
        aligned = self._aligned(weak, weak, seed)
        config = self._sampling(strong, self.spec.evaluation, self._test_splits, seed)
        config = replace(config, mode="proxy", second=self.identities[weak])
        return self._add(
            "generate",
            f"proxy-{strong}-{weak}-s{seed}",
            config,
            {**self._prompts_of(self._test_splits), "post": aligned.key},
            model=strong,
            second=weak,
        )

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
        second: str | None = None,
    ) -> Step:
        """A model, trained in one stage."""
        config = TextTrainConfig(
            self.identities[model],
            self._training(tuning),
            seed,
            objective,
            tuning.beta if isinstance(tuning, Preference) else None,
            warmup=self.spec.training.warmup,
            second=None if second is None else self.identities[second],
        )
        if "samples" in inputs:
            inputs = {**self._prompts_of(("train",)), **inputs}
        name = f"{model}-{objective}-{slug or f's{seed}'}"
        return self._add(kind, name, config, inputs, model=model, second=second)

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
                None,
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
        assert isinstance(config, GenerateConfig)
        others = [] if second is None else [second, second]  # after and before alignment
        reference = [model] if "model" in inputs else []
        return self.layouts.generation([model, *reference, *others])

    def _model_identity(self, name: str) -> dict[str, Any]:
        """What the weights of the model ``name`` are, and the template that it reads prompts by."""
        model, wanted = self.spec.models[name], self.spec.training.max_length_tokens
        with at("models", name):
            known = shape(model)
            if known is not None and wanted > known.max_positions:
                raise InputError(
                    f"training.max_length_tokens: given {wanted}, expected at most "
                    f"{known.max_positions}, the positions of model {name!r}",
                    ("training", "max_length_tokens"),
                )
            identity = weights_identity(model)
            is_outside = name == self.spec.evaluation.perplexity_model
            if self.spec.training.render == "chat_template" and not is_outside:
                identity |= template_identity(model)
            return identity


def _faster(tuning: TuningT, factor: float) -> TuningT:
    """A stage with its learning rate times ``factor``, rounded so that 3 · 1e-5 is 3e-5."""
    if factor == 1.0:
        return tuning
    rate = float(f"{tuning.learning_rate * factor:.12g}")
    return tuning.model_copy(update={"learning_rate": rate})
