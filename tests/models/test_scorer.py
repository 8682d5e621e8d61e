"""The readout and the heads: what a score may depend on, and what it may not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.tiny import ARCHITECTURES, batch, tiny
from w2s_ray.models.scorer import INIT_STD, LinearScorer, Scorer, readout

TEXTS = [[5, 9, 200, 31], [7], [12, 0, 0, 256, 3, 4, 4, 9, 11], [1, 2]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_padded_batch_is_each_text_alone(architecture: str) -> None:
    module = tiny(architecture).module
    together = readout(module, *batch(*TEXTS))
    alone = torch.cat([readout(module, *batch(text)) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert abs(float((together - alone).detach().mean())) < 1e-6
    torch.testing.assert_close(readout(module, *batch(*TEXTS, padding=77)), together)
    assert float(together.detach().std()) > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("last", [0, 256])  # the padding in `batch`, and the tokenizer's pad token
def test_the_last_real_token_is_read_whatever_its_id(architecture: str, last: int) -> None:
    backbone = tiny(architecture)
    assert backbone.tokenizer.pad_token_id == 256
    ids, lengths = batch([8, 9, last], [1, 2, 3, 4, 5])
    with torch.no_grad():
        states = backbone.module(input_ids=ids[:1, :3]).last_hidden_state
    found = readout(backbone.module, ids, lengths)[0]
    torch.testing.assert_close(found, states[0, 2], atol=1e-5, rtol=0)
    assert float((found - states[0, 1]).detach().abs().max()) > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_swapping_the_answers_turns_the_margin_round(architecture: str) -> None:
    scorer = Scorer(tiny(architecture).module, 32, 2, 2, seed=3)
    ids, lengths = batch(*TEXTS)
    swapped = torch.tensor([1, 0, 3, 2])
    logits = scorer(ids, lengths)
    assert logits.shape == (2, 2)
    assert logits.dtype == torch.float32
    assert (logits[:, 0] == 0).all()
    torch.testing.assert_close(
        scorer(ids[swapped], lengths[swapped])[:, 1], -logits[:, 1], atol=1e-6, rtol=0
    )
    assert float(logits[:, 1].detach().abs().min()) > 1e-3


def test_classes_have_a_logit_each_and_a_bias() -> None:
    scorer = Scorer(tiny("gpt2").module, 32, 5, 1)
    ids, lengths = batch(*TEXTS)
    before = scorer(ids, lengths)
    assert before.shape == (4, 5)
    assert scorer.head.bias is not None
    scorer.head.bias.data += torch.arange(5.0)
    torch.testing.assert_close(scorer(ids, lengths) - before, torch.arange(5.0).expand(4, 5))


def test_the_head_is_drawn_from_its_seed_alone() -> None:
    module = tiny("llama").module
    state = torch.random.get_rng_state()
    first, again, other = (Scorer(module, 32, 40, 1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert float(first.head.weight.detach().std()) == pytest.approx(INIT_STD, rel=0.1)
    assert not first.head.bias.any()  # type: ignore[union-attr]
    assert Scorer(module, 32, 2, 2).head.bias is None


def test_in_bf16_the_head_and_the_logits_stay_fp32() -> None:
    scorer = Scorer(tiny("qwen2", "bf16").module, 32, 2, 2)
    assert {p.dtype for p in scorer.backbone.parameters()} == {torch.bfloat16}
    assert scorer.head.weight.dtype == torch.float32
    assert scorer(*batch(*TEXTS)).dtype == torch.float32


@given(
    per_row=st.sampled_from([1, 2]),
    scales=st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None)
def test_a_folded_head_gives_on_raw_what_it_gave_on_standardised_features(
    per_row: int, scales: list[float], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale, mean = torch.tensor(scales), torch.randn(3, generator=generator)
    scorer = LinearScorer(3, 2, per_row)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.normal_(generator=generator)
    features = mean + scale * torch.randn(6, per_row, 3, generator=generator)
    expected = scorer((features - mean) / scale)
    torch.testing.assert_close(scorer.fold(mean, scale)(features), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("num_classes", "per_row"), [(2, 2), (3, 1), (2, 1)])
def test_a_linear_scorer_is_a_scorer_on_its_features(num_classes: int, per_row: int) -> None:
    scorer = Scorer(tiny("gpt_neox").module, 32, num_classes, per_row, seed=1)
    linear = LinearScorer(32, num_classes, per_row)
    ids, lengths = batch(*TEXTS)
    features = readout(scorer.backbone, ids, lengths).view(-1, per_row, 32)
    assert not linear(features).any()
    head = {name: p for name, p in scorer.state_dict().items() if name.startswith("head.")}
    linear = LinearScorer.from_state(head, per_row)
    torch.testing.assert_close(linear(features), scorer(ids, lengths))
