"""Filters, relabelling, weights and calibration in a study: pairs and texts of five classes, last
layers, adapters and whole models, all in one run."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax

from tests.testing.specs import tiny_spec
from w2s_ray.data.labels import soft_labels_of
from w2s_ray.objectives.calibration import held_out
from w2s_ray.order import hashes
from w2s_ray.plan.build import build
from w2s_ray.plan.configs import StudentConfig
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.step import Step
from w2s_ray.spec.loading import load
from w2s_ray.steps.context import Context
from w2s_ray.steps.features import Features
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Supervision, Targets, adam
from w2s_ray.steps.train_heads import run_together
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import SOFT_LABELS
from w2s_ray.study import main
from w2s_ray.training.heads import HEAD, FittedHead, HeadData, HeadJob, fit_heads, heads_logits

pytestmark = pytest.mark.long

CLASSES = 5
TRAINABLE = ("last_layer", "lora", "full")
WEAK_ROWS, TRUTH_ROWS = 40, 48
TREATMENTS: list[dict[str, Any]] = [
    {"label_filter": [{"keep": 0.5, "by": by} for by in ("confidence", "margin_to_prior", "knn")]},
    {"label_filter": {"keep": 0.7, "by": "probe"}, "example_weight": "confidence"},
    {"relabel": ["probe", "knn"]},
    {"label_filter": {"keep": 1.0, "by": "knn"}},
]
OF_MODELS: list[dict[str, Any]] = [
    {"trainable": ["lora", "full"], **TREATMENTS[1]},
    {"trainable": "lora", "relabel": ["none", "probe", "knn"]},
    {"trainable": "full", "relabel": "knn"},
]


class Study(NamedTuple):
    """A finished study: its plan, its store and its results."""

    plan: Plan
    store: Store
    rows: list[dict[str, Any]]

    def artifact(self, key: str) -> Artifact:
        return self.store.artifact(key)

    def step(self, row: dict[str, Any]) -> Step:
        return self.plan.steps[row["key"]]

    def supervision(self, step: Step) -> Supervision:
        """What a student learns from, made without the rows beside it."""
        rows = Rows(self.artifact(step.inputs["prepare"]))
        targets = Targets(rows["weak"], rows.num_classes, self.artifact, per_row=rows.per_row)
        return targets.of(step)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("labels")
    words = ["sun", "rain", "snow", "wind", "fog"]
    texts = [{"text": f"{words[n % CLASSES]} {n}", "label": n % CLASSES} for n in range(128)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    sizes = {"ground_truth": TRUTH_ROWS, "weak": WEAK_ROWS, "test": 32}
    spec = tiny_spec(
        data__texts={"kind": "classification", "source": "texts.jsonl", "sizes": sizes},
        grid={
            "pair": [["small", "large"]],
            "data": ["pairs", "texts"],
            "loss": ["forward_kl"],
            "label_temperature": [0.5],
            "noise_ratio": [0.25],
            "trainable": ["last_layer"],
            "include": [*TREATMENTS, *OF_MODELS],
        },
        training__weak={"calibrate": "temperature", "learning_rate": 0.01},
        training__label_neighbours=5,
        execution={"lora_together": 8},
    )
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(path), "--local"]) == 0
    rows = pq.read_table(folder / "store/results").to_pylist()
    return Study(build(load(path)), Store.open(str(folder / "store")), rows)


def test_every_cell_is_done_and_says_how_many_rows_and_labels(study: Study) -> None:
    assert len(study.rows) == 2 * (8 + 4 + 2)
    for row in study.rows:
        assert row["status"] == "done" and row["student_accuracy"] is not None, row
        assert row["trained_rows"] == round(WEAK_ROWS * row["label_keep"]), row
        assert (row["relabelled_rows"] is None) == (row["relabel"] == "none")
        supervision = study.supervision(study.step(row))
        assert row["learned_label_confidence"] == pytest.approx(
            np.abs(supervision.soft_labels - 1 / supervision.soft_labels.shape[1]).max(1).mean()
        )
    relabelled = [row["relabelled_rows"] for row in study.rows if row["relabel"] != "none"]
    assert 0 < max(relabelled) <= WEAK_ROWS


def test_probe_and_neighbours_read_the_features_of_the_strong_model(study: Study) -> None:
    """Those that last layers learn from, which the other students have as an input of their own."""
    heads = {
        row["data"]: study.step(row).inputs["features"]
        for row in study.rows
        if row["trainable"] == "last_layer"
    }
    for row in study.rows:
        step, judges = study.step(row), {"probe", "knn"}
        asked = row["relabel"] in judges or (
            row["label_filter"] in judges and row["label_keep"] < 1
        )
        is_own = asked and row["trainable"] != "last_layer"
        assert step.inputs.get("label_features") == (heads[row["data"]] if is_own else None)
        assert (step.backbone is None) == (row["trainable"] == "last_layer")


def test_a_filter_that_keeps_every_row_is_none(study: Study) -> None:
    def keys(**values: Any) -> set[str]:
        of_heads = {"relabel": "none", "example_weight": "none", "trainable": "last_layer"}
        plain = {**of_heads, **values}
        return {r["key"] for r in study.rows if all(r[n] == v for n, v in plain.items())}

    assert keys(label_filter="knn", label_keep=1.0) == keys(label_filter="none")
    assert len(keys(label_filter="none")) == 2


def test_a_head_on_some_rows_is_the_head_of_a_study_that_has_only_these(study: Study) -> None:
    checked = 0
    for row in study.rows:
        step = study.step(row)
        if row["trainable"] != "last_layer":
            continue
        rows, features = (study.artifact(step.inputs[name]) for name in ("prepare", "features"))
        supervision, config = study.supervision(step), step.config_as(StudentConfig)
        table, test = Rows(rows)["weak"].take(supervision.rows), Rows(rows)["test"]
        states, classes = Features(features), Rows(rows).num_classes
        data = HeadData(
            table["row_id"].to_pylist(), states.of("weak", table), test, states.of("test", test),
            classes,
        )  # fmt: skip
        training = config.training
        job = HeadJob(
            supervision.soft_labels, supervision.objective, config.seed, training.epochs,
            training.batch_size, training.learning_rate, training.schedule, adam(config),
            weights=supervision.weights,
        )  # fmt: skip
        (alone,) = fit_heads(data, [job])
        assert isinstance(alone, FittedHead)
        stored = load_file(study.artifact(step.key).folder / "head.safetensors")
        assert all(torch.equal(stored[name], tensor) for name, tensor in alone.state.items())
        checked += 1
    assert checked == 2 * 8


def test_progress_of_heads_on_several_row_sets_is_one_count(study: Study) -> None:
    steps = list({
        row["key"]: study.step(row)
        for row in study.rows
        if (row["data"], row["trainable"]) == ("pairs", "last_layer")
    }.values())  # fmt: skip
    seen: list[dict[str, Any]] = []
    outcomes = run_together(steps, study.artifact, Context(progress=seen.append))
    assert not any(isinstance(outcome, Exception) for outcome in outcomes)
    row_sets = {study.supervision(step).rows.tobytes() for step in steps}
    assert len(seen) >= len(row_sets) == 4  # by margin_to_prior pairs are those by confidence
    batches = [-(-len(study.supervision(step).rows) // 8) for step in steps]
    assert {numbers["steps"] for numbers in seen} == {sum(batches)}
    counted = [numbers["step"] for numbers in seen]
    assert counted == sorted(counted) and counted[-1] == sum(batches)


def test_adapters_are_fused_only_where_all_rows_are_alike(study: Study) -> None:
    for row in study.rows:
        step = study.step(row)
        if row["trainable"] == "lora":
            alike = row["label_keep"] == 1.0 and row["example_weight"] == "none"
            assert (step.fusion is not None) == alike
            fused = study.artifact(step.key).record["metrics"].get("fused", 1)
            assert fused == (2 if alike and row["relabel"] != "none" else 1)  # probe and knn


def weak_logits(study: Study, step: Step, split: str) -> Any:
    """(logits, labels) of the head of a label step on a split, and which rows calibrate."""
    rows = Rows(study.artifact(step.inputs["prepare"])).labels(split)
    states = Features(study.artifact(step.inputs["features"])).of(split, rows)
    return heads_logits([study.artifact(step.inputs["weak"]).tensors(HEAD)], states)[0], rows


def test_the_weak_model_is_calibrated_on_rows_that_it_does_not_learn(study: Study) -> None:
    labels = [step for step in study.plan if step.kind.name == "label"]
    assert len(labels) == 2 * len(TRAINABLE)
    for step in labels:
        metrics = study.artifact(step.key).record["metrics"]
        weak = study.artifact(step.inputs["weak"]).record["metrics"]
        assert metrics["calibration_rows"] == 5
        assert weak["trained_rows"] == TRUTH_ROWS - 5
        temperature = metrics["calibration_temperature"]
        assert 0.05 - 1e-9 <= temperature <= 20 + 1e-9
        if "features" not in step.inputs:
            continue
        logits, rows = weak_logits(study, step, "ground_truth")
        held = held_out(hashes(rows["row_id"].to_pylist(), "calibration"))
        truth = rows["label"].to_numpy()[held]

        def loss(t: float, logits: Any = logits[held], truth: Any = truth) -> float:
            return float(-log_softmax(logits / t, axis=1)[np.arange(5), truth].mean())

        assert loss(temperature) <= min(loss(1.02 * temperature), loss(temperature / 1.02)) or (
            temperature in (pytest.approx(0.05), pytest.approx(20))
        )
        logits, rows = weak_logits(study, step, "weak")
        labels = study.artifact(step.key).table(SOFT_LABELS)
        probs = soft_labels_of(labels, rows["row_id"].to_pylist())
        expected = softmax(logits.astype(np.float64) / temperature, axis=1)
        np.testing.assert_allclose(probs, expected, atol=1e-6)


def test_results_have_the_temperature_that_calibrated(study: Study) -> None:
    for row in study.rows:
        metrics = study.artifact(row["label_key"]).record["metrics"]
        assert row["calibration_temperature"] == metrics["calibration_temperature"]


def test_ceilings_learn_every_row(study: Study) -> None:
    ceilings = [step for step in study.plan if step.kind.name == "ceiling"]
    for step in ceilings:
        assert study.artifact(step.key).record["metrics"]["trained_rows"] == TRUTH_ROWS


def test_pairs_that_are_equal_once_truncated_are_left_out_before_labels_are_treated(
    tmp_path: Path,
) -> None:
    """Heads see it in their features, the others in their tokens; the counts are the same."""
    grid = {
        "pair": [["small", "large"]],
        "trainable": list(TRAINABLE),
        "relabel": ["none", "knn"],
        "label_filter": [None, {"keep": 0.5, "by": "confidence"}],
    }
    training = {"precision": "fp32", "max_length_tokens": 24, "batch_size": 8}
    spec = tiny_spec(grid=grid, training=training, execution={"lora_together": 4})
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(path), "--local"]) == 0
    rows = pq.read_table(tmp_path / "store/results").to_pylist()
    study = Study(build(load(path)), Store.open(str(tmp_path / "store")), rows)
    counted = [study.artifact(row["key"]).record["metrics"] for row in rows]
    identical = {metrics["identical_rows"] for metrics in counted}
    plain = [
        metrics["truncated_rows"]
        for row, metrics in zip(rows, counted, strict=True)
        if row["relabel"] == "none"
        and row["label_filter"] == "none"
        and "truncated_rows" in metrics
    ]
    full, lora = plain  # adapters may share passes, full models are trained alone
    assert full == lora > 0
    assert len(rows) == 12 and len(identical) == 1
    remaining = WEAK_ROWS - identical.pop()
    assert 4 < remaining < WEAK_ROWS - 4
    for row in rows:
        expected = remaining if row["label_keep"] == 1.0 else int(remaining / 2 + 0.5)
        assert row["trained_rows"] == expected
        assert row["steps"] == -(-expected // 8)
        # The accuracy is of the rows that were trained on: a number of halves of rows.
        assert 2 * row["learned_label_accuracy"] * expected == pytest.approx(
            round(2 * row["learned_label_accuracy"] * expected)
        )
