"""A language model that a study has trained, as transformers loads it by itself."""

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.testing.families import save_family, with_end
from tests.testing.text_studies import text_spec, tiny_model
from w2s_ray.export.__main__ import main
from w2s_ray.models.causal import load_causal
from w2s_ray.plan.configs import Training
from w2s_ray.spec.inputs import ModelSpec
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main as run_study

pytestmark = pytest.mark.long

LORA = {"trainable": "lora", "lora": {"rank": 2, "alpha": 8.0, "target_modules": "all-linear"}}


@pytest.fixture(scope="module", params=["full", "lora"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished study with a model after preferences, after fine-tuning."""
    folder = tmp_path_factory.mktemp(request.param)
    training = {"precision": "fp32", "max_length_tokens": 64, "render": "transcript"}
    training |= LORA if request.param == "lora" else {}
    grid = {"pair": [["weak", "strong"]], "method": ["cong"]}
    assert run_study([str(text_spec(folder, grid=grid, training=training)), "--local"]) == 0
    return folder / "store"


def keys(store: Path) -> dict[str, str]:
    rows = pq.read_table(store / "results/tiny-text.parquet").to_pylist()
    return {row["method"]: row["model_key"] for row in rows if row["model_key"]}


def test_it_answers_as_it_did_in_its_study(store: Path, tmp_path: Path) -> None:
    assert set(keys(store)) == {"weak", "cong", "ceiling"}
    for method, key in keys(store).items():
        folder = tmp_path / method
        assert main([str(store), key[:12], str(folder)]) == 0
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        record = Store.open(str(store)).artifact(key).record
        state = Store.open(str(store)).artifact(key).file("model.safetensors")
        spec = ModelSpec.model_validate(record["execution"]["model"])
        training = Training.from_json(record["config"]["training"])
        ours = load_causal(spec, "fp32", state, training, device="cpu")
        ids = torch.arange(3, 40)[None]
        with torch.no_grad():
            found, expected = theirs(ids).logits, ours.module(ids).logits
            before = load_causal(spec, "fp32", device="cpu").module(ids).logits
        assert torch.allclose(found, expected, atol=1e-5)
        assert not torch.allclose(found, before, atol=1e-3), "it was trained"
        assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer("tell me").input_ids == ours.tokenizer("tell me").input_ids
        assert theirs.generation_config.eos_token_id == list(ours.end_ids)


def test_the_code_of_its_card_runs(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = keys(store)["cong"]
    assert main([str(store), key, str(tmp_path / "model")]) == 0
    card = (tmp_path / "model/README.md").read_text()
    assert key in card and "dpo, β = 0.5" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path / "model")
    capsys.readouterr()
    exec(code, {})
    assert "Why is the sky blue?" in capsys.readouterr().out


def test_what_cannot_be_exported_is_one_line_and_writes_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = keys(store)["weak"]
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    judge = pq.read_table(store / "results/tiny-text.parquet")["key"][0].as_py()
    other = tmp_path / "model"
    wrong: list[tuple[list[Any], str]] = [
        ([store, "zzzz", other], "0 finished steps"),
        ([store, "", other], "expected one"),
        ([store, judge, other], "given a step of kind judge"),
        ([store, key, full], "expected an empty or new folder"),
        ([store, key, other, "--source", "nowhere"], "began at random weights"),
    ]
    for arguments, message in wrong:
        assert main([str(of) for of in arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert main([str(store), key, str(full / "file" / "below")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not other.exists() and not list(tmp_path.rglob(".*"))


def test_an_empty_folder_that_is_there_is_filled_by_whatever_name(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    assert main([str(store), keys(store)["weak"], "."]) == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "real").config.model_type == "llama"
    assert not list((tmp_path / "real").glob(".*"))


def test_a_model_with_another_chat_template_is_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "model"
    with_end(save_family("Qwen3", source), 0)
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (source / "chat_template.jinja").write_text(template)
    models = {name: {"source": str(source)} for name in ("weak", "strong")}
    models["outside"] = tiny_model(2)
    training = {"precision": "fp32", "max_length_tokens": 128}
    grid = {"pair": [["weak", "strong"]], "method": ["untrained"]}
    spec = text_spec(tmp_path / "study", models=models, grid=grid, training=training)
    assert run_study([str(spec), "--local"]) == 0
    (key,) = {key for key in keys(tmp_path / "study/store").values() if key}
    store = str(tmp_path / "study/store")
    assert main([store, key, str(tmp_path / "first")]) == 0
    (source / "chat_template.jinja").unlink()
    assert main([store, key, str(tmp_path / "second")]) == 2
    assert "another chat template" in capsys.readouterr().err
    source.rename(tmp_path / "moved")
    assert main([store, key, str(tmp_path / "third")]) == 2
    assert "--source says where" in capsys.readouterr().err
