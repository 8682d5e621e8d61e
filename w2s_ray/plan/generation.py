"""From a spec of generated text to the unique graph of its steps.

    prompts ─▶ generate ─▶ judge ─▶ pairs ─▶ align ─▶ generate ─▶ finetune ─▶ prefer
                 (own samples)              (weak model)  (texts)   (strong model)

and of every model that a method ends with: generate (answers to the test prompts) ─▶ judge, and
perplexity under a model of no pair, where the spec names one.
Methods, values of α and studies share the steps that do not depend on them: the weak model is
aligned once.
"""

from dataclasses import replace
from typing import NamedTuple, TypeVar

from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import (
    PairsConfig,
)
from w2s_ray.plan.text_steps import TextSteps
from w2s_ray.spec.stages import Tuning
from w2s_ray.spec.text_points import TextPoint, text_points
from w2s_ray.store.text_results import UPSTREAM

TuningT = TypeVar("TuningT", bound=Tuning)


class _Arm(NamedTuple):
    """Where a method ends: the model as trained (None: as it is), its answers, their verdicts."""

    model: Step | None
    samples: Step
    verdicts: Step


class TextBuilder(TextSteps):
    """Builds the arms of one spec.

    Raises:
        InputError: an unreadable model, or prompts that cannot be read; names the field.
    """

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
        """A model aligned by preferences, given ones or between samples of the weak model."""
        spec = self.spec
        align = _faster(spec.align, factor)
        if (given := self.given_pairs()) is not None:
            inputs = {"pairs": given.key}
            return self._train("align", model, align, seed, "dpo", inputs, "", data=given.data)
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
        return self._train("align", model, align, seed, "dpo", {"pairs": pairs.key}, "")

    def _wspo(self, weak: str, strong: str, seed: int, factor: float) -> Step:
        """The strong model, whose log-ratios follow those of the weak model on its answers."""
        aligned = self._aligned(weak, weak, seed)
        texts = self._generate(weak, self.spec.decoding, ("train",), seed, aligned)
        ratios = self._ratios_of(weak, aligned, texts)
        inputs = {"samples": texts.key, "ratios": ratios.key}
        wspo = _faster(self.spec.wspo, factor)
        return self._train(
            "prefer", strong, wspo, seed, "wspo", inputs, texts.slug, compared_with=weak
        )

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


def _faster(tuning: TuningT, factor: float) -> TuningT:
    """A stage with its learning rate times ``factor``, rounded so that 3 · 1e-5 is 3e-5."""
    if factor == 1.0:
        return tuning
    rate = float(f"{tuning.learning_rate * factor:.12g}")
    return tuning.model_copy(update={"learning_rate": rate})
