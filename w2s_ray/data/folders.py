"""Which files of a folder are its data.

These are all files of known suffixes at any depth, except hidden ones and those that describe the
data. A folder in which a row would be read twice, or the splits of a data set as one, is refused.
"""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterable

from pyarrow import fs

from w2s_ray.data.formats import COMPRESSIONS, FORMATS, format_of
from w2s_ray.errors import InputError

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
"""What ``save_to_disk`` of the library datasets writes beside the Arrow files."""

METADATA = frozenset({INFO, SPLITS, "dataset_infos.json", "dataset-metadata.json"})
"""Names of files that describe data (of the library datasets, the Hub and Kaggle)."""

_COMPRESSIONS = frozenset(
    {"gz", "zst", "bz2", "xz", "lzma", "lz4", "br", "sz", "snappy", "zip", "7z"}
)


def data_files(source: str, filesystem: fs.FileSystem, folder: str) -> list[str]:
    """The paths of a folder's data files, sorted.

    Args:
        source: the folder as in the spec, for messages.
        filesystem: where it is.
        folder: its path in ``filesystem``.

    Raises:
        InputError: there is none, one of them cannot be read, a file stands beside its compressed
            copy, or the folder holds several splits of one data set.
        OSError, ArrowException: the folder cannot be read.
    """
    start = len(folder.removesuffix("/")) + 1
    names: defaultdict[str, set[str]] = defaultdict(set)
    for entry in filesystem.get_file_info(fs.FileSelector(folder, recursive=True)):
        inside = entry.path[start:]
        if entry.type == fs.FileType.File and not _is_hidden(inside):
            _refuse_compressed(f"{source.removesuffix('/')}/{inside}")
            names[inside.rpartition("/")[0]].add(entry.base_name)
    if isinstance(filesystem, fs.LocalFileSystem):
        _refuse_broken_links(source, folder)

    paths = []
    for inside, present in names.items():
        place = f"{source.removesuffix('/')}/{inside}".removesuffix("/")
        path = f"{folder.removesuffix('/')}/{inside}".removesuffix("/")
        if SPLITS in present:
            _refuse_splits(place, [name for name in names if STATE in names[name]], inside)
        data = _without_metadata(present)
        if STATE in present and any(name.endswith(".arrow") for name in present):
            data = _saved(place, filesystem, f"{path}/{STATE}", data)
        _refuse_copies(place, data)
        paths += [f"{path}/{name}" for name in data]
    if not paths:
        raise InputError(f"{source}: no file of {', '.join(FORMATS)} in this folder")
    return sorted(paths)


def _is_hidden(inside: str) -> bool:
    return any(name.startswith((".", "_")) for name in inside.split("/"))


def _refuse_compressed(name: str) -> None:
    """Refuse data in a compression that is not read; they would be left out."""
    packed, _, ending = name.lower().rpartition(".")
    if ending in _COMPRESSIONS and packed.endswith(tuple(FORMATS)) and not format_of(name):
        raise InputError(
            f"{name}: compressed in a way that is not read; expected it unpacked, or a list of "
            "files in the spec"
        )


def _refuse_broken_links(source: str, folder: str) -> None:
    """Refuse a data file that is a link to nothing: Arrow's listing leaves it out."""
    for path, _, files in os.walk(folder):
        for name in files:
            inside = os.path.relpath(os.path.join(path, name), folder)
            if format_of(name) and not _is_hidden(inside) and not os.path.exists(f"{path}/{name}"):
                raise InputError(
                    f"{source.removesuffix('/')}/{inside}: expected a file, given a link to nothing"
                )


def _without_metadata(present: Collection[str]) -> list[str]:
    """The files of known suffixes without those that the library datasets writes beside them."""
    data = [name for name in sorted(present) if format_of(name) and name not in METADATA]
    if INFO in present:  # results of ``map`` are cached beside the data
        data = [name for name in data if not name.startswith("cache-")]
    return data


def _saved(place: str, filesystem: fs.FileSystem, state: str, data: Iterable[str]) -> list[str]:
    """The files of a ``save_to_disk`` folder; of its Arrow files those that its state lists."""
    try:
        with filesystem.open_input_stream(state) as stream:
            listed = [file["filename"] for file in json.loads(stream.read())["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place}/{STATE}: expected the state of a data set saved by save_to_disk, with "
            "_data_files; name the .arrow files in the spec instead"
        ) from error
    others = [name for name in data if name != STATE and not name.endswith(".arrow")]
    present = set(data)
    for name in listed:
        if name not in present:
            raise InputError(f"{place}/{name}: no such file, but {STATE} lists it")
    return sorted({*others, *listed})


def _refuse_splits(place: str, saved: Iterable[str], inside: str) -> None:
    prefix = f"{inside}/" if inside else ""
    splits = sorted(name.removeprefix(prefix) for name in saved if name.startswith(prefix))
    if len(splits) > 1:
        raise InputError(
            f"{place}: a data set saved with the splits {', '.join(splits)}; expected one of them, "
            f"such as {place}/{splits[0]}"
        )


def _refuse_copies(place: str, names: Iterable[str]) -> None:
    """Refuse a file beside its compressed copy, whose rows would be read twice."""
    first: dict[str, str] = {}
    for name in names:
        plain = name
        for ending in COMPRESSIONS:
            if plain.lower().endswith(ending):
                plain = plain[: -len(ending)]
        if first.setdefault(plain, name) != name:
            raise InputError(
                f"{place}: holds {first[plain]} and {name}, whose rows would be read twice; "
                "expected one of them, or a list of files in the spec"
            )
