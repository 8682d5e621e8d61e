"""Packed rows are separate rows: in states, in gradients, and in what a token may depend on."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask, flex_attention
from transformers import LlamaModel, PreTrainedModel, Qwen2Config, Qwen2Model
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from tests.testing.tiny_models import ARCHITECTURES, tiny, tiny_spec
from w2s_ray.models import packed_attention, packed_layout
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.packed_attention import (
    Pattern,
    attend,
    packed,
    packing,
    separate,
    use_if_exact,
)
from w2s_ray.models.packed_layout import Layout, lay_out
from w2s_ray.models.scorer import readout
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.spec.schema import ModelSpec

GROUPED = {"config": {"num_attention_heads": 4, "num_key_value_heads": 2}}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{architecture: (architecture, {}) for architecture in ARCHITECTURES},
    "llama, grouped queries": ("llama", GROUPED),
    "qwen2, grouped queries": ("qwen2", GROUPED),
}
every_model = pytest.mark.parametrize("name", MODELS)

RULES = {"causal": causal_mask_function, "window": sliding_window_causal_mask_function(6)}
LONG = [9, 41, 30]  # tokens of the prompt and of each answer
MIXED = [[3, 2, 4], [0, 1, 5], [4, 0, 2], LONG, [1, 3, 0], [2, 2, 2]]


@cache
def model(name: str, precision: str = "fp32") -> PreTrainedModel:
    architecture, fields = MODELS[name]
    return tiny(architecture, precision, **fields).module


def tokens_for(segments: list[list[int]], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(257, (sum(map(sum, segments)),), generator=generator)


def seen(segments: list[list[int]]) -> Tensor:
    """(T, T) bool, token by token from the definition: whether the first sees the second."""
    tokens = [
        (group, part, place)
        for group, row in enumerate(segments)
        for part, size in enumerate(row)
        for place in range(size)
    ]
    return torch.tensor(
        [
            [
                other == group and (earlier, before) <= (part, place) and earlier in (0, part)
                for other, earlier, before in tokens
            ]
            for group, part, place in tokens
        ]
    )


def states(module: PreTrainedModel, segments: list[list[int]], **inputs: Tensor) -> Tensor:
    """(T, H) states of all tokens of a packed line."""
    layout, positions, _ = lay_out(torch.tensor(segments))
    with packing(layout):
        found: Tensor = module(
            **inputs,
            attention_mask=torch.ones(1, len(positions), dtype=torch.int64),
            position_ids=positions[None],
        ).last_hidden_state
    return found[0]


@st.composite
def lines(draw: st.DrawFn) -> list[list[int]]:
    """Segments of one to five rows; a text has at least one token. One row may be long."""
    texts = draw(st.integers(1, 3))
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        prompt = draw(st.integers(0, 5))
        smallest = 0 if prompt else 1
        answers = st.lists(st.integers(smallest, 6), min_size=texts, max_size=texts)
        rows.append([prompt, *draw(answers)])
    if draw(st.booleans()):
        rows.insert(draw(st.integers(0, len(rows))), [9, 41, 30, 1][: 1 + texts])
    return rows


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_model
def test_every_architecture_shares_prompts(name: str, precision: str) -> None:
    architecture, fields = MODELS[name]
    assert tiny(architecture, precision, **fields).shares_prompts


@every_model
@settings(max_examples=20)
@given(segments=lines(), seed=st.integers(0, 2**32))
@example(segments=MIXED, seed=0)
@example(segments=[[1, 0, 0]], seed=0)  # both texts are the prompt alone
@example(segments=[[0, 1]], seed=0)
def test_packed_rows_are_separate_rows(name: str, segments: list[list[int]], seed: int) -> None:
    module, ids, parts = model(name), tokens_for(segments, seed), torch.tensor(segments)
    ours, theirs = (way(module, ids, parts) for way in (packed, separate))
    assert ours.shape == (len(segments) * (len(segments[0]) - 1), 32)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(packed(module, ids, parts), theirs, atol=1e-5, rtol=1e-5)

    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed))
    parameters = list(module.parameters())
    gradients = [torch.autograd.grad((s * direction).sum(), parameters) for s in (ours, theirs)]
    scale = max(float(gradient.abs().max()) for gradient in gradients[1])
    for found, wanted in zip(*gradients, strict=True):  # some are 0 in theory: a key's bias
        torch.testing.assert_close(found, wanted, atol=1e-5 * scale, rtol=1e-5)


@every_model
def test_the_difference_to_separate_rows_leans_to_no_side(name: str) -> None:
    """A prompt counted once too often, or a share of a gradient left out, is a shift."""
    module = model(name)
    segments = [[4 + i % 5, 2 + i % 7, 1 + i % 3] for i in range(40)]
    ids, parts = tokens_for(segments), torch.tensor(segments)
    ours, theirs = (way(module, ids, parts) for way in (packed, separate))
    residual = (ours - theirs).detach().double()
    of_texts = residual.mean(dim=1)  # errors within a text are not independent
    assert of_texts.mean().abs() < 4 * of_texts.std() / len(of_texts) ** 0.5 + 1e-9

    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    found, wanted = (
        torch.cat(
            [
                gradient.flatten().double()
                for gradient in torch.autograd.grad(
                    (s * direction).sum(), list(module.parameters())
                )
            ]
        )
        for s in (ours, theirs)
    )
    assert (found @ wanted) / (wanted @ wanted) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("gradients", [True, False])
@every_model
def test_a_token_changes_those_that_see_it_and_no_other(name: str, gradients: bool) -> None:
    """Not by a single bit: no other answer, no other group, no earlier token."""
    module = model(name)
    segments = [[3, 2, 4], [0, 3, 2], [2, 0, 3]]
    ids, sees = tokens_for(segments), seen(segments)
    with torch.set_grad_enabled(gradients):
        before = states(module, segments, input_ids=ids[None])
        for place in range(len(ids)):
            other = ids.clone()
            other[place] = (other[place] + 1) % 257
            after = states(module, segments, input_ids=other[None])
            changed = (before != after).any(dim=1)
            assert changed.tolist() == sees[:, place].tolist()


@every_model
def test_gradients_reach_what_a_token_sees_and_nothing_else(name: str) -> None:
    module = model(name)
    segments = [[3, 2, 4], [0, 3, 2], [2, 0, 3]]
    embedded = module.get_input_embeddings()(tokens_for(segments))[None].detach()
    embedded.requires_grad_()
    found = states(module, segments, inputs_embeds=embedded)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    for state, sees in zip(found @ direction, seen(segments), strict=True):
        (gradient,) = torch.autograd.grad(state, embedded, retain_graph=True)
        assert gradient[0].any(dim=1).tolist() == sees.tolist()


@every_model
def test_bf16_is_as_near_to_fp32_packed_as_in_separate_rows(name: str) -> None:
    ids, parts = tokens_for(MIXED), torch.tensor(MIXED)
    full = separate(model(name), ids, parts).detach()
    low = model(name, "bf16")
    usual = (separate(low, ids, parts).float() - full).detach().square().mean().sqrt()
    assert 0 < usual < 0.2
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = packed(low, ids, parts)
        assert found.dtype == torch.bfloat16
        assert (found.float() - full).detach().square().mean().sqrt() < 1.5 * usual


@given(lines())
def test_a_layout_is_its_definition(segments: list[list[int]]) -> None:
    layout, positions, last = lay_out(torch.tensor(segments))
    sizes = [sum(row) for row in segments]
    assert sum(block.count for block in layout.blocks) == len(segments)
    found = torch.zeros(sum(sizes) + 1, sum(sizes) + 1, dtype=torch.bool)
    for block in layout.blocks:
        assert {float(v) for v in block.mask.unique()} <= {0.0, float("-inf")}
        span = torch.arange(sum(sizes))[block.span]
        places = (
            span if block.source is None else torch.cat([span, -torch.ones(1).long()])[block.source]
        )
        for mask, of_group in zip(block.mask, places.view(block.count, block.size), strict=True):
            found[of_group[:, None], of_group] |= mask == 0
    assert torch.equal(found[:-1, :-1], seen(segments))
    assert not found[:-1, -1].any() and not found[-1, :-1].any()  # what fills a group up
    wanted = [
        place + (prompt if part else 0)
        for prompt, *answers in segments
        for part, size in enumerate([prompt, *answers])
        for place in range(size)
    ]
    assert positions.tolist() == wanted
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
    ends = [
        int(start) + prompt + sum(answers[: number + 1]) - 1 if answer else int(start) + prompt - 1
        for start, (prompt, *answers) in zip(starts, segments, strict=True)
        for number, answer in enumerate(answers)
    ]
    assert last.tolist() == ends


# The GPU's way, as far as a CPU can tell.


@pytest.mark.parametrize(
    "segments",
    [
        MIXED,
        [[0, 1]],
        [[100, 90, 200], [3, 2, 2], [0, 128, 1], [130, 0, 126]],
        [[64, 64, 0], [128, 64, 64]],
    ],
    ids=["short", "one token", "long", "whole blocks"],
)
def test_the_block_mask_of_a_gpu_is_the_masks_of_a_cpu(segments: list[list[int]]) -> None:
    sees = seen(segments)
    total, block = len(sees), packed_layout.BLOCK
    mask = packed_layout._block_mask(torch.tensor(segments), total)
    filled = -(-total // block) * block
    assert mask.shape[-2:] == (filled, filled)
    dense = create_mask(mask.mask_mod, 1, 1, filled, filled, device="cpu")[0, 0]
    assert torch.equal(dense[:total, :total], sees)
    assert not dense[:total, total:].any()
    assert dense.diagonal().all()  # what only fills the line sees itself, else it were not a number
    blocks = dense.unfold(0, block, block).unfold(1, block, block)
    assert torch.equal(mask.to_dense()[0, 0].bool(), blocks.any(dim=-1).any(dim=-1))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("heads", [4, 2, 1])
def test_flex_attention_gives_what_a_cpu_computes(
    heads: int, rule: Any, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlexAttention as it stands, not compiled; its line is filled up and cut again."""
    monkeypatch.setattr(packed_attention, "_compiled_flex", lambda: flex_attention)
    segments = torch.tensor([[50, 40, 60], [2, 1, 0], [0, 3, 5]])
    total = int(segments.sum())
    draw = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, total, 8, generator=draw) for count in (4, heads, heads)
    )
    layout, positions, _ = lay_out(segments)
    gpu = Layout([], packed_layout._block_mask(segments, total), positions)
    module = torch.nn.Module()

    def attended(layout: Layout, scaling: float | None) -> Tensor:
        with packing(layout):
            mask = Pattern(mask_function=rule)
        return attend(module, query, key, value, mask, scaling, softcap=softcap)[0]

    for scaling in (None, 0.7):
        with torch.no_grad():
            ours, theirs = attended(gpu, scaling), attended(layout, scaling)
        trained = attended(layout, scaling)
        assert ours.shape == (1, total, 4, 8)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(trained, theirs, atol=1e-5, rtol=0)


