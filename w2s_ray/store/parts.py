"""Parts of an unfinished artifact: what an interrupted step has already computed.

They lie in ``parts/<key>/`` and are removed when the step is committed. A part is complete or
absent, and only the holder of the step's claim writes it; a damaged one is computed again.
"""

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2s_ray.store.files import StoreFiles
from w2s_ray.store.names import PARTS


class Parts:
    """The parts of the step with one key."""

    def __init__(self, store: StoreFiles, key: str) -> None:
        self._store, self._folder = store, f"{PARTS}/{key}"

    def keep(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array stored as ``name``; if there is none, it is made and stored."""
        path = f"{self._folder}/{name}.npy"
        with suppress(FileNotFoundError, ValueError, EOFError):
            with self._store.open_file(path) as file:
                stored: NDArray[Any] = np.load(BytesIO(file.read()), allow_pickle=False)
            return stored
        made = make()
        with self._store.writing(path) as target, open(target, "wb") as file:
            np.save(file, made)
        return made

    def discard(self) -> None:
        """Remove all of them."""
        self._store.discard(self._folder)
