"""Unpacks a GGUF file once into a folder that transformers loads.

Transformers keeps a GGUF file's weights quantized, which can be neither trained nor run fast, and
unpacking takes 10 to 45 s. So each file is unpacked once, in fp32 (exact), with its tokenizer, into
a folder of the cache that is named by the file's digest and the versions of the libraries; loading
that takes under a second.

Only the file is read, never its neighbours. A list of what was unpacked is written last: a folder
that it does not describe is unpacked again.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from filelock import FileLock
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from w2s_ray.catalog.digests import cache_folder, digest
from w2s_ray.catalog.gguf_header import read_gguf_header
from w2s_ray.errors import InputError

_CONTENT = "unpacked.json"  # name of each file -> SHA-256
_RECIPE = "3"  # raised when ``_unpack`` changes


def unpacked(file: Path) -> Path:
    """The folder (safetensors, config, tokenizer) with the content of ``file``.

    It is complete or absent: written under another name and renamed. Processes that need the same
    file at the same time wait for the first to unpack it.

    Raises:
        InputError: weights are missing, or the file was changed meanwhile.
    """
    folder = _folder(file)
    if _is_intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not _is_intact(folder):
            draft = folder.with_name(f"draft-{uuid4().hex}")
            draft.mkdir()
            try:
                _unpack(file, draft)
                if _folder(file) != folder:
                    raise InputError(f"model {file}: the file was changed while it was unpacked")
                (draft / _CONTENT).write_text(json.dumps(_digests(draft), indent=2) + "\n")
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def is_unpacked(file: Path) -> bool:
    """Whether ``unpacked`` has been here, and nothing was changed since."""
    return _is_intact(_folder(file))


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer in ``file``, without unpacking the weights."""
    with _alone(file) as link:
        tokenizer = AutoTokenizer.from_pretrained(
            link.parent, gguf_file=link.name, trust_remote_code=False
        )
    if read_gguf_header(file).metadata.get("tokenizer.ggml.pre") == "smollm":
        # Transformers does not support this pre-tokenizer: it would join blanks to a digit.
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    return tokenizer


def _folder(file: Path) -> Path:
    """Where a file is unpacked: named by its content and by the libraries that unpack it."""
    versions = (version(name) for name in ("transformers", "tokenizers", "gguf"))
    made_by = sha256(" ".join([_RECIPE, *versions]).encode()).hexdigest()[:8]
    return cache_folder() / "unpacked" / f"{digest(file)}-{made_by}"


def _is_intact(folder: Path) -> bool:
    """Whether a folder holds what was unpacked into it."""
    with suppress(OSError, ValueError):
        return bool(json.loads((folder / _CONTENT).read_text()) == _digests(folder))
    return False


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.name != _CONTENT)
    return {file.name: digest(file) for file in files}


@contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """A link to the file in a folder of its own: loaders look at what lies beside it."""
    with TemporaryDirectory(prefix="w2s-gguf-") as folder:
        link = Path(folder) / "model.gguf"
        link.symlink_to(file.resolve())
        yield link


@contextmanager
def names_remembered() -> Iterator[None]:
    """Transformers makes the map of a format's names anew for each part of a model, and 400 of
    them take 6 s: within this context it is made once."""
    import gguf  # which other models need not have

    made = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = cache(made)
    try:
        yield
    finally:
        gguf.get_tensor_name_map = made


def _unpack(file: Path, folder: Path) -> None:
    gguf_tokenizer(file).save_pretrained(folder)
    with _alone(file) as link, names_remembered():
        loaded: Any = AutoModelForCausalLM.from_pretrained(  # with its head, for ``language_model``
            link.parent,
            gguf_file=link.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
        )
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"model {file}: {len(missing)} weights are missing, the first is {missing[0]}"
        )
    model.save_pretrained(folder)
