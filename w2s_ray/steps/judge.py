"""``judge``: what the checks of the prompts say of sampled answers.

A check of the researcher's own may take long, so its verdicts are kept shard by shard. A shard in
which a check has failed is not kept: what made it fail (memory, a service, a variable that was not
set) may be mended before the next try, and is no part of the step's key.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import JudgeConfig
from w2s_ray.statistics.text_measures import measures
from w2s_ray.steps.classifier import read_classifier
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import prompts_of
from w2s_ray.steps.samples import VERDICT_SCHEMA, kept_rows, read_samples
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import VERDICTS
from w2s_ray.store.text_results import best_samples
from w2s_ray.tasks.check import Checker, ClassifierChecker, checker_of, checks_identity
from w2s_ray.training.progress import Throttle

SHARD = 64
"""Answers whose verdicts are kept together."""


Verdicts = list[dict[str, Any]]  # rows of ``VERDICT_SCHEMA``


class _NotToKeep(Exception):
    """A shard in which a check has failed."""

    def __init__(self, verdicts: Verdicts) -> None:
        super().__init__()
        self.verdicts = verdicts


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``verdicts.parquet``, and scores of each split as metrics.

    Raises:
        ValueError: no sample has a reward; names the first reason. Or the researcher's check does
            not end.
    """
    assert step.prompts is not None
    _check_same(step)
    samples = read_samples(inputs["samples"])
    splits = list(dict.fromkeys(sample["split"] for sample in samples))
    prompts = {row["prompt_id"]: row for row in prompts_of(inputs, splits).to_pylist()}
    verdicts: Verdicts = []
    throttle = Throttle()

    def progress(of_shard: int) -> None:
        if throttle.due():
            done = len(verdicts) + of_shard
            context.progress({"step": done, "steps": len(samples), "unit": "samples"})

    with _checker(step, inputs) as check:
        for first in range(0, len(samples), SHARD):
            shard = samples[first : first + SHARD]
            make = partial(_verdicts, check, prompts, shard, progress)
            if step.prompts.checker is None:  # quicker than to keep them
                verdicts += make()
                continue
            name = f"verdicts-{first:06}-of-{SHARD}"
            to_keep = partial(_to_keep, step, check, shard, make)
            try:
                verdicts += kept_rows(context.keep, name, VERDICT_SCHEMA, to_keep).to_pylist()
            except _NotToKeep as failed:
                verdicts += failed.verdicts
    _check_same(step)  # it may have been edited while it ran
    if all(verdict["reward"] is None for verdict in verdicts):
        raise ValueError(f"none of {len(verdicts):,} samples has a reward: {verdicts[0]['error']}")
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


def _verdicts(
    check: Checker,
    prompts: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    progress: Callable[[int], None],
) -> Verdicts:
    """The verdict on each sample; ``progress`` takes how many there are."""
    verdicts: Verdicts = []
    for sample in samples:
        prompt = prompts[sample["prompt_id"]]
        reward, error = None, sample["error"]
        if error is None:
            reward, error = check(json.loads(prompt["check"]), prompt["prompt"], sample["text"])
        same = {name: sample[name] for name in ("split", "prompt_id", "sample")}
        verdicts.append({**same, "reward": reward, "error": error})
        progress(len(verdicts))
    return verdicts


def _to_keep(
    step: Step, check: Checker, samples: Sequence[Mapping[str, Any]], make: Callable[[], Verdicts]
) -> Verdicts:
    """The verdicts of a shard.

    Raises:
        _NotToKeep: a check has failed; with the verdicts.
    """
    verdicts = make()
    _check_same(step, check)  # its process may have started anew, with what the file is now
    errors = [(of["error"], sample["error"]) for of, sample in zip(verdicts, samples, strict=True)]
    if any(error != of_sample for error, of_sample in errors):
        raise _NotToKeep(verdicts)
    return verdicts


def _checker(step: Step, inputs: Mapping[str, Artifact]) -> Checker:
    """A classifier where one is an input, else the checks of the prompts."""
    assert step.prompts is not None
    if "classifier" in inputs:
        return ClassifierChecker(read_classifier(inputs["classifier"]))
    if step.prompts.checker is not None and "torch" in sys.modules:
        from w2s_ray.training.oom_retry import free_memory

        free_memory()  # what this process keeps of a GPU, the checker's may need
    return checker_of(step.prompts)


def _check_same(step: Step, check: Checker | None = None) -> None:
    """Refuses to judge by other checks than those that the key names.

    Raises:
        ValueError: the checker was changed after the study was planned.
    """
    assert step.prompts is not None
    if checks_identity(step.prompts, check) != step.config_as(JudgeConfig).checks:
        raise ValueError("the checker has changed since the study was planned; run the study again")


def _scores(
    judged: list[tuple[dict[str, Any], dict[str, Any]]], *, best: bool
) -> dict[str, float | int | None]:
    """Scores of the samples of one split; a reward that is missing counts nowhere."""
    rewards: dict[str, list[float]] = {}
    for _, verdict in judged:
        if verdict["reward"] is not None:
            rewards.setdefault(verdict["prompt_id"], []).append(verdict["reward"])
    of_prompt = [max(of) if best else sum(of) / len(of) for of in rewards.values()]
    chosen = best_samples(judged) if best else judged
    texts = [sample for sample, _ in chosen if sample["error"] is None]
    log_ratios = [
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
        "log_ratio": sum(log_ratios) / len(log_ratios) if log_ratios else None,
        **measured,
    }
