"""A backbone that is sharded while it is read has the numbers of one that is loaded whole."""

import gc
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

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


class Shards:
    """Takes parameters away, as ZeRO-3 does, and remembers them and how many were there at once.

    Used as a context, in which the collector, asked for all objects, names the new ones alone.
    """

    def __init__(self) -> None:
        self.taken: list[Tensor] = []
        self.most = 0

    def __enter__(self) -> Self:
        gc.freeze()
        return self

    def __exit__(self, *error: object) -> None:
        gc.unfreeze()

    def __call__(self, module: nn.Module) -> None:
        self.most = max(self.most, self.live())
        for parameter in module.parameters(recurse=False):
            self.taken.append(parameter.data.clone())
            parameter.data = parameter.data.new_empty(0)

    @staticmethod
    def live() -> int:
        """Elements of all new parameters on the CPU."""
        found = [o for o in gc.get_objects() if type(o) is nn.Parameter]
        return sum(p.numel() for p in found if p.device.type == "cpu")


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
    parameters = list(wanted.module.parameters())
    assert len(parameters) == len(shards.taken)
    # named_modules goes by depth, parameters() with it: the same order.
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
