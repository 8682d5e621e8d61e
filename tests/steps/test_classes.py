"""A study of texts with classes leaves classifiers: one logit a class, and cards that say so."""

import json

import pytest
from safetensors import safe_open

from w2s_ray.study import main


@pytest.mark.parametrize("classes", [2, 3])
def test_an_exported_classifier_and_its_card_are_of_classes_not_of_pairs(
    write_spec, tmp_path, capsys, classes
):
    rows = [{"text": f"number {n}", "label": n % classes} for n in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sizes = {"ground_truth": 12, "weak": 12, "test": 12}
    spec = write_spec(
        data={"texts": {"kind": "classification", "source": "texts.jsonl", "sizes": sizes}},
        grid__trainable=["full"],
        grid__loss=["forward_ce"],
        grid__noise_ratio=[0.0],
        execution={"export_models": ["student"]},
    )
    assert main([str(spec), "--local"]) == 0
    printed = capsys.readouterr().out
    assert "texts: what was read" in printed and f"texts: {classes} classes, in order: 0" in printed
    (export,) = tmp_path.glob("store/student/*/export")
    with safe_open(export / "model.safetensors", "numpy") as weights:
        assert weights.get_tensor("score.weight").shape == (classes, 32)
    card = (export / "README.md").read_text()
    assert "- text-classification\n" in card and "reward-model" not in card
    assert f"It returns {classes} logits for a text, one per class." in card
    names = {str(n): str(n) for n in range(classes)}
    assert json.loads((export / "config.json").read_text())["id2label"] == names
    assert "def probabilities(texts):" in card and "def rewards" not in card
