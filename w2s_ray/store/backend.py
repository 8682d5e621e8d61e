"""The interface between a store and the system that holds its files.

``LocalBackend`` (``local``) is a folder on a local or mounted file system, ``ObjectStoreBackend``
(``object_store``) any other pyarrow file system, such as S3. One set of tests runs over both. A
backend deals in paths: text with ``/`` between its parts, relative to the root. It has no notion of
steps, keys or studies. Two things can be stored:

* A *file*, which is replaced as a whole.
* A *committed folder* ``<kind>/<slug>-<key>``: files and a record (``names.RECORD``), which states
  kind and key and lists size and digest of each file (``records``). It is prepared locally,
  committed once, and never changed. A folder without a whole record of its own is not committed: it
  is never read, and never in the way.

Names that begin with a dot are hidden: no listing shows them.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pyarrow import NativeFile

from w2s_ray.errors import InputError
from w2s_ray.store.owners import Holder

DAMAGED = " is damaged: "  # in a message, between folder and damage


class StoreError(InputError):
    """A folder is not what it was when it was committed.

    Attributes:
        path: of the folder, relative to the root.
        record: the content of its record, by which ``Store.set_aside`` knows the folder again.
    """

    path: str = ""
    record: bytes = b""


def damaged(root: str, path: str, record: bytes, damage: str) -> StoreError:
    """The error for a damaged folder; ``root`` is shown to people and holds no secrets."""
    error = StoreError(
        f"{root}/{path}{DAMAGED}{damage}; running its study sets the folder aside and makes it "
        "again"
    )
    error.path, error.record = path, record
    return error


class Backend(Protocol):
    """Files and committed folders below one root.

    Every method raises ``OSError`` where the system refuses: no permission, a full disk, no
    network. A backend can be pickled, and used by many threads, processes and machines at once.
    Nothing is created before the first write.
    """

    @property
    def uri(self) -> str:
        """Path or URI of the root. It may hold secrets, which other processes need to connect."""
        ...

    # Committed folders

    def folders(self, without: Container[str] = ()) -> Iterator[str]:
        """Paths ``<parent>/<name>`` of all folders two levels below the root, committed or not.

        Lists names and opens nothing, so files may be among them.

        Args:
            without: Parents that are not listed.
        """
        ...

    def committed(self) -> Iterator[str]:
        """Paths of the committed folders, by one listing of everything.

        On an object store a record counts if it is not empty; damage shows when it is read.
        """
        ...

    def workspace(self, folder: str, name: str) -> Path:
        """A new, empty local folder, in which the contents of ``<folder>/<name>`` are prepared.

        The caller removes it, unless ``commit`` has moved it away. Workspaces that killed processes
        did not remove are removed here; those of other machines are kept while a claim on ``name``
        is held.
        """
        ...

    def commit(self, workspace: Path, path: str, record: bytes) -> None:
        """Make the contents of a workspace the committed folder ``path``.

        Atomic: a reader sees the whole folder or none, and the files of two concurrent commits are
        never mixed. Durable on return: files first, then the record. If ``path`` is committed
        already, that folder stays as it is; if it is there without a record, it is replaced; if it
        has a damaged one, it is set aside. Of two that repair it at once one stays.
        """
        ...

    def local_copy(self, path: str, record: bytes) -> Path:
        """A local folder with the files of the committed folder that has this record.

        Read it, do not change it. Files are downloaded once per machine, and again if the local
        copy is damaged. Digests of downloads are checked here, those of files in place by
        whoever reads them: an artifact may hold weights that nobody asks for.

        Raises:
            StoreError: A file is missing, or another than the record says.
        """
        ...

    def file_in(self, path: str, record: bytes, name: str) -> str:
        """Path, for ``read``, of the file ``name`` of the committed folder with this record."""
        ...

    def set_aside(self, path: str, record: bytes) -> str:
        """Move a folder with this record to a path of its own below ``names.DAMAGED``.

        Atomic: a reader sees the folder or none. On an object store only the record is moved,
        which names the files that belong to it; these stay where they are.

        Returns:
            The new path.

        Raises:
            FileNotFoundError: It is gone already, or has another record.
        """
        ...

    def remove_abandoned(self) -> None:
        """Remove what killed processes have left of workspaces, wherever ``workspace`` made them.

        Never what a living process may still write (see ``temporary``).
        """
        ...

    def discard(self, folder: str) -> None:
        """Remove a folder with everything in it, if it exists.

        On a file system it disappears at once; on an object store file by file.
        """
        ...

    # Files

    def listing(self, folder: str) -> list[str]:
        """Names of the files and folders in a folder, sorted; none if there is no such folder."""
        ...

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """Contents of files, in the order of the paths; None for a file that does not exist."""
        ...

    def open_file(self, path: str) -> NativeFile:
        """A file for random access.

        Raises:
            FileNotFoundError: There is no such file.
        """
        ...

    def write(self, path: str, content: bytes) -> None:
        """Replace a small file. Atomic, and durable on return, as ``writing``."""
        ...

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A local path to write to; at the end of the block it replaces the file ``path``.

        Atomic: readers see the old file or the new one, whole. Durable when the block ends. If the
        block raises, the old file stays and nothing of the new one remains.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        ...

    # Claims

    def claims(self, names: Iterable[str]) -> AbstractContextManager[set[str]]:
        """Hold those of the names that no other process holds; yields them.

        Mutual exclusion on a file system, best effort on an object store (see ``claims``).
        """
        ...

    def holder(self, name: str) -> Holder | None:
        """Who holds a name; None if nobody does, or if that cannot be read at the moment."""
        ...

    def claimed(self) -> set[str]:
        """Names on which there is a claim, even if its process has died since."""
        ...

    def held(self) -> set[str]:
        """Names that living processes hold, as far as that can be seen."""
        ...
