"""Perplexity of answers is that of transformers' own loss; an answer without text has none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from tests.testing.text_studies import text_spec
from w2s_ray.models.causal import load_causal
from w2s_ray.plan.build import build
from w2s_ray.plan.cost import flops
from w2s_ray.plan.graph import Plan
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.steps import answer_shards, perplexity
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store
from w2s_ray.store.drafts import Draft

TEXTS = ["Rain falls.", "", "é and more words than the other ones have", None]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return build(load(text_spec(tmp_path)))


def scored(
    plan: Plan, folder: Path, keep: Callable[..., NDArray[Any]] = lambda name, make: make()
) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    """The rows of the step for ``TEXTS`` as answers to the first prompts, metrics, prompts."""
    store = Store.open(str(folder / "store"))
    step = next(step for step in plan if step.kind.name == "perplexity")
    inputs = {}
    for role, key in step.inputs.items():
        if role != "samples":
            execute(plan.steps[key], store)
            inputs[role] = store.artifact(key)
    prompts = pq.read_table(inputs["prompts_test"].file("prompts.parquet")).to_pylist()
    rows = [
        {
            "split": "test",
            "prompt_id": prompts[n]["prompt_id"],
            "sample": 0,
            "text": text,
            "error": "no answer" if text is None else None,
        }
        for n, text in enumerate(TEXTS)
    ]
    draft = Draft(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "read_samples", lambda artifact: rows)
        samples = inputs["prompts_test"]  # whose rows are not read
        perplexity.run(step, {**inputs, "samples": samples}, draft, Context(keep=keep))
    found = pq.read_table(folder / "perplexities.parquet").to_pylist()
    return found, draft.metrics, [prompts[n]["prompt"] for n in range(len(TEXTS))]


def test_it_is_that_of_transformers_own_loss(plan: Plan, tmp_path: Path) -> None:
    rows, metrics, prompts = scored(plan, tmp_path)
    step = next(step for step in plan if step.kind.name == "perplexity")
    assert step.model is not None
    causal = load_causal(step.model, "fp32", device="cpu")
    losses = []
    for row, prompt, text in zip(rows, prompts, TEXTS, strict=True):
        if not text:
            assert (row["log_prob"], row["tokens"]) == (None, 0)
            continue
        before, after = (
            causal.tokenizer.encode(of, add_special_tokens=False) for of in (prompt, text)
        )
        ids = torch.tensor([[*before, *after]])
        labels = torch.tensor([[-100] * len(before) + after])
        with torch.no_grad():
            losses.append(float(causal.module(input_ids=ids, labels=labels).loss))
        assert row["tokens"] == len(after)
        assert -row["log_prob"] / row["tokens"] == pytest.approx(losses[-1], rel=1e-5)
    assert metrics["splits"]["test"]["perplexity"] == pytest.approx(
        np.exp(np.mean(losses)), rel=1e-5
    )
    assert metrics["answers"] == 2


def test_a_step_that_was_killed_scores_only_what_was_left(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_shards, "ANSWERS", 1)
    kept: dict[str, NDArray[Any]] = {}
    made: list[str] = []

    def keep(name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in kept:
            made.append(name)
            kept[name] = make()
        return kept[name]

    straight = scored(plan, tmp_path, keep)[0]
    kept.pop(made[-1])
    assert scored(plan, tmp_path, keep)[0] == straight
    assert len(made) == 3


def test_an_answer_stands_in_a_paragraph_of_its_own_unless_it_goes_on_with_its_prompt() -> None:
    assert perplexity.prompt_before("Write.", "chat_template") == "Write.\n\n"
    assert perplexity.prompt_before("The film is", "transcript") == "The film is"


def test_the_plan_prices_it(plan: Plan) -> None:
    costs = flops(step for step in plan if step.kind.name == "perplexity")
    assert len(costs) == len({cell.keys["perplexity"] for cell in plan.cells})
    assert all(cost for cost in costs.values())
