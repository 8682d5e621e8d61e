"""Controls of pairs: the untrained strong model, and the prompt alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.testing.specs import tiny_spec
from w2s_ray.data.tokens import encode
from w2s_ray.errors import InputError
from w2s_ray.models.language_model import answer_log_probs, load_language_model
from w2s_ray.plan.build import build
from w2s_ray.plan.cost import flops
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import Spec
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

ROWS = 150
WORDS = ("apple", "boat", "cloud", "door", "egg", "fish", "glass", "hat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of pairs with prompts, at two rates and two seeds."""
    folder = tmp_path_factory.mktemp("untrained")
    draw = np.random.default_rng(0)
    for split in ("ground_truth", "weak", "test"):
        rows = []
        for number in range(ROWS):
            prompt = " ".join(draw.choice(WORDS, 4)) + f" {split} {number}?"
            rows.append({"prompt": prompt, "chosen": f" yes {number}", "rejected": " no"})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = {split: f"{split}.jsonl" for split in ("ground_truth", "weak", "test")}
    spec = tiny_spec(
        data={"pairs": {"kind": "preference", "splits": splits}},
        grid__learning_rate=[1e-3, 1e-2],
        grid__noise_ratio=[0.0],
        grid__seed=[0, 1],
        controls=["untrained", "prompt_only"],
    )
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    return folder


def results(folder: Path, control: str) -> list[dict[str, Any]]:
    rows = pq.read_table(folder / "store/results").to_pylist()
    return [row for row in rows if row["control"] == control]


def test_the_logit_is_the_difference_of_the_answers_log_probs(folder: Path) -> None:
    rows, spec = results(folder, "untrained"), load(folder / "study.yaml")
    assert len(rows) == 4  # two rates, two seeds: one computation
    (key,) = {row["key"] for row in rows}
    artifact = Store.open(folder / "store").artifact(key)
    table = pq.read_table(artifact.folder / "test.parquet")
    prepared = Rows(Store.open(folder / "store").artifact(rows[0]["prepare_key"]))["test"]
    model = load_language_model(spec.models["large"], "fp32")
    log_probs = answer_log_probs(model, encode(prepared, model.backbone.tokenizer, 128))
    log_probs = log_probs.astype(np.float64)
    probs = np.array(table["probs"].to_pylist())
    np.testing.assert_allclose(
        np.log(probs[:, 1]) - np.log(probs[:, 0]), log_probs[:, 0] - log_probs[:, 1], atol=1e-3
    )
    chosen_a = log_probs[:, 0] > log_probs[:, 1]
    accuracy = float((chosen_a == (table["label"].to_numpy() == 1)).mean())
    assert rows[0]["student_accuracy"] == accuracy == artifact.record["metrics"]["accuracy"]
    # Random weights find the shorter answer likelier; per token that is no longer so plain.
    assert accuracy < 0.1
    assert artifact.record["metrics"]["accuracy_of_mean_log_probs"] > accuracy
    assert all(row["weak_accuracy"] and row["ceiling_accuracy"] for row in rows)
    predictions = pq.read_table(folder / "store/predictions", filters=[("key", "==", key)])
    assert set(predictions["model_role"].to_pylist()) == {"student"}
    assert predictions.num_rows == ROWS


def test_the_prompt_does_not_say_which_answer_is_a(folder: Path) -> None:
    for row in results(folder, "prompt_only"):
        assert row["status"] == "done"
        assert abs(row["student_accuracy"] - 0.5) < 4 * 0.5 / ROWS**0.5


def test_it_is_planned_priced_and_moves_no_key() -> None:
    spec = tiny_spec(controls=["untrained"], grid__trainable=["last_layer", "full"])
    plan = build(Spec.model_validate(spec))
    (step,) = [step for step in plan if step.kind.name == "untrained"]
    assert flops([step])[step.key] > 0
    del spec["controls"]
    without = build(Spec.model_validate(spec))
    assert without.steps.keys() < plan.steps.keys()
    assert len(plan.cells) == len(without.cells) + 2  # one for each way of training
    rendered = {**tiny_spec(controls=["untrained"])}
    rendered["training"] = {**spec["training"], "bos": True}  # type: ignore[dict-item]
    (other,) = [s for s in build(Spec.model_validate(rendered)) if s.kind.name == "untrained"]
    assert other.key != step.key


@pytest.mark.parametrize("control", ["untrained", "prompt_only"])
def test_texts_have_no_such_control(control: str, tmp_path: Path) -> None:
    for split in ("ground_truth", "weak", "test"):
        rows = [{"text": f"{split} {n}", "label": "ab"[n % 2]} for n in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = {s: str(tmp_path / f"{s}.jsonl") for s in ("ground_truth", "weak", "test")}
    data = {"texts": {"kind": "classification", "splits": splits}}
    spec = Spec.model_validate(tiny_spec(data=data, controls=[control]))
    with pytest.raises(InputError, match=rf"controls: given {control} with data 'texts'") as caught:
        build(spec)
    assert caught.value.place == ("controls",)
