"""A language model that is sharded while it is read is the one that is loaded whole."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.testing.shards import Shards
from tests.testing.tiny_models import ARCHITECTURES, line, saved
from w2s_ray.models.answer_scorer import AnswerScorer
from w2s_ray.models.causal import load_causal
from w2s_ray.models.partitioned_causal import load_partitioned_causal

ROWS = [[[5, 6, 7, 8], [1, 2, 3], [9, 4]], [[11], [12], [13, 14, 15, 16]], [[21], [22], [22]]]


def whole(module: nn.Module) -> None:
    """Shards nothing, as if there were one rank."""


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_scores_answers_as_the_model_that_is_loaded_whole(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    spec = saved(tmp_path, architecture, tied=tied)
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


def test_only_a_module_is_ever_whole_and_only_the_reader_needs_the_files(tmp_path: Path) -> None:
    spec = saved(tmp_path)
    parameters = list(load_causal(spec, "bf16", device="cpu").module.parameters())
    with Shards() as shards:
        causal, _ = load_partitioned_causal(spec, "bf16", shards, reads=True)
    assert len(shards.taken) == len(parameters)
    for ours, theirs in zip(shards.taken, parameters, strict=True):
        assert torch.equal(ours, theirs)
    assert shards.most < sum(of.numel() for of in parameters) / 2
    assert {of.numel() for of in causal.module.parameters()} == {0}
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with Shards() as shards:
        load_partitioned_causal(spec, "bf16", shards, reads=False)
    assert [of.shape for of in shards.taken] == [of.shape for of in parameters]


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
