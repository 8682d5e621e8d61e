"""A study that asks for exports leaves them beside its last layers, and they score alike."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.testing.exports import probabilities, texts_of
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.plan.build import build
from w2s_ray.plan.schedule import Schedule
from w2s_ray.running.runner import execute_group
from w2s_ray.spec.loading import load
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store

WRITTEN = {"config.json", "model.safetensors", "README.md", "tokenizer.json"}


def finished(spec, root):
    """All steps of a study, run one group after the other: artifacts by kind."""
    plan, store = build(load(spec)), Store.open(str(root))
    schedule = Schedule(plan.steps)
    found: dict[str, list[Artifact]] = {}
    while group := schedule.start():
        outcomes = execute_group(group, store, Context())
        for step in group:
            assert not isinstance(outcomes[step.key], Exception), outcomes[step.key]
            schedule.succeed(step.key)
            found.setdefault(step.kind.name, []).append(store.artifact(step.key))
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_last_layer_is_exported_with_its_backbone(write_spec, tmp_path, precision):
    spec = write_spec(
        execution={"export_models": ["student", "ceiling"]},
        training__precision=precision,
        training__learning_rate={"last_layer": 0.05},
    )
    found = finished(spec, tmp_path / "store")
    (prepared,) = found["prepare"]
    test = Rows(prepared)["test"]
    texts = texts_of(encode(test, bytes_tokenizer(), 128))
    assert len(found["student"]) == 4
    assert not (found["weak"][0].folder / "export").exists()
    for artifact in [*found["student"], *found["ceiling"]]:
        folder = artifact.folder / "export"
        assert {path.name for path in folder.iterdir()} >= WRITTEN
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            outputs = torch.cat([model(torch.tensor([text])).logits for text in texts]).double()
        stored = np.stack(pq.read_table(artifact.folder / "test.parquet")["probs"].to_numpy())
        atol = 1e-5 if precision == "fp32" else 0.05
        np.testing.assert_allclose(probabilities(outputs).numpy(), stored, atol=atol)
        card = (folder / "README.md").read_text()
        assert artifact.record["key"] in card
        assert "| data | `pairs` |" in card
        assert "test accuracy" in card
