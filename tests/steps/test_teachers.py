"""Ensembles and chains, computed: one small study of pairs and of texts with five classes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.testing.specs import TINY_MODEL, tiny_config, tiny_spec
from w2s_ray.objectives.ensembles import combined
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

pytestmark = pytest.mark.long

CLASSES = ("ant", "bee", "cat", "dog", "eel")
CHAIN, ENSEMBLE = "small>large>mid", "other+small+third"
SPLITS = ("ground_truth", "weak", "test")
WIDTHS = {"small": 16, "other": 16, "third": 16, "mid": 24, "large": 32}


class Computed:
    """The finished study: its plan, its tables, and the files of its steps."""

    def __init__(self, folder: Path) -> None:
        self.plan: Plan = build(load(folder / "study.yaml"))
        self.store = Store.open(folder / "store")
        self.results = pq.read_table(folder / "store/results").to_pylist()
        self.predictions = pq.read_table(folder / "store/predictions").to_pylist()

    def cells(self, **values: Any) -> list[Cell]:
        return [c for c in self.plan.cells if values.items() <= c.values.items()]

    def probs(self, key: str, file: str) -> dict[str, list[float]]:
        """Probabilities by row id."""
        table = pq.read_table(self.store.artifact(key).folder / file)
        return dict(zip(table["row_id"].to_pylist(), table["probs"].to_pylist(), strict=True))


def _write_rows(folder: Path) -> None:
    """Pairs and texts whose test rows are the students' rows, so that both can be compared."""
    for split in SPLITS:
        numbers = range(60) if split == "ground_truth" else range(100, 160)
        pairs = [{"prompt": f"{n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in numbers]
        texts = [{"text": f"the {CLASSES[n % 5]} {n}", "label": CLASSES[n % 5]} for n in numbers]
        for name, rows in (("pairs", pairs), ("texts", texts)):
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    folder = tmp_path_factory.mktemp("teachers")
    _write_rows(folder)
    data = {
        name: {
            "kind": kind,
            "splits": {
                split: f"{name}-{split}.jsonl" for split in ("ground_truth", "weak", "test")
            },
        }
        for name, kind in (("pairs", "preference"), ("texts", "classification"))
    }
    models = {
        name: {**TINY_MODEL, "config": tiny_config(width), "init_seed": seed}
        for seed, (name, width) in enumerate(WIDTHS.items())
    }
    grid = {
        "data": ["pairs", "texts"],
        "pair": [[["small", "other", "third"], "large"]],
        "chain": [["small", "large", "mid"]],
        "combine": ["mean", "learned"],
        "loss": ["forward_kl"],
        "noise_ratio": [0.2],
        "trainable": ["last_layer", "lora", "full"],
        "exclude": [
            {"pair": [[["small", "other", "third"], "large"]], "trainable": ["lora", "full"]},
            {"chain": [["small", "large", "mid"]], "combine": "learned"},
            {"pair": [["small", "large"], ["small", "mid"]], "combine": "learned"},
        ],
    }
    training = {
        "precision": "fp32", "max_length_tokens": 32, "batch_size": 8,
        "learning_rate": {"last_layer": 1e-2, "lora": 1e-2, "full": 1e-3},
    }  # fmt: skip
    spec = tiny_spec(data=data, models=models, grid=grid, training=training)
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    return Computed(folder)


@pytest.mark.parametrize(
    ("data", "trainable"),
    [("pairs", "last_layer"), ("pairs", "lora"), ("texts", "last_layer"), ("texts", "full")],
)
def test_each_student_of_a_chain_labels_for_the_next(
    computed: Computed, data: str, trainable: str
) -> None:
    (chain,) = computed.cells(chain=CHAIN, data=data, trainable=trainable)
    (pair,) = computed.cells(chain="", strong="large", data=data, trainable=trainable, weak="small")
    label = computed.plan.steps[chain.keys["label"]]
    assert label.inputs["weak"] == chain.keys["link_1"] == pair.keys["student"]
    labels = computed.probs(label.key, "soft_labels.parquet")
    predicted = computed.probs(pair.keys["student"], "test.parquet")
    assert labels.keys() == predicted.keys() and len(labels) == 60
    np.testing.assert_allclose(
        [labels[row] for row in labels], [predicted[row] for row in labels], atol=2e-6
    )
    student = computed.plan.steps[chain.keys["student"]]
    assert student.inputs["label"] == label.key


def test_a_student_whose_weights_were_not_kept_cannot_label(
    tmp_path: Path, write_spec: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"loss": ["forward_kl"], "noise_ratio": [0.0], "trainable": ["lora"]}
    assert main([str(write_spec(grid={"pair": ["small", "large"], **one})), "--local"]) == 0
    chain = write_spec(grid={"chain": ["small", "large", "large"], **one})
    (folder,) = tmp_path.glob("store/student/*")
    assert main([str(chain), "--local"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "grid.chain" in line]
    assert f"{folder} labels for the next student, expected its weights" in line
    shutil.rmtree(folder)
    assert main([str(chain), "--local"]) == 0


def test_the_row_of_a_chain_compares_its_ends(computed: Computed) -> None:
    rows = {
        (row["chain"], row["strong"]): row
        for row in computed.results
        if (row["data"], row["trainable"], row["weak"]) == ("texts", "last_layer", "small")
    }
    assert rows.keys() == {("", "large"), (CHAIN, "mid"), ("", "mid")}
    chain, direct, first = rows[CHAIN, "mid"], rows["", "mid"], rows["", "large"]
    assert {row["status"] for row in computed.results} == {"done"}
    for same in ("weak_key", "weak_accuracy", "ceiling_key", "ceiling_accuracy"):
        assert chain[same] == direct[same]
    assert chain["label_key"] != direct["label_key"] == first["label_key"]
    # The weak rows are the test rows here: the labels of the last student are as good as the first.
    assert chain["weak_label_accuracy"] == pytest.approx(first["student_accuracy"])


@pytest.mark.parametrize("data", ["pairs", "texts"])
@pytest.mark.parametrize("combine", ["mean", "learned"])
def test_an_ensemble_stands_for_a_weak_model(computed: Computed, data: str, combine: str) -> None:
    (cell,) = computed.cells(weak=ENSEMBLE, combine=combine, data=data)
    record = computed.store.record(cell.keys["weak"])
    members = record["metrics"]["members"]
    weights = np.array([member["weight"] for member in members])
    assert weights.sum() == pytest.approx(1.0)
    assert all(("estimated_accuracy" in member) == (combine == "learned") for member in members)
    for file, role in (("test.parquet", ""), ("soft_labels.parquet", "_label")):
        keys = {cell.keys[f"member_{n}"]: cell.keys[f"member_{n}{role}"] for n in range(1, 4)}
        probs = [computed.probs(keys[member["key"]], file) for member in members]
        found = computed.probs(cell.keys["weak"], file)
        stacked = np.array([[of[row] for row in found] for of in probs])
        expected = combined(stacked, combine, weights)
        np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
    (row,) = (r for r in computed.results if r["key"] == cell.keys["student"])
    assert row["weak_key"] == row["label_key"] == cell.keys["weak"]
    of_weak = [p for p in computed.predictions if p["key"] == row["weak_key"]]
    assert {p["model_role"] for p in of_weak} == {"weak"} and len(of_weak) == 60
    right = [float(np.argmax(p["probs"]) == p["label"]) for p in of_weak]
    assert row["weak_accuracy"] == pytest.approx(np.mean(right))
    assert row["weak_label_accuracy"] == pytest.approx(row["weak_accuracy"])
