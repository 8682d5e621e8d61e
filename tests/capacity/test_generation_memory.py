"""What the planner says of a model that answers is what transformers keeps of it."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from w2s_ray.capacity.generation import cache_bytes_per_token, generation_bytes
from w2s_ray.catalog.shapes import shape_of

ROWS, TOKENS = 3, 7
SHARED = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
MODELS = {
    "every head has its keys": {"model_type": "gpt2", **SHARED},
    "heads share keys": {
        "model_type": "llama",
        **SHARED,
        "intermediate_size": 64,
        "num_key_value_heads": 2,
    },
    "heads wider than their share": {
        "model_type": "llama",
        **SHARED,
        "intermediate_size": 64,
        "num_key_value_heads": 1,
        "head_dim": 16,
    },
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_cache_and_weights_are_as_large_as_planned(name: str, precision: str) -> None:
    fields = {key: value for key, value in MODELS[name].items() if key != "model_type"}
    config = AutoConfig.for_model(str(MODELS[name]["model_type"]), **fields)
    config.tie_word_embeddings = False
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        seen = model(torch.zeros(ROWS, TOKENS, dtype=torch.long), use_cache=True)
    kept = [state for layer in seen.past_key_values.layers for state in (layer.keys, layer.values)]
    shape = shape_of(MODELS[name])
    cache = ROWS * TOKENS * cache_bytes_per_token(shape, precision)
    assert cache == sum(state.nbytes for state in kept)

    def planned(rows: int) -> int:
        return generation_bytes([shape], precision=precision, rows=rows, row_tokens=TOKENS).total

    weights = sum(parameter.nbytes for parameter in model.parameters())
    memory = generation_bytes([shape], precision=precision, rows=ROWS, row_tokens=TOKENS)
    positions = 0 if MODELS[name]["model_type"] != "gpt2" else 64 * 32 * dtype.itemsize
    assert memory.weights == weights + positions, "the head is counted as large as all embeddings"
    assert planned(2 * ROWS) - planned(ROWS) >= cache


def test_models_that_answer_together_take_what_each_takes() -> None:
    one, other = (shape_of(MODELS[name]) for name in list(MODELS)[:2])
    alone = [
        generation_bytes([model], precision="bf16", rows=ROWS, row_tokens=TOKENS)
        for model in (one, other)
    ]
    both = generation_bytes([one, other], precision="bf16", rows=ROWS, row_tokens=TOKENS)
    assert both.total - both.buffers == sum(memory.total - memory.buffers for memory in alone)
