"""The plain files and claims of a store: what checkpoints, parts and tables are kept with."""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from pyarrow import NativeFile

from w2s_ray.errors import InputError, SystemFault
from w2s_ray.store.addresses import shown
from w2s_ray.store.backend import Backend
from w2s_ray.store.names import component
from w2s_ray.store.owners import Holder
from w2s_ray.store.records import json_bytes

PROBE = ".probe"  # one name: what a killed process leaves, the next one replaces and removes
PROBE_BYTES = 1 << 20  # of a file written to see whether there is space


class StoreFiles:
    """Files below the root of a store, by their paths, and claims on keys.

    Holds no open files and can be pickled.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def uri(self) -> str:
        """Path or URI of the root; it may hold secrets. For people, see ``location``."""
        return self.backend.uri

    def location(self, path: str) -> str:
        """Path or URI of a file of the store, for people and other programs; without secrets."""
        return f"{shown(self.uri)}/{path}"

    def probe(self, folders: Iterable[str] = (), files: Iterable[str] = ()) -> None:
        """Create the root, and write and remove a file there, as a run will.

        Args:
            folders: Folders in the root that a run may write to; those that exist are probed too.
            files: Files that a run will replace.

        Raises:
            InputError: That is not possible.
        """
        # Nothing is computed yet; fsspec raises errors of the library behind it.
        with self.writing_errors(Exception, InputError):
            self._write_and_remove(PROBE, bytes(PROBE_BYTES))
            for folder in sorted(set(folders).intersection(self.listing(""))):
                self._write_and_remove(f"{folder}/{PROBE}", b"{}")
            for file in files:
                with suppress(FileNotFoundError):
                    self.open_file(file).close()

    def _write_and_remove(self, path: str, content: bytes) -> None:
        with self.backend.writing(path) as target:
            target.write_bytes(content)
        self.backend.remove(path)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold a key while working on it; yields False if another process or host holds it.

        A claim only saves work (see ``claims``): once it is held, check again whether the work has
        been done.
        """
        with self.claims([key]) as held:
            yield bool(held)

    def claims(self, keys: Iterable[str]) -> AbstractContextManager[set[str]]:
        """Hold many keys, as ``claim`` does; yields those that are held."""
        return self.backend.claims([component(key) for key in keys])

    def holder(self, key: str) -> Holder | None:
        """Who holds a key; None if nobody does, or if that cannot be read at the moment."""
        return self.backend.holder(component(key))

    def claimed(self) -> set[str]:
        """Keys on which there is a claim, even if its process has died since."""
        return self.backend.claimed()

    def held(self) -> set[str]:
        """Keys that living processes hold, as far as that can be seen."""
        return self.backend.held()

    def listing(self, folder: str) -> list[str]:
        """Names of the files and folders in a folder, sorted; none if there is no such folder."""
        return self.backend.listing(folder)

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A local path to write to; at the end of the block it replaces the file ``path``, whole.

        If the block raises, the old file stays.
        """
        return self.backend.writing(path)

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        self.backend.remove(path)

    def discard(self, folder: str) -> None:
        """Remove a folder with everything in it, if it exists."""
        self.backend.discard(folder)

    def open_file(self, path: str) -> NativeFile:
        """A file of the store for random access.

        Raises:
            FileNotFoundError: There is no such file.
        """
        return self.backend.open_file(path)

    def write_json(self, path: str, value: Any) -> None:
        """Replace a small JSON file.

        Raises:
            TypeError: The value is not JSON.
        """
        self.backend.write(path, json_bytes(value))

    def read_json(self, path: str) -> Any:
        """The value of a small JSON file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not JSON.
        """
        (content,) = self.backend.read([path])
        if content is None:
            raise FileNotFoundError(f"there is no file {self.location(path)}")
        return json.loads(content)

    @contextmanager
    def writing_errors(
        self, kind: type[Exception] = OSError, fault: type[InputError] = SystemFault
    ) -> Iterator[None]:
        """Inside, where the store is written, a ``kind`` of error becomes a ``fault``."""
        try:
            yield
        except InputError:
            raise
        except kind as error:
            reason = str(error) or type(error).__name__
            raise fault(
                f"store {shown(self.uri)} cannot be written: {reason}; expected a folder or bucket "
                "with permission and space (store: in the spec, or --store)"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, an ``OSError`` becomes an ``InputError`` that names the store.

        ``FileNotFoundError`` stays what it is: the store can be read, the file is not there.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"store {shown(self.uri)} cannot be read: {error}") from None
