"""Tiny models of many architectures, as transformers builds and saves them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from w2s_ray.errors import InputError
from w2s_ray.models.structure import stock_of
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.spec.schema import ModelSpec

_SIZES: dict[str, Any] = {
    "vocab_size": 257,  # ids of the tokenizer of bytes
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": 256,
    "bos_token_id": None,
    "eos_token_id": None,
}
_GROUPED = {"num_key_value_heads": 2}
_WIDE = {**_GROUPED, "head_dim": 8}
_WINDOW = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# Name in the table of docs/architectures.md -> model_type, and fields that matter to it.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {}),
    "GPT-NeoX, Pythia": ("gpt_neox", {}),
    "Llama": ("llama", _GROUPED),
    "Qwen2, Qwen2.5": ("qwen2", _GROUPED),
    "Qwen3": ("qwen3", _WIDE),
    "Qwen3 MoE": ("qwen3_moe", {**_WIDE, **_EXPERTS}),
    "Mistral": ("mistral", {**_GROUPED, "sliding_window": 3}),
    "Mixtral": ("mixtral", {**_GROUPED, "num_local_experts": 4, "router_jitter_noise": 0.5}),
    "Gemma": ("gemma", _WIDE),
    "Gemma 2": (
        "gemma2",
        {**_WIDE, **_WINDOW, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 8},
    ),
    "Gemma 3 (text)": ("gemma3_text", {**_WIDE, **_WINDOW, "query_pre_attn_scalar": 8}),
    "Phi": ("phi", {}),
    "Phi-3, Phi-4": ("phi3", {**_GROUPED, "sliding_window": 3}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", _GROUPED),
    "OLMo 3": ("olmo3", {**_GROUPED, **_WINDOW}),
    "SmolLM3": ("smollm3", {**_GROUPED, "no_rope_layers": [1, 0]}),
    "StableLM": ("stablelm", _GROUPED),
    "Starcoder 2": ("starcoder2", _GROUPED),
    "OPT": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "layerdrop": 0.5}),
    "OPT-350m": (
        "opt",
        {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "Falcon": ("falcon", {}),
    "Falcon with alibi": ("falcon", {"alibi": True, "multi_query": False}),
    "Falcon 40B": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "BLOOM": ("bloom", {}),
    "MPT": ("mpt", {"max_seq_len": 128}),
    "GPT-J": ("gptj", {"rotary_dim": 4}),
    "GPT-OSS": ("gpt_oss", {**_WIDE, **_WINDOW, "num_local_experts": 4}),
    "Granite": ("granite", _GROUPED),
}
SEPARATE = {"Falcon", "Falcon with alibi", "Falcon 40B", "BLOOM", "MPT", "GPT-J", "GPT-OSS"}


def save_family(name: str, folder: Path) -> ModelSpec:
    """A folder with a model of random weights, large enough that blocks matter."""
    kind, fields = FAMILIES[name]
    config = AutoConfig.for_model(kind, **{**_SIZES, **fields})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim < 2:
                    parameter += 0.1 * torch.randn(parameter.shape)
                else:
                    parameter.copy_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    bytes_tokenizer().save_pretrained(folder)
    return ModelSpec(source=str(folder))


def with_end(spec: ModelSpec, *tokens: int) -> ModelSpec:
    """The same folder, whose configuration names these tokens as those that end a text."""
    file = Path(str(spec.source)) / "config.json"
    fields = {**json.loads(file.read_text()), "eos_token_id": list(tokens)}
    file.write_text(json.dumps(fields))
    return spec


def table_row(name: str) -> str:
    """The line of a family in the table of docs/architectures.md."""
    kind, fields = FAMILIES[name]
    config = AutoConfig.for_model(kind, **{**_SIZES, **fields})
    attention = "each text is a row" if name in SEPARATE else "prompts are shared"
    try:
        stock = stock_of(config)
    except InputError:
        exports = classes = "no"
    else:
        exports = f"`{stock.name}`"
        classes = "yes" if stock.final_bias is not None else "no"
    return f"| {name} | `{kind}` | {attention} | {exports} | {classes} |"


if __name__ == "__main__":  # the table of docs/architectures.md
    print("\n".join(map(table_row, FAMILIES)))
