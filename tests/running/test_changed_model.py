"""A model whose files are replaced while a study waits is not computed with under the old key."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.testing.specs import TINY_MODEL, tiny_config
from tests.testing.tiny_models import tiny
from w2s_ray.plan.build import build
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store


def test_a_model_that_changed_since_the_plan_fails_its_steps(
    write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    backbone = tiny("llama")
    backbone.module.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    models = {
        "small": {**TINY_MODEL, "config": tiny_config(16)},
        "large": {"source": "./model"},
    }
    steps = build(load(write_spec(models=models))).steps.values()
    store = Store.open(str(tmp_path / "steps"))
    (prepare,) = (step for step in steps if step.kind.name == "prepare")
    execute(prepare, store)
    step = next(s for s in steps if s.backbone is not None and s.backbone.source is not None)
    original = Path(shutil.copytree(folder, tmp_path / "original"))
    weights = {name: 2 * value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert set(step.inputs) == {"prepare"}
    with pytest.raises(ValueError, match="has changed since the study was planned; run the study"):
        execute(step, store)
    assert "has changed" in store.failures()[step.key]["error"]
    shutil.rmtree(folder)
    shutil.copytree(original, folder)
    execute(step, store)
