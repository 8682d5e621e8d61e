"""``judge``: what the checks of the prompts say of sampled answers."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import JudgeConfig
from w2s_ray.statistics.text_measures import measures
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import Prompts
from w2s_ray.steps.samples import VERDICT_SCHEMA, read_samples
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import VERDICTS
from w2s_ray.tasks.check import checker_of
from w2s_ray.training.progress import Throttle


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``verdicts.parquet``, and scores of each split as metrics."""
    assert step.prompts is not None
    samples = read_samples(inputs["samples"])
    splits = list(dict.fromkeys(sample["split"] for sample in samples))
    prompts = {row["prompt_id"]: row for row in Prompts(inputs["prompts"]).of(splits).to_pylist()}
    verdicts: list[dict[str, Any]] = []
    throttle = Throttle()
    with checker_of(step.prompts) as check:
        for number, sample in enumerate(samples, start=1):
            prompt = prompts[sample["prompt_id"]]
            reward, error = None, sample["error"]
            if error is None:
                reward, error = check(json.loads(prompt["check"]), prompt["prompt"], sample["text"])
            verdicts.append(
                {name: sample[name] for name in ("split", "prompt_id", "sample")}
                | {"reward": reward, "error": error}
            )
            if throttle.due():
                context.progress({"step": number, "steps": len(samples), "unit": "samples"})
    draft.write(VERDICTS, pa.Table.from_pylist(verdicts, schema=VERDICT_SCHEMA))
    best = step.config_as(JudgeConfig).best_of_n
    of_split = {
        split: _scores(
            [
                (sample, verdict)
                for sample, verdict in zip(samples, verdicts, strict=True)
                if sample["split"] == split
            ],
            best=best,
        )
        for split in splits
    }
    draft.metrics.update(splits=of_split)


def _scores(
    judged: list[tuple[dict[str, Any], dict[str, Any]]], *, best: bool
) -> dict[str, float | int | None]:
    """Scores of the samples of one split; a reward that is missing counts nowhere."""
    rewards: dict[str, list[float]] = {}
    for _, verdict in judged:
        if verdict["reward"] is not None:
            rewards.setdefault(verdict["prompt_id"], []).append(verdict["reward"])
    of_prompt = [max(of) if best else sum(of) / len(of) for of in rewards.values()]
    texts = [sample for sample, _ in judged if sample["error"] is None]
    kl = [
        sample["log_prob"] - sample["log_prob_reference"]
        for sample in texts
        if sample["log_prob_reference"] is not None
    ]
    measured = measures(
        [sample["text"] for sample in texts], [sample["cut_off"] for sample in texts]
    )
    return {
        "rate": sum(of_prompt) / len(of_prompt) if of_prompt else None,
        "judged_prompts": len(rewards),
        "samples": len(judged),
        "failed_checks": sum(verdict["reward"] is None for _, verdict in judged),
        "kl_from_reference": sum(kl) / len(kl) if kl else None,
        **measured,
    }
