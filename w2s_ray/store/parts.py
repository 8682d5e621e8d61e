"""Parts of an artifact that is not finished: what a killed step had computed already.

They lie in ``parts/<key>/`` and are removed when the step is committed. A part is there whole or
not at all, and only the holder of the step's claim writes it; one that cannot be read is made
again.
"""

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2s_ray.store.artifacts import Store


class Parts:
    """The parts of one step, by its key."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._folder = store, f"parts/{key}"

    def keep(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array kept under ``name``; made, and kept, if there is none."""
        path = f"{self._folder}/{name}.npy"
        with suppress(FileNotFoundError, ValueError, EOFError):
            with self._store.open_file(path) as file:
                kept: NDArray[Any] = np.load(BytesIO(file.read()), allow_pickle=False)
            return kept
        made = make()
        with self._store.writing(path) as target, open(target, "wb") as file:
            np.save(file, made)
        return made

    def discard(self) -> None:
        """Removes them all."""
        self._store.discard(self._folder)
