"""Log-probabilities of answers are those of the whole model of transformers, text by text."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.testing.families import FAMILIES, SEPARATE, save_family
from tests.testing.gguf_file import write_gguf
from tests.testing.shares import share
from tests.testing.tiny_models import tiny_spec
from w2s_ray.catalog import measured
from w2s_ray.data.rendering import Rendering
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.errors import InputError
from w2s_ray.models.folders import model_folder
from w2s_ray.models.language_model import answer_log_probs, load_language_model
from w2s_ray.models.preflight import check_models
from w2s_ray.spec.schema import ModelSpec

ROWS = pa.table(
    {
        "row_id": ["a", "b", "c", "d"],
        "prompt": ["Is it? ", "", "So: ", "x"],
        "answers": [["Yes.", "No, never."], ["one", "two"], ["the same", "the same"], ["y", ""]],
    }
)


@pytest.fixture(autouse=True)
def measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "PROGRAM", "none")


def whole(folder: Path | str) -> PreTrainedModel:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded: PreTrainedModel = model.eval()
    return loaded


def expected(model: PreTrainedModel, tokens: Tokens) -> np.ndarray[Any, Any]:
    """Each answer by itself, every token given all before it."""
    sums = np.zeros(tokens.segments[:, 1:].shape)
    for row, (prompt, *answers) in enumerate(tokens.segments.tolist()):
        start = tokens.starts[row]
        end = start + prompt
        for number, length in enumerate(answers):
            ids = np.concatenate([tokens.ids[start : start + prompt], tokens.ids[end:][:length]])
            end += length
            text = torch.from_numpy(ids.astype(np.int64))[None]
            with torch.no_grad():
                log_probs = model(input_ids=text, use_cache=False).logits[0].log_softmax(-1)
            after = max(1, prompt)
            targets = text[0, after:, None]
            sums[row, number] = float(log_probs[after - 1 : -1].gather(1, targets).sum())
    return sums


@pytest.mark.long
@pytest.mark.parametrize("name", share(FAMILIES, 3))
def test_every_family_has_the_log_probs_of_the_whole_model(name: str, tmp_path: Path) -> None:
    spec = save_family(name, tmp_path / "model")
    model = load_language_model(spec, "fp32")
    assert model.backbone.shares_prompts == (name not in SEPARATE)
    tokens = encode(ROWS, model.backbone.tokenizer, 64)
    found = answer_log_probs(model, tokens)
    reference = expected(whole(tmp_path / "model"), tokens)
    np.testing.assert_allclose(found, reference, rtol=1e-4, atol=2e-3)
    assert found[2, 0] == found[2, 1]  # of equal answers, to the last bit
    assert found[3, 1] == 0.0  # no token


def test_batches_and_beginning_of_a_text_change_nothing_else(tmp_path: Path) -> None:
    model = load_language_model(save_family("Llama", tmp_path / "model"), "fp32")
    tokens = encode(ROWS, model.backbone.tokenizer, 64)
    one_by_one = answer_log_probs(model, tokens, token_budget=1)
    np.testing.assert_allclose(answer_log_probs(model, tokens), one_by_one, rtol=1e-4, atol=1e-3)
    model.backbone.tokenizer.bos_token = "a"
    with_bos = encode(ROWS, model.backbone.tokenizer, 64, Rendering("transcript", True))
    reference = expected(whole(tmp_path / "model"), with_bos)
    np.testing.assert_allclose(answer_log_probs(model, with_bos), reference, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_has_its_own_head(tied: bool, tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "model.gguf", head=not tied)
    spec = ModelSpec(source=str(tmp_path / "model.gguf"))
    check_models({"large": spec}, None, with_head={"large"})
    model = load_language_model(spec, "fp32")
    states = torch.eye(32)
    head = weights["token_embd.weight" if tied else "output.weight"]
    np.testing.assert_allclose(model.logits(states).numpy(), head.T, atol=1e-6)
    tokens = encode(ROWS, model.backbone.tokenizer, 64)
    with model_folder(str(spec.source), None, weights=True) as folder:
        reference = expected(whole(folder), tokens)
    np.testing.assert_allclose(answer_log_probs(model, tokens), reference, rtol=1e-4, atol=2e-3)


def test_random_weights_have_a_head_that_depends_on_the_seed_alone() -> None:
    spec = tiny_spec("llama")
    states = torch.eye(32)[:, : load_language_model(spec, "fp32").backbone.hidden_size]
    one, same = (load_language_model(spec, "fp32").logits(states) for _ in range(2))
    other = load_language_model(spec.model_copy(update={"init_seed": 5}), "fp32").logits(states)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_model_without_a_head_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    spec = save_family("Llama", tmp_path / "model")
    check_models({"large": spec}, None, with_head={"large"})
    shutil.copytree(tmp_path / "model", tmp_path / "headless")
    weights = load_file(tmp_path / "headless" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "headless" / "model.safetensors", {"format": "pt"})
    headless = ModelSpec(source=str(tmp_path / "headless"))
    check_models({"large": headless}, None)
    for refuse in (
        lambda: check_models({"large": headless}, None, with_head={"large"}),
        lambda: load_language_model(headless, "fp32"),
    ):
        with pytest.raises(InputError, match=r"1 weights are missing, the first is lm_head.weight"):
            refuse()
