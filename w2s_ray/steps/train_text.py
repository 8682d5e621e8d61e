"""``align``, ``finetune`` and ``prefer``: a language model, trained on answers or on pairs of them.

Which objective it has says its configuration; ``training.fit_text`` trains it.
"""

from collections.abc import Mapping
from functools import partial

from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import TextTrainConfig
from w2s_ray.steps.context import Context, fit_in_process
from w2s_ray.steps.examples import Examples, answers_of, pairs_of
from w2s_ray.steps.ratios import read_ratios
from w2s_ray.steps.targets import adam
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.training.fit_text import fit_text
from w2s_ray.training.oom_retry import retry_on_oom
from w2s_ray.training.text_job import Dpo, Sft, TextJob, Wspo


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes the trained parameters and the curve."""
    config = step.config_as(TextTrainConfig)
    training = config.training
    rows = pairs_of(inputs["pairs"]) if "pairs" in inputs else answers_of(inputs)
    assert step.model is not None
    objective: Sft | Dpo | Wspo = Sft()
    if config.objective == "dpo":
        assert config.beta is not None
        objective = Dpo(config.beta)
    elif config.objective == "wspo":
        objective = _wspo(config.beta, inputs["ratios"], rows)
    job = TextJob(
        name=f"{step.slug}-{step.key}",
        model=step.model,
        initial=inputs["model"].file(WEIGHTS) if "model" in inputs else None,
        row_ids=rows.row_ids,
        prompts=rows.prompts,
        answers=rows.answers,
        objective=objective,
        trainable=training.trainable,
        lora=training.lora,
        seed=config.seed,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        warmup=config.warmup,
        adam=adam(config),
        max_length_tokens=training.max_length_tokens,
        precision=training.precision,
        render=training.rendering.render,
        execution=step.execution,
        checkpoints=context.checkpoints,
    )
    if context.fit is not fit_in_process:  # workers keep nothing: all of them make the references
        draft.metrics.update(context.fit(job, draft.folder, context.progress))
    else:
        fit = partial(fit_text, out=draft.folder, progress=context.progress, keep=context.keep)
        draft.metrics.update(retry_on_oom(job, fit))
    draft.metrics.update(rows=len(rows.row_ids), left_out=rows.left_out)


def _wspo(beta: float | None, ratios: Artifact, rows: Examples) -> Wspo:
    """The objective with the weak model's log-ratios of these answers."""
    assert beta is not None
    of_row = read_ratios(ratios)
    return Wspo(beta, tuple(of_row[row_id] for row_id in rows.row_ids))
