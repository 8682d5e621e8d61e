"""A backbone that is sharded while it is read has the numbers of one that is loaded whole."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.testing.shards import Shards
from tests.testing.tiny_models import ARCHITECTURES, tiny
from w2s_ray.errors import InputError
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.partitioned import load_partitioned
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.spec.schema import ModelSpec


def saved(architecture: str, folder: Path, *, whole: bool = False) -> Path:
    """A tiny model in several files, with an LM head around it if ``whole``."""
    module = tiny(architecture).module
    if whole:
        causal = AutoModelForCausalLM.from_config(module.config)
        causal.base_model.load_state_dict(module.state_dict())
        module = causal
    module.config._attn_implementation = "sdpa"
    module.save_pretrained(folder, max_shard_size="30KB")
    bytes_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("whole", [False, True], ids=["backbone", "with LM head"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_arrives_and_only_a_module_is_ever_whole(
    tmp_path: Path, architecture: str, whole: bool
) -> None:
    folder = saved(architecture, tmp_path, whole=whole)
    assert len(list(folder.glob("*.safetensors"))) > 1
    spec = ModelSpec(source=str(folder), num_layers=2)
    wanted = load_backbone(spec, "bf16", "cpu")
    with Shards() as shards:
        backbone = load_partitioned(spec, "bf16", shards, reads=True)
    modules = reversed(list(wanted.module.modules()))  # children before their parents
    parameters = [own for part in modules for own in part.parameters(recurse=False)]
    assert len(parameters) == len(shards.taken)
    for ours, theirs in zip(shards.taken, parameters, strict=True):
        assert torch.equal(ours, theirs)
    own = [sum(p.numel() for p in m.parameters(recurse=False)) for m in wanted.module.modules()]
    assert shards.most == max(own) < sum(own) / 2
    assert backbone.shares_prompts == wanted.shares_prompts
    assert (backbone.hidden_size, backbone.layers) == (wanted.hidden_size, 2)
    for ours, theirs in zip(backbone.module.buffers(), wanted.module.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_only_the_reader_needs_the_files(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    spec = ModelSpec(source=str(folder))
    with Shards() as shards:
        load_partitioned(spec, "fp32", shards, reads=False)
    with pytest.raises(InputError, match="weights are missing in its safetensors files"):
        load_partitioned(spec, "fp32", shards, reads=True)
