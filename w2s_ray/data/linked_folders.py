"""Files below a local folder in which links may lead anywhere: in circles, to nothing, to devices.

A folder is entered once, by its own path before any link to it, so that a circle of links ends
where it began. Copies with one content are not links: they are several files.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.foreign.opening import check_regular

_ENTRIES = "data.files"


class Listing(NamedTuple):
    """What lies below a folder.

    Attributes:
        files: their paths, relative to the folder.
        repeated: how many links lead to folders that are read already.
    """

    files: list[str]
    repeated: int


def listed_files(folder: str, source: str, is_data: Callable[[str], bool]) -> Listing:
    """All regular files below a folder, at any depth; links are followed.

    Args:
        folder: its path.
        source: the same as in the spec, for messages.
        is_data: whether a path relative to the folder must be a file that can be read.

    Raises:
        InputError: such a path is a link to nothing, a FIFO, a socket or a device; or there is too
            much in the folder.
        OSError: a folder cannot be read.
    """
    place = source.removesuffix("/")
    files: list[str] = []
    entered: set[tuple[int, int]] = set()
    waiting, linked = [""], list[str]()
    entries = repeated = 0
    while waiting or linked:
        inside = waiting.pop() if waiting else linked.pop(0)
        path = os.path.join(folder, inside)
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in entered:
            repeated += 1
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(path) as scan:
            for entry in sorted(scan, key=lambda entry: entry.name):
                entries += 1
                if entries > limit(_ENTRIES):
                    raise InputError(f"{place}: {exceeded(_ENTRIES)}")
                name = f"{inside}/{entry.name}".removeprefix("/")
                if entry.is_dir():
                    (linked if entry.is_symlink() else waiting).append(name)
                elif entry.is_file():
                    files.append(name)
                elif is_data(name):
                    _refuse(entry, f"{place}/{name}")
    return Listing(files, repeated)


def distinct(paths: list[str]) -> list[str]:
    """The paths without links to files that others of them lead to."""
    by_file: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (os.path.islink(path), path)):
        by_file.setdefault(os.path.realpath(path), path)
    return list(by_file.values())


def _refuse(entry: "os.DirEntry[str]", name: str) -> None:
    """Refuses an entry that is neither a file nor a folder, or leads nowhere."""
    try:
        check_regular(entry.path)
    except InputError as error:
        raise InputError(f"{name}: {str(error).removeprefix(f'{entry.path}: ')}") from error
    except OSError as error:
        raise InputError(f"{name}: expected a file, given a link to nothing") from error
