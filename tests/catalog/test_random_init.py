"""Configurations of models with random weights: complete, checked field by field."""

from typing import Any

import pytest

from w2s_ray.catalog.random_init import complete_config
from w2s_ray.errors import InputError


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hiden_size": 8}, "did you mean 'hidden_size'"),
        ({"resid_pdrop": 0.1}, "resid_pdrop is no field of gpt2"),
        ({"hidden_size": 30}, "expected a multiple of num_attention_heads, 4"),
        ({"hidden_size": "64"}, "'64', expected a whole number above 0"),
        ({"vocab_size": 256}, "expected at least 257"),
    ],
)
def test_a_wrong_random_config_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        complete_config("gpt2", config, 257)
