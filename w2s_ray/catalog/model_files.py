"""Which files of a model are read, and what a folder must not contain.

Libraries that load a folder look for more than its weights: adapters that change them, other
configurations, Python code. A loader is therefore given exactly the files of ``readable_files``
(``models.folders``), and a folder in which others would matter is refused. No code is ever run.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from w2s_ray.catalog.digests import WEIGHTS, WEIGHTS_INDEX, combined
from w2s_ray.errors import InputError

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
ADAPTER_CONFIG = "adapter_config.json"
PICKLED_WEIGHTS = "pytorch_model.bin"
WEIGHT_FORMATS = (  # one file or the index of several, in the order in which transformers looks
    (WEIGHTS, WEIGHTS_INDEX),
    (PICKLED_WEIGHTS, f"{PICKLED_WEIGHTS}.index.json"),
)
TOKENIZER_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
CHAT_TEMPLATE = "chat_template.jinja"  # decides no number unless rows are rendered with it
_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_OTHER_FILES = {  # fields with which a configuration names files to be read instead of the usual
    "configuration_files": CONFIG,
    "fast_tokenizer_files": "tokenizer.json",
    "transformers_weights": WEIGHTS,  # of no concern to a tokenizer
}


def folder_identity(folder: Path) -> dict[str, Any]:
    """What identifies a model folder: configuration, weights and tokenizer, but not a README.

    Raises:
        InputError: no ``config.json``, no weights, weights that are cut off, or a model that other
            files would change.
    """
    check_folder(folder)
    files = [folder / CONFIG, *_hashed_weights(folder), *tokenizer_files(folder)]
    for file in files:
        check_content(file)
    return {"folder": combined(files)}


def tokenizer_folder_identity(folder: Path) -> dict[str, Any]:
    """What identifies the tokenizer in a folder: its files, and the model type in ``config.json``.

    Raises:
        InputError: the folder has no tokenizer files, or one that code would make.
    """
    files = tokenizer_files(folder)
    if not files:
        raise InputError(f"tokenizer {folder}: expected a tokenizer.json in the folder")
    check_tokenizer(folder)
    if (folder / CONFIG).is_file():
        files.append(folder / CONFIG)
    for file in files:
        check_content(file)
    return {"folder": combined(files)}


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder, in the order in which they are hashed."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads weights from, of which those in an index need not exist.

    Returns:
        Of the safetensors format if there are such, whole before sharded; else pickled tensors; []
        where there are neither.

    Raises:
        InputError: the index has no ``weight_map``, or names files outside the folder.
    """
    index = weights_index(folder)
    if index is not None:
        return _indexed(index)
    return next(([folder / whole] for whole, _ in WEIGHT_FORMATS if (folder / whole).is_file()), [])


def weights_index(folder: Path) -> Path | None:
    """The index that names the files of weights, where transformers reads one."""
    for whole, index in WEIGHT_FORMATS:
        if (folder / whole).is_file():
            return None
        if (folder / index).is_file():
            return folder / index
    return None


