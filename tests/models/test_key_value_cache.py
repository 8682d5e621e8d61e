"""The growing cache holds what transformers' own does, whichever rows come and go."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig

from w2s_ray.models.key_value_cache import growing_cache, take_rows

CONFIG = LlamaConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2)


@given(st.data())
def test_rows_are_taken_as_transformers_takes_them(data: st.DataObject) -> None:
    ours, theirs = growing_cache(CONFIG), DynamicCache(config=CONFIG)
    rows = data.draw(st.integers(1, 6), "rows")
    for number in range(data.draw(st.integers(1, 6), "passes")):
        tokens = 150 if number == 3 else data.draw(st.integers(1, 3), "tokens")
        keys, values = torch.randn(2, rows, 2, tokens, 4)
        found = ours.update(keys, values, 0)
        expected = theirs.update(keys, values, 0)
        for mine, other in zip(found, expected, strict=True):
            assert torch.equal(mine, other)
        taken = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=8), "taken")
        for cache in (ours, theirs):
            take_rows(cache, torch.tensor(taken))
        rows = len(taken)
        assert ours.get_seq_length() == theirs.get_seq_length()
