"""Distance and perplexity in the report are what their names say, on models that are known."""

from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from tests.testing.tiny_models import tiny_spec
from w2s_ray.models.causal import load_causal
from w2s_ray.models.decoding import Decoding, decode
from w2s_ray.report.text_scores import distance, distance_per_token, perplexity

LENGTH, PROMPTS, SAMPLES = 2, [[5, 9, 200], [7, 8]], 600


def row(prompt: int, log_ratio: float, tokens: int = LENGTH, cut_off: int = 1) -> dict[str, Any]:
    return {
        "split": "test",
        "prompt_id": str(prompt),
        "log_prob": log_ratio - 1.0,
        "log_prob_reference": -1.0,
        "tokens": tokens,
        "cut_off": cut_off,
        "outside_log_prob": None,
    }


def exact_kl(post: Any, pre: Any, prompt: list[int]) -> float:
    """Σ_t of the expected KL divergence of the next token's distributions, in full."""
    total, begins = 0.0, [(prompt, 1.0)]
    for _ in range(LENGTH):
        ids = torch.tensor([begin for begin, _ in begins])
        weights = torch.tensor([weight for _, weight in begins], dtype=torch.float64)
        with torch.no_grad():
            p, q = (
                of.module(input_ids=ids).logits[:, -1].double().log_softmax(1) for of in (post, pre)
            )
        total += float(weights @ (p.exp() * (p - q)).sum(1))
        begins = [
            ([*begin, token], weight * float(probability))
            for (begin, weight), probabilities in zip(begins, p.exp(), strict=True)
            for token, probability in enumerate(probabilities)
        ]
    return total


def test_the_mean_log_ratio_of_plain_samples_is_the_sum_of_the_divergences_of_tokens() -> None:
    post, pre = (load_causal(tiny_spec("llama", init_seed=n), "fp32", device="cpu") for n in (0, 1))
    endless = [type(of)(of.module, of.tokenizer, (10**6,), of.name) for of in (post, pre)]
    seeds, rows = count(), []
    for number, prompt in enumerate(PROMPTS):
        decoded = decode(
            dict(zip(("model", "pre"), endless, strict=True)),
            [prompt] * SAMPLES,
            np.array([next(seeds) for _ in range(SAMPLES)], dtype=np.uint64),
            Decoding(
                mode="contrastive",
                alpha=1.0,
                head=0.0,
                temperature=1.0,
                top_p=1.0,
                max_new_tokens=LENGTH,
            ),
        )
        ratios = decoded.log_probs["model"].astype(float) - decoded.log_probs["pre"]
        rows += [row(number, float(of)) for of in ratios]
    exact = np.mean([exact_kl(post, pre, prompt) for prompt in PROMPTS])
    error = np.std([of["log_prob"] for of in rows]) / len(rows) ** 0.5
    found = distance([rows]).value
    assert exact > 20 * error  # a test that could fail
    assert found == pytest.approx(exact, abs=4 * error)
    assert distance_per_token([rows]).value == pytest.approx(found / LENGTH)


def test_per_token_it_is_all_nats_by_all_tokens_with_the_ends() -> None:
    rows = [row(0, 2.0, 3, 0), row(1, 6.0, 10, 1)]  # one ended: its end is a token
    found = distance_per_token([rows])
    assert found.value == pytest.approx(8.0 / 14.0)
    assert found.low is not None and found.low < 8.0 / 14.0


def test_perplexity_is_the_geometric_mean_over_prompts_and_none_without_a_model() -> None:
    rows = [row(0, 0.0), row(0, 0.0), row(1, 0.0)]
    assert perplexity([rows]).value is None
    for of, nats, tokens in zip(rows, (2.0, 8.0, 3.0), (2, 4, 3), strict=True):
        of |= {"outside_log_prob": -nats, "outside_tokens": tokens}
    assert perplexity([rows]).value == pytest.approx(np.exp((1.5 + 1.0) / 2))
    rows[2]["outside_log_prob"] = None
    assert perplexity([rows]).value is None  # of one prompt there is no mean with an error
