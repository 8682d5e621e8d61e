"""Features and logits of whole tables: in table order, whatever the batches."""

import numpy as np
import pytest
import torch

from tests.models.tiny import ARCHITECTURES, tiny
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.inference import last_states, scorer_logits
from w2s_ray.models.scorer import Scorer, readout


def table(rows: int, per_row: int, seed: int = 0) -> Tokens:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 20, rows * per_row)
    return Tokens(
        row_ids=[f"row{i}" for i in range(rows)],
        ids=draw.integers(0, 257, lengths.sum(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        prompt_lengths=np.zeros(rows, np.int64),
        per_row=per_row,
        truncated=0,
    )


def alone(backbone: Backbone, tokens: Tokens) -> np.ndarray:
    texts = [
        torch.from_numpy(tokens.ids[start:end].astype(np.int64))[None]
        for start, end in zip(tokens.offsets, tokens.offsets[1:], strict=False)
    ]
    with torch.no_grad():
        states = [readout(backbone.module, t, torch.tensor([t.shape[1]])) for t in texts]
    return torch.cat(states).view(-1, tokens.per_row, backbone.hidden_size).numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("per_row", [1, 2])
def test_states_are_those_of_each_text_alone_in_table_order(
    architecture: str, per_row: int
) -> None:
    backbone, tokens = tiny(architecture), table(17, per_row)
    expected = alone(backbone, tokens)
    for budget in (1, 50, None):
        found = last_states(backbone, tokens, budget)
        assert found.shape == (17, per_row, 32)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    again = last_states(backbone, tokens, 50)
    assert np.array_equal(again, last_states(backbone, tokens, 50))


@pytest.mark.parametrize(("num_classes", "per_row"), [(2, 2), (4, 1)])
def test_logits_are_the_scorers(num_classes: int, per_row: int) -> None:
    backbone, tokens = tiny("llama"), table(9, per_row)
    scorer = Scorer(backbone.module, 32, num_classes, per_row, seed=4)
    found = scorer_logits(scorer, tokens, 60)
    states = torch.from_numpy(alone(backbone, tokens)).flatten(0, 1)
    assert found.shape == (9, num_classes)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scorer.head(states).detach().numpy(), atol=1e-5)
    assert found.std() > 1e-3


def test_bf16_states_are_close_to_those_of_fp32() -> None:
    tokens = table(12, 2)
    full, low = (last_states(tiny("qwen2", p), tokens) for p in ("fp32", "bf16"))
    assert low.dtype == np.float32
    assert np.corrcoef(full.ravel(), low.ravel())[0, 1] > 0.99
    assert not np.array_equal(full, low)


def test_progress_counts_real_tokens_up_to_all_of_them() -> None:
    tokens = table(10, 2)
    seen: list[int] = []
    last_states(tiny("gpt2"), tokens, 30, progress=seen.append)
    assert seen == sorted(set(seen))
    assert len(seen) > 3
    assert seen[-1] == len(tokens.ids)
