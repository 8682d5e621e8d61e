"""Bad model folders and files: a good one, changed by a function, and a fragment of its refusal.

The good ones are ``tiny_folder`` (Qwen2, safetensors) and ``tests.testing.gguf_file`` (Llama).
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from tests.testing.gguf_file import write_gguf
from tests.testing.tiny_models import tiny

MEBIBYTE = 1 << 20
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
UP = "layers.1.mlp.up_proj.weight"

Change = Callable[[Path], object]


class BadModel(NamedTuple):
    """A bad model.

    Attributes:
        name: of the case.
        change: makes the good folder, or GGUF file, at a path a bad one.
        fragment: of the line that refuses it.
        is_gguf: whether a file is changed, not a folder.
    """

    name: str
    change: Change
    fragment: str
    is_gguf: bool = False


def tiny_folder(folder: Path) -> None:
    """Writes a good model."""
    backbone = tiny("qwen2")
    backbone.module.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)


# Changes of a folder.


def written(name: str, content: bytes | str) -> Change:
    """Another content of a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def replaced(name: str, make: Callable[[Path], object]) -> Change:
    """Something else in a file's place."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def sparse(name: str, size: int) -> Change:
    """A file of that size, of zeros that need no disk."""

    def change(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.truncate(size)

    return change


def without(name: str) -> Change:
    """A file removed."""
    return lambda folder: (folder / name).unlink()


def config(_file: str = "config.json", **fields: Any) -> Change:
    """Fields of a configuration."""

    def change(folder: Path) -> None:
        content = json.loads((folder / _file).read_text())
        (folder / _file).write_text(json.dumps({**content, **fields}))

    return change


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Change:
    """The content of ``tokenizer.json``, changed in place."""

    def write(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return write


def safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int = -1) -> Change:
    """A file of weights from a header and data; ``length`` is what it says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length < 0 else length
    return written(WEIGHTS, struct.pack("<Q", size) + text + data)


def tensor(dtype: Any = "F32", shape: Any = (2,), places: Any = (0, 8)) -> dict[str, Any]:
    """An entry of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": places}


def index(content: Any) -> Change:
    """An index in place of the file of weights."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / INDEX).write_text(json.dumps(content))

    return change


def fifo_in_index(folder: Path) -> None:
    """An index that names a FIFO."""
    index({"weight_map": {"a": "b.safetensors"}})(folder)
    os.mkfifo(folder / "b.safetensors")


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    """Other weights."""

    def write(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})

    return write


def as_dtype(dtype: torch.dtype, part: str = "") -> Change:
    """Weights whose names contain ``part`` in another type."""
    return weights(
        lambda given: {n: w.to(dtype) if part in n else w for n, w in given.items()},
    )


def pickled(content: bytes) -> Change:
    """Pickled tensors in place of the others."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / PICKLED).write_bytes(content)

    return change


# Changes of a GGUF file, which has 24 bytes before its metadata.


def number_at(place: int, code: str, value: int) -> Change:
    """Another number in a file."""

    def change(file: Path) -> None:
        data = bytearray(file.read_bytes())
        struct.pack_into("<" + code, data, place, value)
        file.write_bytes(data)

    return change


def fields(*pairs: tuple[str, bytes], tensors: bytes = b"", count: int = 0) -> Change:
    """A file of these keys, each with its type and value as bytes, and a table of tensors."""
    body = b"".join(gguf_text(key) + value for key, value in pairs)
    header = struct.pack("<4sIQQ", b"GGUF", 3, count, len(pairs))
    return lambda file: file.write_bytes(header + body + tensors + bytes(64))


def gguf_text(text: str) -> bytes:
    """A text without its type."""
    return struct.pack("<Q", len(text)) + text.encode()


def texts(text: str) -> bytes:
    """A text with its type."""
    return struct.pack("<I", 8) + gguf_text(text)


def whole(number: int) -> bytes:
    """A number of 32 bits with its type."""
    return struct.pack("<II", 4, number)


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    """A list with its type."""
    return struct.pack("<IIQ", 9, kind, count) + content


def gguf_tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """An entry of the table of tensors."""
    ranks = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return gguf_text(name) + ranks + struct.pack("<IQ", kind, offset)


def stretched(file: Path) -> None:
    """Many fields of no length in a file that takes no disk."""
    file.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 40))
    os.truncate(file, 1 << 30)


def cut(size: int) -> Change:
    """The first bytes of a file."""
    return lambda file: file.write_bytes(file.read_bytes()[:size])


def remade(**how: Any) -> Change:
    """The good file written in another way."""
    return lambda file: write_gguf(file, **how)


def fifo(file: Path) -> None:
    """A FIFO in the file's place."""
    file.unlink()
    os.mkfifo(file)
