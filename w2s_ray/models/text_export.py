"""Writes a trained language model as a folder that ``AutoModelForCausalLM`` loads.

Adapters are merged in fp32 and the sums rounded to the precision of the training. A model that was
trained whole has the weights that it answered with in its study.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from w2s_ray.errors import InputError
from w2s_ray.models.accelerator import without_gpu
from w2s_ray.models.causal import CausalModel
from w2s_ray.models.export import without_code, without_code_of_config


def write_language_model(model: CausalModel, folder: Path) -> None:
    """Writes weights, config.json, generation_config.json and tokenizer into ``folder``.

    Args:
        model: with its trained state; its adapters are merged, so it cannot be trained on.
        folder: is created.

    Raises:
        InputError: an adapter of embeddings that are the head too, which one matrix cannot hold.
        OSError: the disk is full, or cannot be written.
    """
    module = model.module
    merge_adapters(module)
    module.config = without_code_of_config(module.config)
    module.config.pad_token_id = model.tokenizer.pad_token_id
    module.config.eos_token_id = list(model.end_ids)
    generation = deepcopy(module.generation_config)
    assert generation is not None
    generation.eos_token_id, generation.pad_token_id = (
        list(model.end_ids),
        model.tokenizer.pad_token_id,
    )
    module.generation_config = generation
    folder.mkdir(parents=True, exist_ok=True)
    if not torch.cuda.is_available():
        without_gpu()  # save_pretrained imports DeepSpeed
    module.save_pretrained(folder)
    mode = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):  # which safetensors writes for its owner alone
        file.chmod(mode)
    without_code(model.tokenizer).save_pretrained(folder)


@torch.no_grad()
def merge_adapters(module: PreTrainedModel) -> None:
    """Adds each adapter's product to its weight, and puts the plain layer back in its place.

    Raises:
        InputError: as ``write_language_model``.
    """
    from peft.tuners.lora import LoraLayer

    whole: Any = module
    head = whole.get_output_embeddings()
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, LoraLayer):
            continue
        plain: Any = layer.get_base_layer()
        if head is not None and plain is not head and plain.weight is head.weight:
            raise InputError(
                f"{name} has an adapter, and its weight is that of the head too, which has none: "
                "expected target_modules without tied embeddings"
            )
        adapter: Any = layer
        delta = adapter.get_delta_weight("default")
        plain.weight.copy_(plain.weight.float() + delta.float())
        module.set_submodule(name, plain)
