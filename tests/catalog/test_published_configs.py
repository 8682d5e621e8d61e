"""Published ``config.json`` files give the exact numbers of parameters, as transformers counts."""

import json
from pathlib import Path

import pytest

from w2s_ray.catalog.shapes import shape, shape_of
from w2s_ray.spec.schema import ModelSpec

CONFIGS = sorted((Path(__file__).parent / "configs").glob("*.json"))
# Totals of the published weights with their LM heads (the model cards and safetensors indices).
# GPT-2 and the small Qwen2.5 share theirs with the embedding; Pythia and the large ones do not.
WITH_HEAD = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Qwen2.5-72B": 72_706_203_648,
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_parameters_are_exact(path: Path) -> None:
    import torch
    from transformers import MODEL_MAPPING, AutoConfig

    fields = json.loads(path.read_text())
    config = AutoConfig.for_model(**fields)
    with torch.device("meta"):
        real = MODEL_MAPPING[type(config)](config)  # type: ignore[operator]
    counted = shape_of(fields)
    assert counted.parameters == sum(p.numel() for p in real.parameters())
    assert counted.vectors == sum(p.numel() for p in real.parameters() if p.ndim < 2)
    head = (
        0 if fields.get("tie_word_embeddings", True) else counted.vocab_size * counted.hidden_size
    )
    assert counted.parameters + head == WITH_HEAD[path.stem]


def test_every_configuration_has_its_total() -> None:
    assert {path.stem for path in CONFIGS} == WITH_HEAD.keys()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_published_model_needs_no_file(path: Path, monkeypatch) -> None:
    monkeypatch.setattr("w2s_ray.catalog.configs._cached_config", lambda name, revision: None)
    owner = {"g": "openai-community", "p": "EleutherAI", "Q": "Qwen"}[path.stem[0]]
    by_name = shape(ModelSpec(source=f"hf:{owner}/{path.stem}"))
    assert by_name == shape_of(json.loads(path.read_text()))
