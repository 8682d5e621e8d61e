"""Parts of an unfinished artifact: what an interrupted step has already computed.

They lie in ``parts/<key>/`` and are removed when the step is committed. A part is complete or
absent, and only the holder of the step's claim writes it. It ends with its own digest, since the
step's record will vouch for what is made of it; a damaged one is computed again.
"""

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
DIGEST_BYTES = 32  # after the array


class Parts:
    """The parts of the step with one key."""

    def __init__(self, store: StoreFiles, key: str) -> None:
        self._store, self._folder = store, f"{PARTS}/{key}"

    def keep(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array stored as ``name``; if there is none, it is made and stored."""
        stored = self._read(name)
        if stored is not None:
            return stored
        made = make()
        with self._store.writing(self._path(name)) as target, open(target, "w+b") as file:
            np.save(file, made)
            file.seek(0)
            file.write(file_digest(file, "sha256").digest())
        return made

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose array is absent or damaged."""
        present = set(self._store.listing(self._folder))
        return [n for n in names if f"{n}.npy" not in present or self._read(n) is None]

    def _read(self, name: str) -> NDArray[Any] | None:
        """The array; None if it is absent or damaged."""
        with suppress(*UNREADABLE):
            with self._store.open_file(self._path(name)) as file:
                content = file.read()
            if sha256(memoryview(content)[:-DIGEST_BYTES]).digest() == content[-DIGEST_BYTES:]:
                stored: NDArray[Any] = np.load(BytesIO(content), allow_pickle=False)
                return stored
        return None

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.npy"

    def discard(self) -> None:
        """Remove all of them."""
        self._store.discard(self._folder)