def safetensors_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would read; [] if there are none."""
    return [file for file in weight_files(folder) if file.suffix == ".safetensors"]


def readable_files(folder: Path, *, weights: bool) -> list[Path]:
    """The files that a loader may open: of a model, or of a tokenizer alone.

    All of them are hashed, but for an index, which decides only which files are, and the chat
    template.
    """
    names = [folder / CONFIG, *tokenizer_files(folder), folder / CHAT_TEMPLATE]
    if weights:
        index = weights_index(folder)
        names += [*weight_files(folder), *([index] if index else [])]
    return [file for file in names if file.is_file()]


def check_folder(folder: Path, source: str | None = None) -> dict[str, Any]:
    """The content of ``config.json``; refuses a folder that its hashed files do not describe.

    Args:
        source: the model's name in messages; None: the folder.

    Raises:
        InputError: no configuration, an adapter, code, quantised weights, or names of other files.
    """
    place = f"model {source or folder}"
    if (folder / ADAPTER_CONFIG).is_file():
        raise InputError(
            f"{place}: {ADAPTER_CONFIG}: the folder holds an adapter, expected a whole model; "
            "merge the adapter into its model first (merge_and_unload of peft), or remove its "
            "files from a copy of the folder"
        )
    if not (folder / CONFIG).is_file():
        raise InputError(f"{place}: expected a {CONFIG} in the folder, there is none")
    config = _checked_json(folder / CONFIG, place, tuple(_OTHER_FILES))
    for field in ("quantization_config", "compression_config"):
        for value in _values(config, field):
            method = value.get("quant_method") if isinstance(value, dict) else None
            raise InputError(
                f"{place}: {CONFIG}: {field}{f' ({method})' if method else ''}: quantised weights "
                "cannot be trained, expected weights in bf16, fp16 or fp32, or a GGUF file, which "
                "is unpacked"
            )
    _check_tokenizer_files(folder, place)
    return config


def check_tokenizer(folder: Path, source: str | None = None) -> None:
    """Refuses a folder whose tokenizer its hashed files do not describe.

    Args:
        source: the tokenizer's name in messages; None: the folder.

    Raises:
        InputError: code, or names of other files.
    """
    place = f"tokenizer {source or folder}"
    _check_tokenizer_files(folder, place)


def check_content(file: Path) -> None:
    """Refuses a pointer of Git LFS, and a safetensors file that is cut off."""
    with file.open("rb") as opened:
        if opened.read(len(_GIT_LFS)) == _GIT_LFS:
            raise InputError(
                f"model {file}: a pointer of Git LFS, not the file itself: run `git lfs pull` in "
                "its folder"
            )
    if file.suffix == ".safetensors":
        _check_length(file)


def _hashed_weights(folder: Path) -> list[Path]:
    """The files of weights that identify a folder: those that are read, at least.

    Where no index says which files are read, all of their format are hashed.
    """
    read = weight_files(folder)
    if not read:
        others = sorted(file.name for file in folder.glob("*.safetensors"))
        instead = f", only {', '.join(others)}" if others else ""
        raise InputError(
            f"model {folder}: expected {WEIGHTS} or {WEIGHTS_INDEX} in the folder, there is none"
            f"{instead}"
        )
    for file in read:
        if not file.is_file():
            index = weights_index(folder)
            named = f", {index.name} names it" if index else ""
            raise InputError(f"model {folder}: {file.name} is missing{named}")
    if read[0].name == WEIGHTS:
        return sorted(folder.glob("*.safetensors"))
    if read[0].suffix == ".safetensors":
        return read
    return sorted({*read, *folder.glob("pytorch_model*.bin")})


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model {index}: expected a weight_map in it") from error
    for name in names:
        if not isinstance(name, str) or not name or name != PurePath(name).name:
            raise InputError(f"model {index}: {name}: expected the name of a file in the folder")
    return [index.parent / name for name in names]


def _check_tokenizer_files(folder: Path, place: str) -> None:
    for name in (CONFIG, TOKENIZER_CONFIG):
        if (folder / name).is_file():
            _checked_json(folder / name, place, ("configuration_files", "fast_tokenizer_files"))


def _checked_json(file: Path, place: str, refused: tuple[str, ...]) -> dict[str, Any]:
    """The content of a configuration that names, at any depth, neither code nor other files."""
    place = f"{place}: {file.name}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{place}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{place}: expected a JSON object")
    for value in _values(content, "auto_map"):
        raise InputError(
            f"{place}: auto_map names Python code ({_first_text(value)}), which is never run; "
            "expected a model that transformers' own classes read (if they do, remove auto_map "
            "from a copy of the folder)"
        )
    for field in refused:
        for value in _values(content, field):
            raise InputError(
                f"{place}: {field} names other files ({_first_text(value)}), which are not read; "
                f"expected the content in {_OTHER_FILES[field]}"
            )
    return content


def _values(content: Any, field: str) -> Iterator[Any]:
    """The values of a field, at any depth, that say something."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.get(field):
                yield part[field]
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _first_text(value: Any) -> str:
    """The first text in a value, for a message."""
    while isinstance(value, dict | list):
        parts = list(value.values()) if isinstance(value, dict) else value
        value = next((part for part in parts if part), "nothing")
    return str(value)


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
