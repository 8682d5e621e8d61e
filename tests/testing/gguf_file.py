"""A GGUF file small enough for every test."""

from collections.abc import Container
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from w2s_ray.models.tokenizer import bytes_tokenizer

HIDDEN, INNER, BLOCKS, VOCABULARY = 32, 64, 3, 258


def write_gguf(
    path: Path,
    pre: str = "default",
    *,
    without: Container[str] = (),
    tokenizer: bool = True,
    head: bool = False,
    kind: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
) -> dict[str, np.ndarray]:
    """A Llama file with Q8_0 matrices; returns what its weights are when unpacked.

    Args:
        without: names of tensors that are left out.
        tokenizer: whether it has one.
        head: whether it has a language-model head; else that is its embedding.
        kind: how ``token_embd.weight`` is stored.
    """
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
    blank = vocabulary[ord(" ")][0]
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list([*(token for token, _ in vocabulary), blank + blank])
        writer.add_token_merges([f"{blank} {blank}"])
        writer.add_token_types([1] * 256 + [3, 1])
        writer.add_eos_token_id(256)
    unpacked_weights = {}
    of_head = {"output.weight": (VOCABULARY, HIDDEN)} if head else {}
    for name, size in {**_shapes(), **of_head}.items():
        weight = draw.normal(0, 0.3, size).astype(np.float32)
        if name in without:
            continue
        if len(size) == 1:
            writer.add_tensor(name, weight)
        elif name == "token_embd.weight" and kind != GGMLQuantizationType.Q8_0:
            block, stored = GGML_QUANT_SIZES[kind]
            blocks = np.zeros((size[0], size[1] // block * stored), np.uint8)
            writer.add_tensor(name, blocks, raw_dtype=kind)
        else:
            packed = quantize(weight, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
            weight = dequantize(packed, GGMLQuantizationType.Q8_0)
        unpacked_weights[name] = weight
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unpacked_weights


def _shapes() -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, as torch has it."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, HIDDEN),
        "output_norm.weight": (HIDDEN,),
    }
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
    return shapes
