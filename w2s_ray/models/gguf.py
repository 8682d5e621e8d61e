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
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import torch
from filelock import FileLock
from tokenizers import pre_tokenizers
from transformers import AutoModel, AutoTokenizer, GgufConfig

from w2s_ray.catalog.digests import cache_folder, digest
from w2s_ray.catalog.gguf_header import read_gguf_header
from w2s_ray.errors import InputError

_CONTENT = "unpacked.json"  # name of each file -> SHA-256
_RECIPE = "2"  # raised when ``_unpack`` changes


def unpacked(file: Path) -> Path:
    """The folder (safetensors, config, tokenizer) with the content of ``file``.

    It is complete or absent: written under another name and renamed. Processes that need the same
    file at the same time wait for the first to unpack it.

    Raises:
        InputError: weights are missing, or the file was changed meanwhile.
    """
    content = digest(file)
    name = f"{content}-{_versions()}"
    folder = cache_folder() / "unpacked" / name
    if _is_intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{name}.lock")):
        if not _is_intact(folder):
            draft = folder.with_name(f"draft-{uuid4().hex}")
            draft.mkdir()
            try:
                _unpack(file, draft)
                if digest(file) != content:
                    raise InputError(f"model {file}: the file was changed while it was unpacked")
                (draft / _CONTENT).write_text(json.dumps(_digests(draft), indent=2) + "\n")
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def _is_intact(folder: Path) -> bool:
    """Whether a folder holds what was unpacked into it."""
    with suppress(OSError, ValueError):
        return bool(json.loads((folder / _CONTENT).read_text()) == _digests(folder))
    return False


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.name != _CONTENT)
    return {file.name: digest(file) for file in files}


def _versions() -> str:
    """What else decides how a file is unpacked, as part of a folder's name."""
    libraries = (version(name) for name in ("transformers", "tokenizers", "gguf"))
    return sha256(" ".join([_RECIPE, *libraries]).encode()).hexdigest()[:8]


def _unpack(file: Path, folder: Path) -> None:
    with TemporaryDirectory(prefix="w2s-gguf-") as alone:
        link = Path(alone) / "model.gguf"
        link.symlink_to(file.resolve())
        tokenizer = AutoTokenizer.from_pretrained(
            alone, gguf_file=link.name, trust_remote_code=False
        )
        model, report = AutoModel.from_pretrained(
            alone,
            gguf_file=link.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"model {file}: {len(missing)} weights are missing, the first is {missing[0]}"
        )
    if read_gguf_header(file).metadata.get("tokenizer.ggml.pre") == "smollm":
        # Transformers does not support this pre-tokenizer: it would join blanks to a digit.
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
