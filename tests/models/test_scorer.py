"""The readout and the heads: what a score may depend on, and what it may not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.testing.linear_scorer import LinearScorer
from tests.testing.tiny_models import ARCHITECTURES, line, texts, tiny
from w2s_ray.models.scorer import INIT_STD, Scorer, readout

PAIRS = [
    [[5, 9, 200, 31], [7], [12, 0, 0, 256, 3, 4, 4, 9, 11]],
    [[], [1, 2], [40, 41, 42]],
    [[6, 6], [], [13, 14]],
]


def last_state(module: nn.Module, text: list[int]) -> Tensor:
    """(H,) of the last token of a text that the model reads alone."""
    states: Tensor = module(input_ids=torch.tensor([text])).last_hidden_state
    return states[0, -1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_line_of_rows_is_each_text_alone(architecture: str, shared: bool) -> None:
    module = tiny(architecture).module
    if not shared:
        module.config._attn_implementation = "sdpa"
    together = readout(module, *line(*PAIRS))
    alone = [last_state(module, prompt + answer) for prompt, *row in PAIRS for answer in row]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)
    assert abs(float((together - torch.stack(alone)).detach().mean())) < 1e-6
    assert float(together.detach().std()) > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("last", [0, 256])  # what pads separate rows, and the tokenizer's pad token
def test_the_last_real_token_is_read_whatever_its_id(architecture: str, last: int) -> None:
    backbone = tiny(architecture)
    assert backbone.tokenizer.pad_token_id == 256
    ids, segments = texts([8, 9, last], [1, 2, 3, 4, 5])
    with torch.no_grad():
        states = backbone.module(input_ids=ids[None, :3]).last_hidden_state
        found = readout(backbone.module, ids, segments)[0]
        backbone.module.config._attn_implementation = "sdpa"
        separate = readout(backbone.module, ids, segments)[0]
    torch.testing.assert_close(found, states[0, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(separate, states[0, 2], atol=1e-5, rtol=0)
    assert float((found - states[0, 1]).abs().max()) > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_swapping_the_answers_turns_the_margin_round(architecture: str) -> None:
    scorer = Scorer(tiny(architecture).module, 32, 2, 2, seed=3)
    logits = scorer(*line(*PAIRS))
    assert logits.shape == (3, 2)
    assert logits.dtype == torch.float32
    assert (logits[:, 0] == 0).all()
    swapped = scorer(*line(*([prompt, b, a] for prompt, a, b in PAIRS)))
    torch.testing.assert_close(swapped[:, 1], -logits[:, 1], atol=1e-6, rtol=0)
    assert float(logits[:, 1].detach().abs().min()) > 1e-3


def test_classes_have_a_logit_each() -> None:
    scorer = Scorer(tiny("gpt2").module, 32, 5, 1)
    inputs = line(*([prompt, answer] for prompt, _, answer in PAIRS))
    before = scorer(*inputs)
    assert before.shape == (3, 5)
    assert {name for name, _ in scorer.head.named_parameters()} == {"weight"}  # as exported
    states = readout(scorer.backbone, *inputs)
    torch.testing.assert_close(before, states @ scorer.head.weight.T)


def test_the_head_is_drawn_from_its_seed_alone() -> None:
    module = tiny("llama").module
    state = torch.random.get_rng_state()
    first, again, other = (Scorer(module, 32, 40, 1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert float(first.head.weight.detach().std()) == pytest.approx(INIT_STD, rel=0.1)


def test_in_bf16_the_head_and_the_logits_stay_fp32() -> None:
    scorer = Scorer(tiny("qwen2", "bf16").module, 32, 2, 2)
    assert {p.dtype for p in scorer.backbone.parameters()} == {torch.bfloat16}
    assert scorer.head.weight.dtype == torch.float32
    assert scorer(*line(*PAIRS)).dtype == torch.float32


@given(
    per_row=st.sampled_from([1, 2]),
    scales=st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50)
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
    inputs = line(*(row[: 1 + per_row] for row in PAIRS))
    features = readout(scorer.backbone, *inputs).view(-1, per_row, 32)
    assert not linear(features).any()
    head = {name: p for name, p in scorer.state_dict().items() if name.startswith("head.")}
    linear = LinearScorer.from_state(head, per_row)
    torch.testing.assert_close(linear(features), scorer(*inputs))
