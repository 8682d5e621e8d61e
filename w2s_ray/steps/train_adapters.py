"""``student`` with adapters: those that share backbone and batches, in one pass over them."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Artifacts, Context, Write
from w2s_ray.steps.train_model import jobs
from w2s_ray.store.drafts import Draft
from w2s_ray.training.batched_lora import fit_batched_lora


def run_together(
    steps: Sequence[Step], artifacts: Artifacts, context: Context
) -> list[Write | Exception]:
    """Trains the adapters of ``steps``, which have equal ``fusion``; one entry per step."""
    scratch = TemporaryDirectory(prefix="w2s_ray-")  # goes with the last of the writers
    folders = [Path(scratch.name) / step.key for step in steps]
    for folder in folders:
        folder.mkdir()
    planned = jobs(steps, artifacts)
    outcomes = fit_batched_lora([one.job for one in planned], folders, progress=context.progress)
    for one, outcome in zip(planned, outcomes, strict=True):
        if not isinstance(outcome, Exception):
            one.add_facts(outcome)
    return [
        outcome if isinstance(outcome, Exception) else partial(_write, scratch, folder, outcome)
        for folder, outcome in zip(folders, outcomes, strict=True)
    ]


def _write(
    scratch: TemporaryDirectory[str], folder: Path, metrics: dict[str, Any], draft: Draft
) -> None:
    for file in folder.iterdir():
        shutil.move(file, draft.folder / file.name)
    draft.metrics.update(metrics)
