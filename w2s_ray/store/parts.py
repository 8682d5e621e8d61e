"""Parts of an unfinished artifact: what an interrupted step has already computed.

They lie in ``parts/<key>/`` and are removed when the step is committed. A part is complete or
absent, and only the holder of the step's claim writes it. It ends with its own digest, since the
step's record will vouch for what is made of it; a damaged one is computed again.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import file_digest, sha256
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2s_ray.store.files import StoreFiles
from w2s_ray.store.names import PARTS

UNREADABLE = (FileNotFoundError, ValueError, EOFError)  # what a part that is none raises
HEADER_BYTES = 256  # an array of a few dimensions has 128
DIGEST_BYTES = 32  # after the array


class Parts:
    """The parts of the step with one key."""

    def __init__(self, store: StoreFiles, key: str) -> None:
        self._store, self._folder = store, f"{PARTS}/{key}"

    def keep(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array stored as ``name``; if there is none, it is made and stored."""
        path = self._path(name)
        with suppress(*UNREADABLE):
            with self._store.open_file(path) as file:
                content = memoryview(file.read())
            array, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
            if sha256(array).digest() == digest:
                stored: NDArray[Any] = np.load(BytesIO(array), allow_pickle=False)
                return stored
        made = make()
        with self._store.writing(path) as target, open(target, "w+b") as file:
            np.save(file, made)
            file.seek(0)
            file.write(file_digest(file, "sha256").digest())
        return made

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose array is absent or damaged; only headers and sizes are read."""
        present = set(self._store.listing(self._folder))
        return [name for name in names if f"{name}.npy" not in present or not self._is_whole(name)]

    def _is_whole(self, name: str) -> bool:
        with suppress(*UNREADABLE), self._store.open_file(self._path(name)) as file:
            head = BytesIO(file.read(HEADER_BYTES))
            np.lib.format.read_magic(head)
            shape, _, dtype = np.lib.format.read_array_header_1_0(head)
            array = head.tell() + math.prod(shape) * dtype.itemsize
            return bool(file.size() == array + DIGEST_BYTES)
        return False

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.npy"

    def discard(self) -> None:
        """Remove all of them."""
        self._store.discard(self._folder)
