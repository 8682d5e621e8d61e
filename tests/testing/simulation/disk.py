"""A disk in memory that remembers what has reached the platter.

Of a file its content, of a folder its names are durable once flushed (fsync). When the power fails
each name that was not flushed is there as it was or as it is, and content that was not flushed may
be old, new, half, or zeros. Nothing stronger is assumed: two renames may reach the disk in either
order, and a rename may come through half.
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
    """A folder: entries by name, those that are durable, and time of the last change."""

    __slots__ = ("changed", "durable", "entries")

    def __init__(self, changed: float) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}
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
        else:
            node.durable = node.content

    def lose_power(self, random: Random) -> None:
        """What a power cut leaves."""
        seen: set[int] = set()
        stack: list[File | Folder] = [self.root]
        while stack:
            node = stack.pop()
            if id(node) in seen:  # a rename that came through half: two names of one folder
                continue
            seen.add(id(node))
            if isinstance(node, File):
                if node.content != node.durable:
                    whole, durable = node.content, node.durable or b""
                    torn = whole[: len(whole) // 2]
                    node.content = random.choice((durable, whole, torn, bytes(len(whole))))
                node.durable = node.content
                continue
            if node.entries != node.durable:
                names = sorted(node.entries.keys() | node.durable.keys())
                left: dict[str, File | Folder] = {}
                for name in names:
                    before, after = node.durable.get(name), node.entries.get(name)
                    kept = before if random.random() < 0.5 else after
                    if kept is not None:
                        left[name] = kept
                node.entries = left
            node.durable = dict(node.entries)
            stack.extend(node.entries.values())

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
