"""Decoding in batches with caches is decoding one by one without, and as transformers does it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from tests.testing.families import FAMILIES, save_family, with_end
from tests.testing.shares import share
from tests.testing.tiny_models import ARCHITECTURES, tiny_spec
from w2s_ray.catalog import measured
from w2s_ray.errors import InputError
from w2s_ray.models.causal import CausalModel, load_causal
from w2s_ray.models.decoding import COMBINED, ROLES, Decoding, check_same_vocabulary, decode
from w2s_ray.objectives.contrast import (
    contrastive_scores,
    draw,
    proxy_scores,
    repetition_penalty,
    tempered,
)

PROMPTS = [[5, 9, 200, 31], [7, 8], [12, 0, 0, 255, 3, 4, 90], [1], [7, 8], [7, 8]]
SEEDS = np.arange(3, 3 + len(PROMPTS), dtype=np.uint64)


@pytest.fixture(autouse=True)
def measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured, "PROGRAM", "none")


def model(architecture: str = "llama", seed: int = 0, **fields: Any) -> CausalModel:
    return load_causal(tiny_spec(architecture, init_seed=seed, **fields), "fp32", device="cpu")


def models(mode: str, architecture: str = "llama") -> dict[str, CausalModel]:
    return {role: model(architecture, seed) for seed, role in enumerate(ROLES[mode])}


def ends_with(given: CausalModel, *ends: int) -> CausalModel:
    return CausalModel(given.module, given.tokenizer, ends, given.name)


@torch.no_grad()
def one_by_one(
    given: dict[str, CausalModel], prompt: Sequence[int], seed: int, how: Decoding
) -> tuple[list[int], dict[str, float]]:
    """Tokens, the end token included, and log-probabilities: no cache, no batch, no padding."""
    ids, sums = list(prompt), dict[str, float]()
    numbers = np.random.Generator(np.random.Philox(key=seed)).random(how.max_new_tokens)
    for number in numbers:
        text = torch.tensor([ids])
        outputs = {r: m.module(input_ids=text, use_cache=False) for r, m in given.items()}
        logits = {role: output.logits[:, -1] for role, output in outputs.items()}
        if how.mode == "plain":
            scores = logits["model"].log_softmax(-1)
        elif how.mode == "proxy":
            scores = proxy_scores(logits["model"], logits["post"], logits["pre"])
            logits[COMBINED] = scores
        else:
            pair = (logits["model"], logits["pre"])
            scores = contrastive_scores(*pair, alpha=how.alpha, head=how.head)
        seen = torch.zeros_like(scores, dtype=torch.bool)
        seen[0, ids if how.penalty_on == "released" else ids[len(prompt) :]] = True
        alpha = how.alpha if how.mode == "contrastive" else 1.0
        penalty, on = how.repetition_penalty, how.penalty_on
        scores = repetition_penalty(scores, seen, penalty, acts_on=on, alpha=alpha)
        uniform = torch.tensor([number], dtype=torch.float64)
        token = int(draw(tempered(scores, how.temperature), uniform, how.top_p))
        for role, values in logits.items():
            sums[role] = sums.get(role, 0.0) + float(values.log_softmax(-1)[0, token])
        ids.append(token)
        if token in given["model"].end_ids:
            break
    return ids[len(prompt) :], sums


HOW = [
    Decoding("plain", temperature=0.0, max_new_tokens=20),
    Decoding("plain", top_p=1.0, max_new_tokens=20),
    Decoding("plain", repetition_penalty=1.3, max_new_tokens=12),
    Decoding("contrastive", temperature=0.0, max_new_tokens=20),
    Decoding("contrastive", head=0.01, repetition_penalty=1.2, max_new_tokens=12),
    Decoding(
        "contrastive", head=0.01, repetition_penalty=1.2, penalty_on="released", max_new_tokens=12
    ),
    Decoding("proxy", temperature=0.0, max_new_tokens=20),
    Decoding("proxy", repetition_penalty=1.2, max_new_tokens=12),
]


@pytest.mark.parametrize("how", HOW, ids=lambda how: f"{how.mode}-{HOW.index(how)}")
def test_batched_padded_and_cached_is_one_by_one(how: Decoding) -> None:
    given = models(how.mode)
    given["model"] = ends_with(given["model"], *range(0, 257, 9))  # rows end at different times
    found = decode(given, PROMPTS, SEEDS, how, batch_rows=4)
    for i, prompt in enumerate(PROMPTS):
        tokens, sums = one_by_one(given, prompt, int(SEEDS[i]), how)
        ended = tokens[-1] in given["model"].end_ids
        assert found.tokens[i] == (tokens[:-1] if ended else tokens)
        assert found.ended_by[i] == ("end" if ended else "length")
        assert found.finished[i] == ended
        assert found.end_tokens[i] == (tokens[-1] if ended else None)
        for role, total in sums.items():  # a teacher-forced pass without a cache
            assert found.log_probs[role][i] == pytest.approx(total, abs=1e-4, rel=1e-5)


def test_a_proxy_of_a_weak_model_that_did_not_move_is_the_strong_model() -> None:
    given = models("proxy")
    given["post"] = given["pre"]
    how = Decoding("proxy", max_new_tokens=12)
    found = decode(given, PROMPTS, SEEDS, how).log_probs
    assert found[COMBINED] == pytest.approx(found["model"], abs=1e-4)
    given["post"] = model("llama", 7)
    found = decode(given, PROMPTS, SEEDS, how).log_probs
    assert (found[COMBINED] - found["model"]).mean() > 0.0  # a sample of it, under it


@pytest.mark.long
@pytest.mark.parametrize("name", share(FAMILIES, 3))
def test_every_family_decodes_in_batches_as_one_by_one(name: str, tmp_path: Path) -> None:
    """Sliding windows, ALiBi, experts: caches and padding on the left are theirs to handle."""
    spec = with_end(save_family(name, tmp_path / "model"), *range(0, 257, 9))
    given = {"model": load_causal(spec, "fp32", device="cpu")}
    how = Decoding("plain", temperature=0.0, max_new_tokens=12)
    found = decode(given, PROMPTS[:4], SEEDS[:4], how)
    for prompt, tokens in zip(PROMPTS[:4], found.tokens, strict=True):
        expected, _ = one_by_one(given, prompt, 0, how)
        assert tokens == [t for t in expected if t not in given["model"].end_ids]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_tokens_are_those_of_transformers(architecture: str) -> None:
    given = model(architecture)
    how = Decoding("plain", temperature=0.0, max_new_tokens=24)
    found = decode({"model": given}, PROMPTS, SEEDS, how)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=24, eos_token_id=list(given.end_ids), pad_token_id=0
    )
    module: Any = given.module
    for prompt, tokens in zip(PROMPTS, found.tokens, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        whole = module.generate(ids, attention_mask=mask, generation_config=config)[0].tolist()
        reference = whole[len(prompt) :]
        assert tokens == [token for token in reference if token not in given.end_ids]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_depend_on_their_own_seed_alone(architecture: str) -> None:
    given = models("contrastive", architecture)
    how = Decoding("contrastive", head=0.01, max_new_tokens=16)
    together = decode(given, PROMPTS, SEEDS, how)
    order = np.array([4, 2, 0, 5, 1, 3])
    shuffled = decode(given, [PROMPTS[i] for i in order], SEEDS[order], how, batch_rows=2)
    assert [shuffled.tokens[list(order).index(i)] for i in range(6)] == together.tokens
    small = decode(given, PROMPTS, SEEDS, how, batch_tokens=50)
    assert small.tokens == together.tokens
    assert together.tokens[1] != together.tokens[4], "two samples of one prompt"


def test_an_answer_may_be_empty() -> None:
    given = model()
    how = Decoding("plain", temperature=0.0, max_new_tokens=5)
    first = decode({"model": given}, PROMPTS[:1], SEEDS[:1], how).tokens[0][0]
    found = decode({"model": ends_with(given, first)}, PROMPTS[:1], SEEDS[:1], how)
    assert found.tokens == [[]]
    assert found.texts == [""]
    assert (found.finished, found.ended_by) == ([True], ["end"])
    with torch.no_grad():
        logits = given.module(input_ids=torch.tensor(PROMPTS[:1])).logits[0, -1]
    expected = float(logits.log_softmax(-1)[first])
    assert found.log_probs["model"][0] == pytest.approx(expected, abs=1e-4)


def test_a_text_is_cut_at_a_stop_string_inside_a_token() -> None:
    given = model()
    how = Decoding("plain", temperature=0.0, max_new_tokens=12)
    prompts, seeds = PROMPTS[:3], SEEDS[:3]
    free = decode({"model": given}, prompts, seeds, how)

    class Wide:
        """Every token is four letters of its own, so that a stop string lies inside one."""

        def __init__(self, tokenizer: Any) -> None:
            self.get_vocab = tokenizer.get_vocab

        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            return "".join(f"{chr(256 + t)}<{chr(1024 + t)}>" for t in tokens)

    wide: Any = Wide(given.tokenizer)
    token = free.tokens[0][4]
    first = free.tokens[0].index(token)
    stop = ("never", f"<{chr(1024 + token)}")
    found = decode(
        {"model": CausalModel(given.module, wide, given.end_ids, "wide")},
        prompts,
        seeds,
        Decoding("plain", temperature=0.0, max_new_tokens=12, stop=stop),
    )
    assert found.tokens[0] == free.tokens[0][: first + 1]
    whole = wide.decode(free.tokens[0], skip_special_tokens=True)
    assert found.texts[0] == whole[: whole.index(stop[1])]
    assert found.texts[0].endswith(chr(256 + token))
    assert (found.ended_by[0], found.finished[0]) == ("stop", True)
    assert found.end_tokens[0] is None
    for i in (1, 2):
        assert stop[1] not in found.texts[i]


def test_progress_counts_rows_that_ended() -> None:
    seen: list[int] = []
    how = Decoding("plain", max_new_tokens=8)
    decode({"model": model()}, PROMPTS, SEEDS, how, batch_rows=2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(PROMPTS)


def test_what_cannot_be_decoded_is_one_line() -> None:
    given = model("gpt2", config={"n_positions": 16})
    how = Decoding("plain", max_new_tokens=12)
    with pytest.raises(InputError, match=r"prompt 1: it has no tokens"):
        decode({"model": given}, [[1], []], SEEDS[:2], how)
    with pytest.raises(InputError, match=r"prompt 0: 5 tokens and 12 new ones exceed the 16 pos"):
        decode({"model": given}, [[1, 2, 3, 4, 5]], SEEDS[:1], how)
    other = CausalModel(given.module, _Renamed(given.tokenizer), given.end_ids, "other")
    with pytest.raises(InputError, match=r"models gpt2 and other: 2 tokens .* first is '!'"):
        check_same_vocabulary(given, other)


class _Renamed:
    """A tokenizer with two tokens exchanged."""

    def __init__(self, tokenizer: Any) -> None:
        self._vocabulary = tokenizer.get_vocab()
        pair = {"!": self._vocabulary['"'], '"': self._vocabulary["!"]}
        self._vocabulary |= pair

    def get_vocab(self) -> dict[str, int]:
        return dict(self._vocabulary)
