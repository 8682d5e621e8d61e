"""Which files of a model are read, and what a folder must not contain.

Libraries that load a folder look for more than its weights: adapters that change them, other
configurations, Python code. A loader is therefore given exactly the files of ``readable_files``
(``models.folders``), and a folder in which others would matter is refused. No code is ever run.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from w2s_ray.catalog.digests import WEIGHTS, WEIGHTS_INDEX, combined
from w2s_ray.errors import InputError
from w2s_ray.foreign.json_file import read_json_object
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.foreign.opening import check_regular, open_regular
from w2s_ray.foreign.safetensors_header import read_safetensors_header

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
_LIMIT_OF = {
    **dict.fromkeys((CONFIG, ADAPTER_CONFIG), "config.bytes"),
    **dict.fromkeys(TOKENIZER_FILES, "tokenizer.bytes"),
    CHAT_TEMPLATE: "template.characters",  # of a byte at least
    **dict.fromkeys((index for _, index in WEIGHT_FORMATS), "index.bytes"),
    **dict.fromkeys((whole for whole, _ in WEIGHT_FORMATS), ""),
}
"""The files that are looked for in a folder, each with the limit on its size."""

_DTYPES = frozenset({"auto", "float64", "float32", "float16", "bfloat16", "half", "float"})
"""Values of ``dtype`` in a configuration under which weights are no integers."""

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
    _check_regular_files(folder, place)
    if (folder / ADAPTER_CONFIG).is_file():
        raise InputError(
            f"{place}: {ADAPTER_CONFIG}: the folder holds an adapter, expected a whole model; "
            "merge the adapter into its model first (merge_and_unload of peft), or remove its "
            "files from a copy of the folder"
        )
    if not (folder / CONFIG).is_file():
        raise InputError(f"{place}: expected a {CONFIG} in the folder, there is none")
    config = _checked_json(folder / CONFIG, place, tuple(_OTHER_FILES))
    _refuse_quantised(config, place)
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
    _check_regular_files(folder, place)
    _check_tokenizer_files(folder, place)


def check_content(file: Path) -> None:
    """Refuses a pointer of Git LFS, and a safetensors file that is damaged or cut off."""
    with open_regular(file) as opened:
        if opened.read(len(_GIT_LFS)) == _GIT_LFS:
            raise InputError(
                f"model {file}: a pointer of Git LFS, not the file itself: run `git lfs pull` in "
                "its folder"
            )
    if file.suffix == ".safetensors":
        read_safetensors_header(file)


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
    weight_map = read_json_object(index, "index.bytes", f"model {index}").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"model {index}: expected a weight_map in it")
    for weight, name in weight_map.items():
        if not isinstance(name, str):
            raise InputError(
                f"model {index}: {weight}: given {name!r}, expected the name of a file"
            )
    names = sorted(set(weight_map.values()))
    for name in names:
        if not name or name == ".." or name != PurePath(name).name or "\0" in name:
            raise InputError(f"model {index}: {name}: expected the name of a file in the folder")
    return [index.parent / name for name in names]


def _check_tokenizer_files(folder: Path, place: str) -> None:
    for name in (CONFIG, TOKENIZER_CONFIG):
        if (folder / name).is_file():
            _checked_json(folder / name, place, ("configuration_files", "fast_tokenizer_files"))


def _checked_json(file: Path, place: str, refused: tuple[str, ...]) -> dict[str, Any]:
    """The content of a configuration that names, at any depth, neither code nor other files."""
    place = f"{place}: {file.name}"
    content = read_json_object(file, _LIMIT_OF[file.name], place)
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


def _check_regular_files(folder: Path, place: str) -> None:
    """Refuses a file, among those that are read, that is a link to nothing, a FIFO or too large."""
    for name, bound in _LIMIT_OF.items():
        file = folder / name
        if not os.path.lexists(file):
            continue
        try:
            size = check_regular(file)
        except InputError as error:
            raise InputError(f"{place}: {str(error).removeprefix(f'{folder}/')}") from error
        except OSError as error:
            raise InputError(f"{place}: {name}: cannot be read: {error.strerror}") from error
        if bound and size > limit(bound):
            raise InputError(f"{place}: {name}: {exceeded(bound, size)}")


def _refuse_quantised(config: dict[str, Any], place: str) -> None:
    """Refuses a configuration that speaks of quantisation in any way, known or not.

    A method that transformers does not know it skips with a warning, and takes integers for
    weights.
    """
    expected = (
        "quantised weights cannot be trained, expected weights in bf16, fp16 or fp32, or a GGUF "
        "file, which is unpacked"
    )
    for name, value in _fields(config):
        is_quantised = name == "compression_config" or "quant" in name.lower()
        if is_quantised and (bool(value) or isinstance(value, dict)):
            method = value.get("quant_method") if isinstance(value, dict) else None
            raise InputError(
                f"{place}: {CONFIG}: {name}{f' ({method})' if method else ''}: {expected}"
            )
        is_dtype = name in ("dtype", "torch_dtype") and isinstance(value, str)
        if is_dtype and value.removeprefix("torch.") not in _DTYPES:
            raise InputError(f"{place}: {CONFIG}: {name}: given {value!r}: {expected}")
        if isinstance(value, float) and value != value:
            raise InputError(f"{place}: {CONFIG}: {name}: given NaN, expected a number")


def _fields(content: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of all fields, at any depth."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _values(content: Any, field: str) -> Iterator[Any]:
    """The values of a field, at any depth, that say something."""
    return (value for name, value in _fields(content) if name == field and value)


def _first_text(value: Any) -> str:
    """The first text in a value, for a message."""
    while isinstance(value, dict | list):
        parts = list(value.values()) if isinstance(value, dict) else value
        value = next((part for part in parts if part), "nothing")
    return str(value)
