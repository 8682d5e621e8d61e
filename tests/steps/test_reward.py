"""Weak labels that are implicit rewards: σ of their difference, from a model trained by DPO."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from numpy.typing import NDArray

from tests.testing.specs import tiny_spec
from w2s_ray.catalog.digests import WEIGHTS
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.errors import InputError
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import load_causal
from w2s_ray.plan.build import build
from w2s_ray.plan.configs import RewardConfig
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.step import Step
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import Spec
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.reward import RewardLogits, reward_logits
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

ROWS = 48
WEAK = {"objective": "implicit_reward", "beta": 0.5, "trainable": "full", "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study whose further test set is its test set once more."""
    folder = tmp_path_factory.mktemp("reward")
    draw = np.random.default_rng(0)
    for split in ("ground_truth", "weak", "test"):
        rows = []
        for number in range(ROWS):
            prompt = f"{split} {number} {draw.integers(1000)}?"
            rows.append({"prompt": prompt, "chosen": f" yes {number}", "rejected": " no"})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = {split: f"{split}.jsonl" for split in ("ground_truth", "weak", "test")}
    data = {"kind": "preference", "splits": splits, "tests": {"again": "test.jsonl"}}
    spec = tiny_spec(
        data={"pairs": data},
        training__weak=WEAK,
        grid__loss=["reverse_kl"],
        grid__noise_ratio=[0.0],
    )
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    return folder


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return build(load(folder / "study.yaml"))


def of_kind(plan: Plan, kind: str) -> Step:
    (step,) = (step for step in plan if step.kind.name == kind)
    return step


def rewards(plan: Plan, folder: Path, split: str) -> NDArray[np.float64]:
    """(n,) σ(r̂_A − r̂_B), each text by itself through transformers' own model."""
    store, step = Store.open(folder / "store"), of_kind(plan, "reward")
    config, trained = step.config_as(RewardConfig), store.artifact(step.key)
    assert step.model is not None
    post = load_causal(step.model, "fp32", trained.file(WEIGHTS), config.training)
    pre = load_causal(step.model, "fp32")
    rows = Rows(store.artifact(step.inputs["prepare"]))[split]
    tokens = encode(rows, pre.tokenizer, config.training.max_length_tokens)
    margins = []
    for row in range(ROWS):
        a, b = (text_ratio(post.module, pre.module, tokens, row, which) for which in (0, 1))
        margins.append(config.beta * (a - b))
    return 1 / (1 + np.exp(-np.array(margins)))


@torch.no_grad()
def text_ratio(post: Any, pre: Any, tokens: Tokens, row: int, which: int) -> float:
    """log π(y | x) − log π_ref(y | x) of one answer."""
    prompt, *answers = tokens.segments[row]
    ids = tokens.ids[tokens.starts[row] :][: tokens.row_lengths[row]]
    start = prompt + sum(answers[:which])
    text = np.concatenate([ids[:prompt], ids[start : start + answers[which]]]).astype(np.int64)
    batch = torch.from_numpy(text)[None]
    after, before = (
        model(input_ids=batch).logits[0].double().log_softmax(1) for model in (post, pre)
    )
    where = torch.arange(prompt, len(text))
    return float((after - before)[where - 1, batch[0, where]].sum())


def test_the_labels_are_the_sigmoid_of_the_rewards_difference(folder: Path, plan: Plan) -> None:
    labels = Store.open(folder / "store").artifact(of_kind(plan, "label").key)
    table = pq.read_table(labels.file("soft_labels.parquet"))
    probs = np.stack(table["probs"].to_numpy())
    np.testing.assert_allclose(probs[:, 1], rewards(plan, folder, "weak"), atol=2e-5)
    assert probs[:, 1].std() > 0.1  # it has learned, and some pairs show A first
    (row,) = pq.read_table(folder / "store/results").to_pylist()
    assert row["weak_accuracy"] > 0.9 and row["status"] == "done"
    metrics = Store.open(folder / "store").artifact(of_kind(plan, "reward").key).record["metrics"]
    assert metrics["preference_accuracy"] > 0.9 and metrics["mean_margin"] > 0


def test_test_rows_are_scored_alike_now_and_from_the_kept_weights(folder: Path, plan: Plan) -> None:
    store, found = Store.open(folder / "store"), []
    (predicted,) = (
        step
        for step in plan
        if step.kind.name == "predict" and step.inputs["model"] == of_kind(plan, "reward").key
    )
    for key in (of_kind(plan, "reward").key, predicted.key):
        table = pq.read_table(store.artifact(key).file("test.parquet"))
        found.append(np.stack(table["probs"].to_numpy())[:, 1])
    own, again = found
    np.testing.assert_allclose(own, rewards(plan, folder, "test"), atol=2e-5)
    np.testing.assert_allclose(np.sort(own), np.sort(again), atol=2e-6)  # of other row ids


def test_a_model_that_did_not_change_prefers_neither(folder: Path, plan: Plan) -> None:
    step, store = of_kind(plan, "reward"), Store.open(folder / "store")
    assert step.model is not None
    trained = step.config_as(RewardConfig)
    weights = store.artifact(step.key).file(WEIGHTS)
    both = reward_logits(step.model, trained.training, 0.5, weights)
    same = RewardLogits(both.pre, AnswerScorer(both.pre.causal), both.tokenizer, 0.5)
    rows = Rows(store.artifact(step.inputs["prepare"]))["test"]
    tokens = encode(rows, both.tokenizer, trained.training.max_length_tokens)
    assert not same(tokens, lambda done: None).any()
    assert both(tokens, lambda done: None)[:, 1].any()


@pytest.mark.parametrize(
    ("changes", "place", "expected"),
    [
        ({"trainable": "last_layer"}, "training.weak.trainable", "full or lora"),
        ({"calibrate": "temperature"}, "training.weak.calibrate", "none with objective"),
    ],
)
def test_what_has_no_implicit_reward_is_refused(
    changes: dict[str, Any], place: str, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected) as refused:
        Spec.model_validate(tiny_spec(training__weak={**WEAK, **changes}))
    assert place.rpartition(".")[2] in str(refused.value)


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_a_model_that_one_gpu_cannot_train_or_hold_twice_is_refused(trainable: str) -> None:
    """7B in bf16: of LoRA the training fits an A10G, the two models that give rewards do not."""
    models = {name: {"source": f"hf:Qwen/Qwen2.5-{name}"} for name in ("0.5B", "7B")}
    spec = tiny_spec(
        models=models,
        grid__pair=[["7B", "0.5B"]],
        training__weak={**WEAK, "trainable": trainable},
        training__precision="bf16",
        execution={"gpu_type": "A10G"},
    )
    with pytest.raises(InputError, match=r"model '7B'.* needs"):
        build(Spec.model_validate(spec))


@pytest.mark.parametrize("execution", [{"gpu_type": "H100", "workers": 2}, {"workers": 2}])
def test_one_process_trains_it_whatever_the_students_have(execution: dict[str, Any]) -> None:
    models = {name: {"source": f"hf:Qwen/Qwen2.5-{name}"} for name in ("0.5B", "3B")}
    spec = tiny_spec(
        models=models, grid__pair=[["0.5B", "3B"]], training__weak=WEAK, execution=execution
    )
    step = of_kind(build(Spec.model_validate(spec)), "reward")
    assert (step.execution.workers, step.execution.offload) == (1, "none")
