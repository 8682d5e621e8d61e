"""A language model that is sharded while it is read is the one that is loaded whole."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.testing.families import FAMILIES, save_family, with_end
from tests.testing.shards import Shards
from tests.testing.tiny_models import line, saved
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import load_causal
from w2s_ray.models.partitioned_causal import load_partitioned_causal
from w2s_ray.spec.schema import ModelSpec

CONVERTED = ("Qwen3 MoE", "Mixtral")  # one expert at a time in their files: refused
ROWS = [[[5, 6, 7, 8], [1, 2, 3], [9, 4]], [[11], [12], [13, 14, 15, 16]], [[21], [22], [22]]]


def whole(module: nn.Module) -> None:
    """Shards nothing, as if there were one rank; below a module all must have their values."""
    assert not any(parameter.is_meta for parameter in module.parameters())


def assert_loads_as_the_whole(spec: ModelSpec) -> None:
    causal, scorer = load_partitioned_causal(spec, "fp32", whole, reads=True)
    other = load_causal(spec, "fp32", device="cpu")
    wanted = AnswerScorer(other.module)
    assert causal.end_ids == other.end_ids
    assert scorer.shares_prompts == wanted.shares_prompts
    ours, theirs = (dict(of.named_parameters()) for of in (scorer, wanted))
    assert ours.keys() == theirs.keys()  # a head that is the embedding has no name of its own
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        assert torch.equal(scorer(*line(*ROWS)), wanted(*line(*ROWS)))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in CONVERTED])
def test_it_scores_answers_as_the_model_that_is_loaded_whole(tmp_path: Path, name: str) -> None:
    assert_loads_as_the_whole(with_end(save_family(name, tmp_path), 0))


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_may_be_the_embedding_and_blocks_may_be_left_out(tmp_path: Path, tied: bool) -> None:
    spec = saved(tmp_path, tied=tied)
    assert_loads_as_the_whole(spec)
    assert_loads_as_the_whole(spec.model_copy(update={"num_layers": 1}))


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    spec = saved(tmp_path)
    (file, *_) = (f for f in tmp_path.glob("*.safetensors") if "lm_head" not in load_file(f))
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(FloatingPointError, match=f"the weights {name} are not finite"):
        load_partitioned_causal(spec, "fp32", whole, reads=True)


def test_only_a_module_is_ever_whole_and_only_the_reader_needs_the_files(tmp_path: Path) -> None:
    spec = saved(tmp_path)
    module = load_causal(spec, "bf16", device="cpu").module
    with Shards() as shards:
        causal, _ = load_partitioned_causal(spec, "bf16", shards, reads=True)
    own = [sum(p.numel() for p in m.parameters(recurse=False)) for m in module.modules()]
    assert shards.most == max(own)
    assert sorted(of.numel() for of in shards.taken) == sorted(
        p.numel() for p in module.parameters()
    )
    assert {of.numel() for of in causal.module.parameters()} == {0}
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with Shards() as shards:
        load_partitioned_causal(spec, "bf16", shards, reads=False)
    assert len(shards.taken) == len(list(module.parameters()))


def test_it_goes_on_from_the_weights_of_an_earlier_training(tmp_path: Path) -> None:
    spec = saved(tmp_path)
    state = {
        name: torch.randn(parameter.shape)
        for name, parameter in load_causal(spec, "fp32", device="cpu").module.named_parameters()
    }
    causal, _ = load_partitioned_causal(spec, "fp32", whole, reads=True, state=lambda: state)
    assert all(torch.equal(of, state[name]) for name, of in causal.module.named_parameters())
    state.popitem()
    with pytest.raises(ValueError, match="state of another model: 1 parameters differ"):
        load_partitioned_causal(spec, "fp32", whole, reads=True, state=lambda: state)
