"""Last layers on the states after an earlier block, from the features to the export."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.testing.exports import probabilities, texts_of
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

SCORES = ("student_accuracy", "student_cross_entropy", "gain", "ceiling_accuracy", "final_loss")


@pytest.fixture
def computed(write_spec: Any, tmp_path: Path) -> tuple[Store, dict[Any, dict[str, Any]]]:
    """The store of a study of every block, and its results by block."""
    spec = write_spec(
        grid__loss=["reverse_kl"],
        grid__noise_ratio=[0.0],
        grid__readout_block=[None, 1, 2],
        execution={"export_models": ["student"]},
        training__learning_rate={"last_layer": 0.05},
    )
    assert main([str(spec), "--local"]) == 0
    rows = pq.read_table(tmp_path / "store/results").to_pylist()
    return Store.open(tmp_path / "store"), {row["readout_block"]: row for row in rows}


def features(store: Store, row: dict[str, Any]) -> np.ndarray[Any, Any]:
    """(n, 2, H) states of the test rows that a student was trained on."""
    key = store.artifact(row["key"]).record["inputs"]["features"]
    states: np.ndarray[Any, Any] = np.load(store.artifact(key).folder / "test.npy")
    return states


def exported(artifact: Artifact, texts: Any) -> np.ndarray[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(
        artifact.folder / "export", dtype=torch.float32
    )
    with torch.no_grad():
        outputs = torch.cat([model(torch.tensor([text])).logits for text in texts]).double()
    return probabilities(outputs).numpy()


def test_every_block_has_states_scores_and_an_export_of_its_own(
    computed: tuple[Store, dict[Any, dict[str, Any]]],
) -> None:
    store, rows = computed
    last, first, second = (store.artifact(rows[block]["key"]) for block in (None, 1, 2))
    # All blocks are the whole model, though the keys say what was asked for.
    np.testing.assert_array_equal(features(store, rows[2]), features(store, rows[None]))
    assert {name: rows[2][name] for name in SCORES} == {name: rows[None][name] for name in SCORES}
    assert second.record["key"] != last.record["key"]
    assert np.abs(features(store, rows[1]) - features(store, rows[None])).max() > 0.1

    test = Rows(store.artifact(rows[1]["prepare_key"]))["test"]
    texts = texts_of(encode(test, bytes_tokenizer(), 128))
    for artifact in (last, first, second):
        stored = np.stack(pq.read_table(artifact.folder / "test.parquet")["probs"].to_numpy())
        np.testing.assert_allclose(exported(artifact, texts), stored, atol=1e-5)
    assert rows[1]["parameters"] < rows[2]["parameters"] == rows[None]["parameters"]
    blocks = [
        AutoConfig.from_pretrained(artifact.folder / "export").num_hidden_layers
        for artifact in (last, first, second)
    ]
    assert blocks == [2, 1, 2]
