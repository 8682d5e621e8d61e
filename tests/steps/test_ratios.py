"""The weak model's log-ratios of its answers, from which WSPO learns."""

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
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.steps import answer_shards, ratios
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import prompts_of
from w2s_ray.steps.samples import is_usable, read_samples
from w2s_ray.steps.trained_text import load_trained
from w2s_ray.store.artifacts import Store
from w2s_ray.store.drafts import Draft

GRID = {"pair": [["weak", "strong"]], "method": ["wspo"], "learning_rate_factor": [1.0, 3.0]}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """A study with WSPO, of which the log-ratios and all that they need are finished."""
    folder = tmp_path_factory.mktemp("ratios")
    plan = build(load(text_spec(folder, grid=GRID)))
    store = Store.open(str(folder / "store"))
    compute(plan, ratios_of(plan), store)
    return plan, store


def ratios_of(plan: Plan) -> Step:
    (step,) = (step for step in plan if step.kind.name == "ratios")
    return step


def compute(plan: Plan, step: Step, store: Store) -> None:
    for key in step.inputs.values():
        compute(plan, plan.steps[key], store)
    execute(step, store)


def test_they_are_those_of_transformers_own_losses(done: tuple[Plan, Store]) -> None:
    plan, store = done
    step = ratios_of(plan)
    inputs = {role: store.artifact(key) for role, key in step.inputs.items()}
    samples = read_samples(inputs["samples"])
    usable = [sample for sample in samples if is_usable(sample)]
    table = prompts_of(inputs, ["train"]).to_pylist()
    prompts = {row["prompt_id"]: row["prompt"] for row in table}
    assert step.model is not None
    before = load_causal(step.model, "fp32", device="cpu")
    after = load_trained(step.model, "fp32", inputs["post"])
    found = ratios.read_ratios(store.artifact(step.key))
    assert 0 < len(usable) < len(samples)
    assert list(found) == [f"{of['prompt_id']}/{of['sample']}" for of in usable]
    for sample, own in zip(usable, found.values(), strict=True):
        texts = prompts[sample["prompt_id"]], sample["text"]
        prompt, answer = (before.tokenizer.encode(of, add_special_tokens=False) for of in texts)
        answer.append(before.end_ids[0])
        ids = torch.tensor([[*prompt, *answer]])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            old, new = (
                float(of.module(input_ids=ids, labels=labels).loss) for of in (before, after)
            )
        assert len(own) == len(answer)
        assert abs(old - new) > 1e-3
        assert own.mean() == pytest.approx(old - new, abs=1e-5)
    metrics = store.artifact(step.key).record["metrics"]
    assert metrics["left_out"] == len(samples) - len(usable)


def test_one_step_serves_all_learning_rates(done: tuple[Plan, Store]) -> None:
    plan, _ = done
    trained = [step for step in plan if step.kind.name == "prefer"]
    assert len(trained) == 2
    assert {step.inputs["ratios"] for step in trained} == {ratios_of(plan).key}
    assert all(flops([ratios_of(plan)]).values())


def test_a_step_that_was_killed_scores_only_what_was_left(
    done: tuple[Plan, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = done
    step = ratios_of(plan)
    inputs = {role: store.artifact(key) for role, key in step.inputs.items()}
    kept: dict[str, NDArray[Any]] = {}
    made: list[str] = []

    def keep(name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in kept:
            made.append(name)
            kept[name] = make()
        return kept[name]

    def run() -> list[Any]:
        ratios.run(step, inputs, Draft(tmp_path), Context(keep=keep))
        return pq.read_table(tmp_path / "log_ratios.parquet").to_pylist()

    monkeypatch.setattr(answer_shards, "ANSWERS", 1)
    straight = run()
    (several,) = {len(straight)} - {0, 1}
    kept.pop(made[-1])
    assert run() == straight
    assert len(made) == several + 1
    whole = ratios.read_ratios(store.artifact(step.key))
    for row in straight:
        np.testing.assert_allclose(row["log_ratios"], whole[row["row_id"]], atol=1e-5)
