"""A disk in memory that remembers what has reached the platter.

Of a file its content, of a folder its names are durable once flushed (fsync). When the power fails
each name that was not flushed is there as it was or as it is, and content that was not flushed may
be old, new, half, or zeros. Nothing stronger is assumed: two renames may reach the disk in either
order, and of a rename the new name, the old one, or none may be left; a file may keep both. Only
two names that were exchanged are there both as they were or both as they are.
"""

import errno
from collections.abc import Iterator
from functools import lru_cache
from random import Random


class File:
    """A file: content, what of it is durable (None: nothing), and time of the last change."""

    __slots__ = ("changed", "content", "durable")

    def __init__(self, changed: float) -> None:
        self.content, self.changed = b"", changed
        self.durable: bytes | None = None


class Folder:
    """A folder: entries by name, those that are durable, and time of the last change.

    Attributes:
        together: by name, the number of the exchange, not yet durable, that it was in.
    """

    __slots__ = ("changed", "durable", "entries", "together")

    def __init__(self, changed: float) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}
        self.together: dict[str, int] = {}
        self.changed = changed


class Entry:
    """As ``os.DirEntry``."""

    __slots__ = ("name", "node", "path")

    def __init__(self, path: str, name: str, node: File | Folder) -> None:
        self.path, self.name, self.node = path, name, node

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return isinstance(self.node, Folder)

    def is_file(self) -> bool:
        return isinstance(self.node, File)

    def is_symlink(self) -> bool:
        return False


class Disk:
    """Folders and files by absolute path; ``OSError`` as of a file system."""

    def __init__(self) -> None:
        self.root = Folder(0.0)

    def find(self, path: str) -> File | Folder:
        node: File | Folder = self.root
        try:
            for name in _parts(path):
                node = node.entries[name]  # type: ignore[union-attr]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "not there", path) from None
        except AttributeError:
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path) from None
        return node

    def folder(self, path: str) -> Folder:
        node = self.find(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path)
        return node

    def file(self, path: str) -> File:
        node = self.find(path)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, "a folder", path)
        return node

    def exists(self, path: str) -> bool:
        node: File | Folder | None = self.root
        for name in _parts(path):
            node = node.entries.get(name) if isinstance(node, Folder) else None
        return node is not None

    def entries(self, path: str) -> list[Entry]:
        return [Entry(f"{path}/{n}", n, node) for n, node in self.folder(path).entries.items()]

    def open_for_writing(self, path: str, now: float, *, exclusive: bool = False) -> File:
        parent, _, name = path.rpartition("/")
        folder = self.folder(parent)
        node = folder.entries.get(name)
        if node is not None and exclusive:
            raise FileExistsError(errno.EEXIST, "there already", path)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, "a folder", path)
        if node is None:
            node = folder.entries[name] = File(now)
            folder.changed = now
        node.content, node.changed = b"", now
        return node

    def make_folder(self, path: str, now: float) -> None:
        parent, _, name = path.rpartition("/")
        folder = self.folder(parent)
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, "there already", path)
        folder.entries[name] = Folder(now)
        folder.changed = now

    def rename(self, source: str, target: str, now: float) -> None:
        node = self.find(source)
        parent, _, name = target.rpartition("/")
        folder = self.folder(parent)
        old = folder.entries.get(name)
        if isinstance(old, Folder) and isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, "a folder", target)
        if isinstance(old, File) and isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, "a file", target)
        if isinstance(old, Folder) and old.entries:
            raise OSError(errno.ENOTEMPTY, "not empty", target)
        self.remove_entry(source, now)
        folder.entries[name] = node
        folder.changed = now

    def exchange(self, one: str, other: str, now: float) -> None:
        """Of two names in one folder."""
        a, b = self.find(one), self.find(other)
        (parent, _, name), (same, _, second) = one.rpartition("/"), other.rpartition("/")
        assert parent == same
        folder = self.folder(parent)
        folder.entries[name], folder.entries[second] = b, a
        joined = {folder.together.get(n) for n in (name, second)}
        number = max(folder.together.values(), default=0) + 1
        folder.together = {n: number if of in joined else of for n, of in folder.together.items()}
        folder.together |= {name: number, second: number}
        folder.changed = now

    def remove_entry(self, path: str, now: float) -> None:
        parent, _, name = path.rpartition("/")
        folder = self.folder(parent)
        if name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, "not there", path)
        del folder.entries[name]
        folder.changed = now

    def flush(self, path: str) -> None:
        node = self.find(path)
        if isinstance(node, Folder):
            node.durable = dict(node.entries)
            node.together = {}
        else:
            node.durable = node.content

    def lose_power(self, random: Random) -> None:
        """What a power cut leaves."""
        stack: list[File | Folder] = [self.root]
        named: set[int] = set()  # a folder never has two names
        while stack:
            node = stack.pop()
            if isinstance(node, File):
                if node.content != node.durable:
                    whole, durable = node.content, node.durable or b""
                    torn = whole[: len(whole) // 2]
                    node.content = random.choice((durable, whole, torn, bytes(len(whole))))
                node.durable = node.content
                continue
            names = sorted(node.entries.keys() | node.durable.keys())
            random.shuffle(names)
            left: dict[str, File | Folder] = {}
            is_old = {number: random.random() < 0.5 for number in node.together.values()}
            for name in names:
                before, after = node.durable.get(name), node.entries.get(name)
                old = is_old.get(node.together.get(name, 0))
                if old is None:
                    old = before is after or random.random() < 0.5
                kept = before if old else after
                if kept is not None and not (isinstance(kept, Folder) and id(kept) in named):
                    left[name] = kept
                    named.add(id(kept))
            node.entries, node.durable, node.together = left, dict(left), {}
            stack.extend(left.values())

    def below(self, path: str) -> Iterator[str]:
        """Paths of all files and empty folders below a folder; none if there is no such folder."""
        try:
            entries = self.entries(path)
        except OSError:
            return
        for entry in entries:
            if isinstance(entry.node, Folder) and entry.node.entries:
                yield from self.below(entry.path)
            else:
                yield entry.path


@lru_cache(100_000)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name)
