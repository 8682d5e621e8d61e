"""Log-probabilities of answers and their gradients are those of transformers, text by text."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.testing.tiny_models import ARCHITECTURES, line, tiny
from w2s_ray.data.tokens import Tokens
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import set_text_trainable
from w2s_ray.models.log_ratios import answer_log_ratios, implicit_reward_sums, token_log_probs
from w2s_ray.models.structure import untrained_language_model
from w2s_ray.spec.schema import Lora

ROWS = [
    [[5, 6, 7, 8], [1, 2, 3], [9, 4]],
    [[11], [12], [13, 14, 15, 16, 17, 18]],
    [[21, 22], [23, 24, 25], [23, 24, 25]],
]
both_heads = pytest.mark.parametrize("tied", [False, True])


def scorer(architecture: str = "llama", *, tied: bool = False, **options: Any) -> AnswerScorer:
    config = deepcopy(tiny(architecture).module.config)
    config.tie_word_embeddings = tied
    torch.manual_seed(len(architecture))
    causal: Any = untrained_language_model(config)
    shared = causal.get_output_embeddings().weight is causal.get_input_embeddings().weight
    assert shared == tied
    return AnswerScorer(causal.train(), **options)


def stock(scored: AnswerScorer, rows: list[list[list[int]]] = ROWS) -> Tensor:
    """(b, m) sums by the whole model with its own attention, each text in a row of its own."""
    model: Any = scored.causal
    used, model.base_model.config._attn_implementation = (
        model.base_model.config._attn_implementation,
        "sdpa",
    )
    sums = []
    for prompt, *answers in rows:
        for answer in answers:
            ids = torch.tensor([prompt + answer])
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
            log_probs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            sums.append(log_probs.gather(1, torch.tensor(answer)[:, None]).sum())
    model.base_model.config._attn_implementation = used
    return torch.stack(sums).view(len(rows), -1)


def gradients(module: AnswerScorer, sums: Tensor) -> dict[str, Tensor]:
    """Of a weighted sum of squares, by name."""
    weights = torch.linspace(0.5, 1.5, sums.numel()).view_as(sums)
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad((weights * sums.square()).mean() / 100, list(named.values()))
    return dict(zip(named, found, strict=True))


def close(own: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert own.keys() == theirs.keys()
    for name, value in own.items():
        scale = theirs[name].abs().max().clamp_min(1.0)
        torch.testing.assert_close(value / scale, theirs[name] / scale, atol=1e-5, rtol=0, msg=name)


@both_heads
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_and_separate_rows_are_the_whole_model(architecture: str, tied: bool) -> None:
    packed = scorer(architecture, tied=tied)
    assert packed.shares_prompts
    expected = stock(packed)
    slopes = gradients(packed, expected)
    sums = packed(*line(*ROWS))
    torch.testing.assert_close(sums, expected, atol=1e-5, rtol=1e-6)
    close(gradients(packed, sums), slopes)
    packed.shares_prompts = False
    used: Any = packed.causal.base_model.config
    used._attn_implementation = "sdpa"
    separate = packed(*line(*ROWS))
    torch.testing.assert_close(separate, expected, atol=1e-5, rtol=1e-6)
    close(gradients(packed, separate), slopes)


@both_heads
def test_the_size_of_a_chunk_changes_nothing(tied: bool) -> None:
    whole, cut = scorer(tied=tied), scorer(tied=tied, logits_at_once=1)
    ids, segments = line(*ROWS)
    values = whole(ids, segments), cut(ids, segments)
    torch.testing.assert_close(*values, atol=1e-5, rtol=0)
    close(gradients(cut, values[1]), gradients(whole, values[0]))


def test_logits_live_no_longer_than_their_chunk() -> None:
    """No tensor kept for the backward pass has the size of a chunk's logits."""
    cut = scorer(logits_at_once=2 * 257)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape[-1] if tensor.ndim else 0)
        return tensor

    vocabulary = int(cut.causal.config.vocab_size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cut(*line(*ROWS))
    assert kept and vocabulary not in kept


def test_parameters_keep_the_names_of_the_language_model() -> None:
    made = scorer(tied=True)
    names = [name for name, _ in made.named_parameters()]
    assert names == [f"causal.{name}" for name, _ in made.causal.named_parameters()]


def test_only_adapters_have_gradients_under_lora() -> None:
    made = scorer()
    set_text_trainable(made.causal, "lora", Lora(rank=2), seed=0)
    torch.testing.assert_close(made(*line(*ROWS)), stock(made), atol=1e-5, rtol=1e-6)
    assert all("lora_" in name for name in gradients(made, made(*line(*ROWS))))


def tokens() -> Tokens:
    ids, segments = line(*ROWS)
    return Tokens(["a", "b", "c"], ids.numpy().astype(np.int32), segments.numpy(), 0)


@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_an_implicit_reward_is_the_log_ratio_of_the_answer_summed_over_its_tokens(
    budget: int,
) -> None:
    """β [log π(y | x) − log π_ref(y | x)]; ``test_reward_trl`` compares it with what TRL logs."""
    post, pre = scorer("qwen2"), scorer("llama")
    ratios = answer_log_ratios(post, pre, tokens(), budget)
    assert [len(of_row) for of_row in ratios] == [5, 7, 6]
    rewards = implicit_reward_sums(ratios, tokens(), 0.1)
    with torch.no_grad():
        expected = 0.1 * (stock(post) - stock(pre))
    np.testing.assert_allclose(rewards, expected.numpy(), atol=1e-5)


def test_log_probs_that_are_not_finite_are_named() -> None:
    made = scorer()
    with torch.no_grad():
        next(made.causal.parameters())[14] = float("nan")  # a token of row b alone
    with pytest.raises(FloatingPointError, match=r"row b .*so are 32 numbers of the weights"):
        token_log_probs(made, tokens())
