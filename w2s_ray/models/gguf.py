"""Unpacks a GGUF file once into a folder that transformers loads.

Transformers keeps a GGUF file's weights quantized, which can be neither trained nor run fast, and
unpacking takes 10 to 45 s. So each file is unpacked once, in fp32 (exact), with its tokenizer, into
a folder of the cache that is named by the file's digest; loading that takes under a second.
"""

import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from filelock import FileLock
from tokenizers import pre_tokenizers
from transformers import AutoModel, AutoTokenizer, GgufConfig

from w2s_ray.catalog.digests import cache_folder, digest
from w2s_ray.catalog.gguf_header import read_gguf_header


def unpacked(file: Path) -> Path:
    """The folder (safetensors, config, tokenizer) with the content of ``file``.

    It is complete or absent: written under another name and renamed. Processes that need the same
    file at the same time wait for the first to unpack it.
    """
    folder = _folder(file)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            draft = folder.with_name(f"draft-{uuid4().hex}")
            draft.mkdir()
            try:
                _unpack(file, draft)
                os.rename(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def is_unpacked(file: Path) -> bool:
    """Whether ``unpacked`` has been here."""
    return _folder(file).is_dir()


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer in ``file``, without unpacking the weights."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if read_gguf_header(file).metadata.get("tokenizer.ggml.pre") == "smollm":
        # Transformers does not support this pre-tokenizer: it would join blanks to a digit.
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    return tokenizer


def _folder(file: Path) -> Path:
    return cache_folder() / "unpacked" / digest(file)


def _unpack(file: Path, folder: Path) -> None:
    gguf_tokenizer(file).save_pretrained(folder)
    model = AutoModel.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.save_pretrained(folder)
