"""Features and logits of whole tables: in table order, whatever the batches."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.testing.tiny_models import ARCHITECTURES, tiny
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.backbone import Backbone
from w2s_ray.models.inference import last_states, scorer_logits, sweep
from w2s_ray.models.scorer import Scorer


def table(rows: int, per_row: int, seed: int = 0) -> Tokens:
    draw = np.random.default_rng(seed)
    segments = draw.integers(0, 12, (rows, 1 + per_row))
    segments[:, 1:] += segments[:, :1] == 0  # no text without tokens
    return Tokens(
        row_ids=[f"row{i}" for i in range(rows)],
        ids=draw.integers(0, 257, segments.sum(), dtype=np.int32),
        segments=segments,
        truncated=0,
    )


def alone(backbone: Backbone, tokens: Tokens) -> np.ndarray:
    """The last state of each text, prompt and answer in a row of their own."""
    ids, states = torch.from_numpy(tokens.ids.astype(np.int64)), []
    for row, sizes in zip(ids.split(tokens.row_lengths.tolist()), tokens.segments, strict=True):
        prompt, *answers = row.split(sizes.tolist())
        with torch.no_grad():
            for answer in answers:
                text = torch.cat([prompt, answer])[None]
                states.append(backbone.module(input_ids=text).last_hidden_state[0, -1])
    return torch.stack(states).view(-1, tokens.per_row, backbone.hidden_size).numpy()


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


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_passes_evenly_and_all_get_every_row(world: int) -> None:
    """Ranks as threads that meet in ``gather``, as processes would in an all-gather."""
    tokens = table(17, 2)
    meeting, local = threading.Barrier(world, timeout=30), [torch.empty(0)] * world

    def work(rank: int) -> tuple[np.ndarray, int]:
        passes = 0

        def forward(ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
            nonlocal passes
            passes += 1
            sums = [row.sum() for row in ids.split(segments.sum(dim=1).tolist())]
            return torch.stack([torch.stack(sums).float(), segments[:, 0].float()], dim=1)

        def gather(values: torch.Tensor) -> torch.Tensor:
            local[rank] = values
            meeting.wait()
            joined = torch.cat(local)
            meeting.wait()
            return joined

        return sweep(forward, tokens, 60, rank=rank, world=world, gather=gather), passes

    with ThreadPoolExecutor(world) as pool:
        found = list(pool.map(work, range(world)))
    sums = np.add.reduceat(tokens.ids, tokens.starts)
    for values, passes in found:
        assert values.tolist() == np.stack([sums, tokens.segments[:, 0]], axis=1).tolist()
        assert passes == found[0][1] > 1
