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
from w2s_ray.extras import require
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.foreign.opening import open_regular

_NUMBER_CODES = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
_LARGEST_ALIGNMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and tensor table of a GGUF file.

    Attributes:
        metadata: key -> number or text; for an array, its length.
        tensors: name -> shape, the fastest dimension first, as stored.
        kinds: name -> number of the ggml type of its blocks.
        lists: keys of ``metadata`` whose values are arrays.
    """

    metadata: Mapping[str, int | float | str]
    tensors: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, int]
    lists: frozenset[str] = frozenset()


def read_gguf_header(path: Path) -> GgufHeader:
    """Reads the header of ``path``.

    Raises:
        InputError: not a GGUF file of version 2 or 3, or shorter than its tensor table needs.
    """
    stat = path.stat()
    check_content(path)
    require("gguf", f"model {path}: given a GGUF file")
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, size: int, changed: int) -> GgufHeader:
    """Reads a header once, though a plan asks for it several times: vocabularies make it long.

    Args:
        size, changed: bytes and time of change of the file, which make a rewritten file a new one.
    """
    if size < 24:
        raise InputError(f"model {path}: expected a GGUF file, this one has no header")
    try:
        with (
            open_regular(path) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
        ):
            return _Reader(view, path).header()
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"model {path}: the GGUF header is damaged or cut off") from error
    except OSError as error:
        raise InputError(f"model {path}: cannot be read: {error.strerror or error}") from error


class _Reader:
    """Reads the values of a GGUF file one after the other.

    Attributes:
        position: of the next byte to read.
    """

    def __init__(self, view: mmap.mmap, path: Path) -> None:
        self.view = view
        self.path = path
        self.position = 0
        self.lists: set[str] = set()

    def header(self) -> GgufHeader:
        """The whole header; the reader must be at the start of the file."""
        if self.view[:4] != b"GGUF":
            raise InputError(f"model {self.path}: expected a GGUF file, it does not start as one")
        self.position = 4
        version, tensor_count, metadata_count = self.numbers("IQQ")
        if version not in (2, 3):
            raise InputError(f"model {self.path}: GGUF version {version}, expected 2 or 3")
        self.bound("gguf.fields", metadata_count)
        self.bound("gguf.tensors", tensor_count)
        metadata: dict[str, int | float | str] = {}
        for _ in range(metadata_count):
            key = self.new_name(metadata)
            (kind,) = self.numbers("I")
            if kind == _ARRAY:
                self.lists.add(key)
            metadata[key] = self.value(kind)
        if metadata.get("split.count", 1) != 1:
            raise InputError(f"model {self.path}: one of several GGUF parts, expected a whole file")
        return self.tensor_table(metadata, tensor_count)

    def tensor_table(
        self, metadata: Mapping[str, int | float | str], tensor_count: int
    ) -> GgufHeader:
        """The header with this metadata; the reader must be behind it."""
        tensors: dict[str, tuple[int, ...]] = {}
        kinds: dict[str, int] = {}
        places = []
        for _ in range(tensor_count):
            name = self.new_name(tensors)
            (rank,) = self.numbers("I")
            self.bound("gguf.dimensions", rank)
            tensors[name] = self.numbers(f"{rank}Q")
            kind, offset = self.numbers("IQ")
            kinds[name] = kind
            places.append((offset, offset + _bytes(kind, tensors[name]), name))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or not 1 <= alignment <= _LARGEST_ALIGNMENT:
            raise InputError(
                f"model {self.path}: general.alignment: given {alignment!r}, expected a whole "
                f"number from 1 to {_LARGEST_ALIGNMENT:,}"
            )
        end = 0
        for begin, stop, name in sorted(places):
            if begin < end:
                raise InputError(f"model {self.path}: {name} overlaps another weight")
            end = stop
        needed = -(-self.position // alignment) * alignment + end
        if len(self.view) < needed:
            raise InputError(
                f"model {self.path}: the file is cut off: {len(self.view)} bytes, expected {needed}"
            )
        return GgufHeader(metadata, tensors, kinds, frozenset(self.lists))

    def new_name(self, known: Mapping[str, object]) -> str:
        """The next text, which none of ``known`` is."""
        name = self.text()
        if name in known:
            raise InputError(f"model {self.path}: {name!r} twice in its header, expected once")
        return name

    def bound(self, name: str, count: int) -> None:
        """Refuses a count above the limit of that name."""
        if count > limit(name):
            raise InputError(f"model {self.path}: its header: {exceeded(name, count)}")

    def numbers(self, codes: str) -> tuple[int, ...]:
        """Numbers of the types that ``struct`` gives these codes."""
        values = struct.unpack_from("<" + codes, self.view, self.position)
        self.position += struct.calcsize("<" + codes)
        return values

    def text(self) -> str:
        """A length and that many bytes of UTF-8."""
        (length,) = self.numbers("Q")
        self.bound("gguf.text", length)
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
        self.bound("gguf.list", count)
        if kind == _ARRAY:
            raise InputError(f"model {self.path}: a list of lists in its header, expected none")
        if kind == _STRING:
            unpack, view, position = struct.Struct("<Q").unpack_from, self.view, self.position
            for _ in range(count):
                if position > len(view):  # an offset beyond 2^63 is no struct.error
                    break
                position += 8 + unpack(view, position)[0]
            self.position = position
        else:
            self.position += count * struct.calcsize("<" + _NUMBER_CODES[kind])
        if self.position > len(self.view):
            raise struct.error("list beyond the end of the file")
        return count


def _bytes(kind: int, shape: tuple[int, ...]) -> int:
    """Size of a tensor of the ggml type ``kind``, stored in blocks along its first dimension.

    Raises:
        KeyError: there is no such type, or the dimension is no whole number of blocks.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except ValueError as error:
        raise KeyError(kind) from error
    if shape and shape[0] % block:
        raise KeyError(f"{shape[0]} values in blocks of {block}")
    return prod(shape) // block * size
