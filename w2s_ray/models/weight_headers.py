"""Whether stored weights make the model that its configuration describes, from their headers alone.

Names, dtypes and shapes are read from the files, without values, and handed to transformers' own
loader on torch's meta device. So what it would rename, merge, miss or find of another shape is
exactly what loading would. Integers are no weights: a quantised checkpoint lacks its matrices.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from w2s_ray.catalog.gguf_header import GgufHeader
from w2s_ray.errors import InputError
from w2s_ray.foreign.opening import check_regular
from w2s_ray.foreign.safetensors_header import read_safetensors_header
from w2s_ray.models.gguf import names_remembered

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def check_headers(source: str, files: list[Path], module: PreTrainedModel) -> None:
    """Refuses weights that lack a parameter or give it another shape.

    Args:
        source: the model's name in messages.
        files: all files of its weights, safetensors or pickled tensors.
        module: the model, on any device.

    Raises:
        InputError: the first weight at fault, or a file that cannot be read.
    """
    stored = dict(tensor for file in files for tensor in _tensors(file))
    weights = {name: one for name, one in stored.items() if isinstance(one, Tensor)}
    others = {name: dtype for name, dtype in stored.items() if isinstance(dtype, str)}
    loader: Any = type(module)
    try:
        _, report = loader.from_pretrained(
            None,
            config=module.config,
            state_dict=weights,
            device_map="meta",
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except RuntimeError as error:  # as of a mixture that lacks one part of an expert
        raise InputError(
            f"model {source}: weights that are stored in parts cannot be merged: a part is missing "
            "or of another shape"
        ) from error
    order = {name: position for position, name in enumerate(module.state_dict())}
    missing = sorted(report["missing_keys"], key=lambda name: order.get(name, len(order)))
    if missing:
        layer = missing[0].rpartition(".")[0]
        for name in (name for name in others if f"{layer}." in name):
            raise InputError(
                f"model {source}: weight {name} is stored as {others[name]}, expected F32, F16 or "
                "BF16: quantised weights cannot be trained"
            )
        raise InputError(
            f"model {source}: {len(missing)} weights are missing, the first is {missing[0]}"
        )
    mismatched = report["mismatched_keys"]
    for name, found, expected in sorted(mismatched, key=lambda one: order.get(one[0], len(order))):
        raise InputError(
            f"model {source}: weight {name} is {tuple(found)}, expected {tuple(expected)} by its "
            "config.json"
        )


def check_gguf_header(source: str, header: GgufHeader, module: PreTrainedModel) -> None:
    """Refuses a GGUF file that lacks a parameter or a vocabulary, or cannot be unpacked.

    Raises:
        InputError: the first weight at fault.
    """
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    architecture = str(header.metadata["general.architecture"])
    processors: Mapping[str, Any] = TENSOR_PROCESSORS
    processor = processors.get(architecture, TensorProcessor)(config={})
    with names_remembered():
        names: Mapping[str, str] = get_gguf_hf_weights_map(module, processor)
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    missing = sorted(
        name for name, own in names.items() if own in sizes and name not in header.tensors
    )
    if missing:
        raise InputError(
            f"model {source}: {len(missing)} weights are missing, the first is {missing[0]}"
        )
    for name, own in names.items():
        shape = header.tensors.get(name, ())
        if own in sizes and int(np.prod(shape)) != sizes[own]:
            raise InputError(
                f"model {source}: weight {name} is {shape}, expected {sizes[own]} values by the "
                "sizes in its header"
            )
    _check_kinds(source, header)
    _check_gguf_tokenizer(source, header)
    ids = int(header.metadata["tokenizer.ggml.tokens"])
    rows = int(module.config.vocab_size)
    if ids > rows:
        raise InputError(
            f"tokenizer {source}: ids up to {ids - 1}, expected less than {rows}, the rows of the "
            "model's embedding"
        )


def _check_gguf_tokenizer(source: str, header: GgufHeader) -> None:
    """Refuses a file whose tokenizer is missing or of other types than the format says."""
    kind = header.metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str):
        raise InputError(
            f"model {source}: expected tokenizer.ggml.model in its header: a tokenizer"
        )
    if "tokenizer.ggml.tokens" not in header.lists:
        raise InputError(
            f"model {source}: expected tokenizer.ggml.tokens in its header: a tokenizer"
        )


def _tensors(file: Path) -> Iterator[tuple[str, Tensor | str]]:
    """Names of the tensors in a file, each with a tensor without values; of integers, the dtype.

    Pickles are read by torch's restricted reader, which makes tensors and plain values only.
    """
    if file.suffix == ".safetensors":
        try:
            header = read_safetensors_header(file)
            with safe_open(file, framework="pt"):  # as the library will
                pass
        except (OSError, SafetensorError) as error:
            raise InputError(f"model {file}: cannot be read: {_first_line(error)}") from error
        for name, stored in header.items():
            dtype = _DTYPES.get(stored.dtype)
            yield (
                name,
                torch.empty(stored.shape, dtype=dtype, device="meta") if dtype else stored.dtype,
            )
        return
    try:
        check_regular(file)
        pickled = torch.load(
            file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises all kinds
        raise InputError(
            f"model {file}: cannot be read as plain tensors: {_first_line(error)}"
        ) from error
    for name, tensor in pickled.items() if isinstance(pickled, dict) else ():
        if isinstance(tensor, Tensor):
            yield name, tensor if tensor.dtype in _DTYPES.values() else str(tensor.dtype)


def _check_kinds(source: str, header: GgufHeader) -> None:
    """Refuses a type of block that the ``gguf`` package cannot unpack."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    for name, kind in {kind: (name, kind) for name, kind in header.kinds.items()}.values():
        stored = GGMLQuantizationType(kind)
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[stored][1]), np.uint8), stored)
        except NotImplementedError as error:
            raise InputError(
                f"model {source}: weight {name} is stored as {stored.name}, which cannot be "
                "unpacked"
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