# Models that cannot share prompts.


def check_separate(module: PreTrainedModel) -> None:
    """Every text of a line gets the state that the model gives to that text alone, eagerly."""
    ids = tokens_for(MIXED)
    found = readout(module, ids, torch.tensor(MIXED))
    module.config._attn_implementation = "eager"
    alone = []
    for row, sizes in zip(ids.split([sum(row) for row in MIXED]), MIXED, strict=True):
        prompt, *answers = row.split(sizes)
        alone += [module(input_ids=torch.cat([prompt, a])[None])[0][0, -1] for a in answers]
    torch.testing.assert_close(found, torch.stack(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [3, 64])
def test_a_model_with_sliding_windows_shares_prompts(tmp_path: Path, window: int) -> None:
    """A window counts positions of a text, not tokens of the line."""
    config = Qwen2Config(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.2,
        use_sliding_window=True,
        sliding_window=window,
        max_window_layers=1,
    )
    assert config.layer_types == ["full_attention", "sliding_attention"]
    with torch.random.fork_rng():
        Qwen2Model(config).save_pretrained(tmp_path)
    bytes_tokenizer().save_pretrained(tmp_path)
    backbone = load_backbone(ModelSpec(source=str(tmp_path)), "fp32")
    assert backbone.shares_prompts
    check_separate(backbone.module)


def test_a_model_that_takes_no_positions_keeps_separate_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = LlamaModel.forward

    def counted(self: LlamaModel, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", counted)
    backbone = load_backbone(tiny_spec("llama"), "fp32", "cpu")
    assert not backbone.shares_prompts
    check_separate(backbone.module)


def test_a_model_that_mixes_neighbours_outside_attention_keeps_separate_rows() -> None:
    """As a convolution over tokens would: it sees the tokens beside each other in the line."""
    module = tiny("qwen2").module
    mixing = module.get_submodule("layers.0.mlp").register_forward_hook(
        lambda mlp, inputs, output: output + output.roll(1, dims=1) * 0.1
    )
    assert not use_if_exact(module)
    mixing.remove()
    assert use_if_exact(module)


def test_packing_can_be_turned_off_and_on_again() -> None:
    """The way may change at any time, since the model keeps nothing of the other."""
    module = tiny("gpt_neox").module
    ids, parts = tokens_for(MIXED), torch.tensor(MIXED)
    results = []
    for name in (packed_attention.NAME, "sdpa", packed_attention.NAME, "sdpa"):
        module.config._attn_implementation = name
        results.append(readout(module, ids, parts))
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    for one, other in pairwise(results):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
