"""Controls: what each of them is, said by the steps that it is made of and by its numbers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from tests.testing.specs import TINY_MODEL, tiny_config, tiny_spec
from w2s_ray.objectives.objective import GROUND_TRUTH
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.controls import BASELINES, CONTROLS, OF_PAIRS
from w2s_ray.spec.loading import load
from w2s_ray.steps.baseline import fitted_probs
from w2s_ray.steps.prepare import Rows
from w2s_ray.steps.targets import Targets
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

pytestmark = pytest.mark.long

CLASSES = ("ant", "bee", "cat", "dog", "eel")


class Computed:
    """The finished study."""

    def __init__(self, folder: Path) -> None:
        self.plan: Plan = build(load(folder / "study.yaml"))
        self.store = Store.open(folder / "store")
        self.results = pq.read_table(folder / "store/results").to_pylist()

    def row(self, **values: Any) -> dict[str, Any]:
        (row,) = (row for row in self.results if values.items() <= row.items())
        return row

    def probs(self, key: str) -> np.ndarray[Any, Any]:
        table = pq.read_table(self.store.artifact(key).folder / "test.parquet")
        return np.array(table["probs"].to_pylist())

    def targets(self, key: str) -> Any:
        step = self.plan.steps[key]
        rows = Rows(self.store.artifact(step.inputs["prepare"]))
        targets = Targets(rows[str(step.kind.trained_on)], rows.num_classes, self.store.artifact)
        return targets.of(step)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    folder = tmp_path_factory.mktemp("controls")
    for start, split in enumerate(("ground_truth", "weak", "test")):
        numbers = range(100 * start, 100 * start + 50)
        pairs = [
            {"prompt": f"say yes {n}?", "chosen": f"yes of course {n}", "rejected": f"no {n}"}
            for n in numbers
        ]
        texts = [{"text": f"the {CLASSES[n % 5]} {n}", "label": CLASSES[n % 5]} for n in numbers]
        for name, rows in (("pairs", pairs), ("texts", texts)):
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {
        name: {
            "kind": kind,
            "splits": {s: f"{name}-{s}.jsonl" for s in ("ground_truth", "weak", "test")},
        }
        for name, kind in (("pairs", "preference"), ("texts", "classification"))
    }
    models = {
        name: {**TINY_MODEL, "config": tiny_config(width)}
        for name, width in (("small", 16), ("large", 32))
    }
    grid = {
        "data": ["pairs", "texts"],
        "pair": [["small", "large"], ["small", "small"]],
        "loss": ["forward_ce", "reverse_kl"],
        "noise_ratio": [0.0, 0.2],
        "trainable": ["last_layer"],
        "include": [{"data": "texts", "pair": [["small", "large"]], "trainable": ["lora", "full"],
                     "loss": "forward_ce", "noise_ratio": 0.0}],
    }  # fmt: skip
    controls = [name for name in CONTROLS if name not in OF_PAIRS]
    training = {"precision": "fp32", "max_length_tokens": 48, "batch_size": 8}
    spec = tiny_spec(data=data, models=models, grid=grid, training=training, controls=controls)
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    return Computed(folder)


def test_every_control_has_a_row_for_each_way_of_training(computed: Computed) -> None:
    assert {row["status"] for row in computed.results} == {"done"}
    counts = Counter((row["control"], row["data"]) for row in computed.results)
    for control in (name for name in CONTROLS if name not in OF_PAIRS):
        assert counts[control, "pairs"] == 2  # two pairs of models
        assert counts[control, "texts"] == 2 + 2  # and two further ways of training
    plain = {"loss": "forward_ce", "noise_ratio": 0.0, "confidence_weight": 0.0}
    assert all(plain.items() <= row.items() for row in computed.results if row["control"])


@pytest.mark.parametrize("data", ["pairs", "texts"])
def test_the_weak_student_is_the_student_of_the_pair_of_the_weak_model(
    computed: Computed, data: str
) -> None:
    same = {"data": data, "weak": "small", "trainable": "last_layer"}
    control = computed.row(control="weak_student", strong="large", **same)
    student = computed.row(control="", strong="small", loss="forward_ce", noise_ratio=0.0, **same)
    assert control["key"] == student["key"]
    ceiling = computed.row(control="", strong="large", loss="reverse_kl", noise_ratio=0.2, **same)
    assert control["ceiling_key"] == ceiling["ceiling_key"] != student["ceiling_key"]


@pytest.mark.parametrize("trainable", ["last_layer", "lora", "full"])
def test_the_strong_model_on_the_weak_rows_learns_their_truth(
    computed: Computed, trainable: str
) -> None:
    row = computed.row(
        control="strong_on_weak_rows", data="texts", strong="large", trainable=trainable
    )
    supervision = computed.targets(row["key"])
    step = computed.plan.steps[row["key"]]
    weak = Rows(computed.store.artifact(step.inputs["prepare"])).labels("weak")
    np.testing.assert_array_equal(supervision.soft_labels.argmax(1), weak["label"].to_numpy())
    assert supervision.objective == GROUND_TRUTH
    assert step.config == computed.plan.steps[row["ceiling_key"]].config


@pytest.mark.parametrize("data", ["pairs", "texts"])
def test_shuffled_labels_are_the_same_labels_on_other_rows(computed: Computed, data: str) -> None:
    same = {"data": data, "strong": "large", "trainable": "last_layer"}
    control = computed.row(control="shuffled_labels", **same)
    student = computed.row(control="", loss="forward_ce", noise_ratio=0.0, **same)
    shuffled, own = (computed.targets(row["key"]).soft_labels for row in (control, student))
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, own))
    assert (shuffled != own).any()


@pytest.mark.parametrize("baseline", BASELINES[:2])
def test_a_baseline_is_shared_by_all_ways_of_training(computed: Computed, baseline: str) -> None:
    rows = [r for r in computed.results if (r["control"], r["data"]) == (baseline, "texts")]
    of_label: dict[str, set[str]] = {}
    for row in rows:
        of_label.setdefault(row["label_key"], set()).add(row["key"])
    assert all(len(keys) == 1 for keys in of_label.values())
    probs = computed.probs(rows[0]["key"])
    assert probs.shape[1] == 5
    np.testing.assert_allclose(probs.sum(axis=1), 1.0)


def test_a_baseline_of_pairs_does_not_know_which_answer_came_first(computed: Computed) -> None:
    row = computed.row(control="length", data="pairs", strong="large")
    test = Rows(computed.store.artifact(row["prepare_key"]))["test"]
    longer_is_a = [len(a) > len(b) for a, b in test["answers"].to_pylist()]
    p = computed.probs(row["key"])[:, 1]
    assert len({bool(q > 0.5) == longer for q, longer in zip(p, longer_is_a, strict=True)}) == 1


def test_soft_labels_are_learned_as_the_shares_of_their_classes() -> None:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    x, hard = rng.normal(size=(80, 3)), rng.integers(0, 3, 80)
    sparse, labels = csr_matrix(x), np.eye(3, dtype=np.float32)[hard]
    ours = fitted_probs(sparse, labels, sparse, intercept=True)
    theirs = LogisticRegression(max_iter=1000).fit(x, hard).predict_proba(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    thirds = np.full((80, 3), 1 / 3, dtype=np.float32)
    np.testing.assert_allclose(fitted_probs(sparse, thirds, sparse, intercept=True), 1 / 3)


def test_controls_change_no_key(computed: Computed, tmp_path: Path) -> None:
    spec = yaml.safe_load((Path(computed.store.uri).parent / "study.yaml").read_text())
    del spec["controls"]
    (Path(computed.store.uri).parent / "without.yaml").write_text(yaml.safe_dump(spec))
    without = build(load(Path(computed.store.uri).parent / "without.yaml"))
    assert without.steps.keys() < computed.plan.steps.keys()
    assert [cell.keys for cell in without.cells] == [
        cell.keys for cell in computed.plan.cells if not cell.values["control"]
    ]
