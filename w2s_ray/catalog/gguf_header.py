"""The header of a GGUF file: metadata and tensor table, without the weights.

The ``gguf`` package's reader takes two seconds for a vocabulary of 50,000 words, because it wraps
every word in an array. This reader keeps single values and only the lengths of arrays; the tensor
table gives exact parameter counts and shows whether the file is cut off.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3).
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

from w2s_ray.catalog.model_files import check_content
from w2s_ray.errors import InputError

_NUMBER_CODES = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and tensor table of a GGUF file.

    Attributes:
        metadata: key -> number or text; for an array, its length.
        tensors: name -> shape, the fastest dimension first, as stored.
        kinds: name -> number of the ggml type of its blocks.
    """

    metadata: Mapping[str, int | float | str]
    tensors: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, int]


def read_gguf_header(path: Path) -> GgufHeader:
    """Reads the header of ``path``.

    Raises:
        InputError: not a GGUF file of version 2 or 3, or shorter than its tensor table needs.
    """
    stat = path.stat()
    check_content(path)
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, size: int, changed: int) -> GgufHeader:
    """Reads a header once, though a plan asks for it several times: vocabularies make it long.

    Args:
        size, changed: bytes and time of change of the file, which make a rewritten file a new one.
    """
    if size < 24:
        raise InputError(f"model {path}: expected a GGUF file, this one has no header")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            return _Reader(view, path).header()
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise InputError(f"model {path}: the GGUF header is damaged or cut off") from error


class _Reader:
    """Reads the values of a GGUF file one after the other.

    Attributes:
        position: of the next byte to read.
    """

    def __init__(self, view: mmap.mmap, path: Path) -> None:
        self.view = view
        self.path = path
        self.position = 0

    def header(self) -> GgufHeader:
        """The whole header; the reader must be at the start of the file."""
        if self.view[:4] != b"GGUF":
            raise InputError(f"model {self.path}: expected a GGUF file, it does not start as one")
        self.position = 4
        version, tensor_count, metadata_count = self.numbers("IQQ")
        if version not in (2, 3):
            raise InputError(f"model {self.path}: GGUF version {version}, expected 2 or 3")
        metadata = {}
        for _ in range(metadata_count):
            key = self.text()
            (kind,) = self.numbers("I")
            metadata[key] = self.value(kind)
        if metadata.get("split.count", 1) != 1:
            raise InputError(f"model {self.path}: one of several GGUF parts, expected a whole file")
        tensors, kinds, end = {}, {}, 0
        for _ in range(tensor_count):
            name = self.text()
            (rank,) = self.numbers("I")
            tensors[name] = self.numbers(f"{rank}Q")
            kind, offset = self.numbers("IQ")
            kinds[name] = kind
            end = max(end, offset + _bytes(kind, prod(tensors[name])))
        alignment = int(metadata.get("general.alignment", _ALIGNMENT))
        needed = -(-self.position // alignment) * alignment + end
        if len(self.view) < needed:
            raise InputError(
                f"model {self.path}: the file is cut off: {len(self.view)} bytes, expected {needed}"
            )
        return GgufHeader(metadata, tensors, kinds)

    def numbers(self, codes: str) -> tuple[int, ...]:
        """Numbers of the types that ``struct`` gives these codes."""
        values = struct.unpack_from("<" + codes, self.view, self.position)
        self.position += struct.calcsize("<" + codes)
        return values

    def text(self) -> str:
        """A length and that many bytes of UTF-8."""
        (length,) = self.numbers("Q")
        start, self.position = self.position, self.position + length
        if self.position > len(self.view):
            raise struct.error("text beyond the end of the file")
        return self.view[start : self.position].decode()

    def value(self, kind: int) -> int | float | str:
        """A metadata value of the given type; of an array, the length."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.numbers(_NUMBER_CODES[kind])[0]
        kind, count = self.numbers("IQ")
        if kind == _STRING:
            unpack, view, position = struct.Struct("<Q").unpack_from, self.view, self.position
            for _ in range(count):
                position += 8 + unpack(view, position)[0]
            self.position = position
        else:
            self.position += count * struct.calcsize("<" + _NUMBER_CODES[kind])
        return count


def _bytes(kind: int, elements: int) -> int:
    """Size of ``elements`` values of the ggml type ``kind``."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except ValueError as error:
        raise KeyError(kind) from error
    return elements // block * size
