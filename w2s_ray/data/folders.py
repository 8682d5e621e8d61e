"""Which files of a folder are its data.

These are all files of known suffixes at any depth, except hidden ones and those that describe the
data. A folder in which a row would be read twice, or the splits of a data set as one, is refused.
Links are followed; a file or folder that several paths lead to is read once (``linked_folders``).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from pyarrow import fs

from w2s_ray.data.formats import COMPRESSIONS, FORMATS, format_of
from w2s_ray.data.linked_folders import distinct, listed_files
from w2s_ray.errors import InputError
from w2s_ray.foreign.json_text import parse_json
from w2s_ray.foreign.limits import exceeded, limit

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
"""What ``save_to_disk`` of the library datasets writes beside the Arrow files."""

METADATA = frozenset({INFO, SPLITS, "dataset_infos.json", "dataset-metadata.json"})
"""Names of files that describe data (of the library datasets, the Hub and Kaggle)."""

_COMPRESSIONS = frozenset(
    {"gz", "zst", "bz2", "xz", "lzma", "lz4", "br", "sz", "snappy", "zip", "7z"}
)


class DataFiles(NamedTuple):
    """The data of a folder.

    Attributes:
        paths: of its data files, sorted.
        repeated: how many links lead to files or folders that are read already.
    """

    paths: list[str]
    repeated: int


def data_files(source: str, filesystem: fs.FileSystem, folder: str) -> DataFiles:
    """A folder's data files.

    Args:
        source: the folder as in the spec, for messages.
        filesystem: where it is.
        folder: its path in ``filesystem``.

    Raises:
        InputError: there is none, one of them cannot be read, a file stands beside its compressed
            copy, or the folder holds several splits of one data set.
        OSError, ArrowException: the folder cannot be read.
    """
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    names: defaultdict[str, set[str]] = defaultdict(set)
    listing = listed_files(folder, source, _is_data) if is_local else None
    inside_paths = listing.files if listing else _listed(filesystem, folder, source)
    for inside in inside_paths:
        if not _is_hidden(inside):
            _refuse_compressed(f"{source.removesuffix('/')}/{inside}")
            within, _, name = inside.rpartition("/")
            names[within].add(name)

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
    kept = distinct(paths) if is_local else paths
    repeated = listing.repeated if listing else 0
    return DataFiles(sorted(kept), repeated + len(paths) - len(kept))


def _listed(filesystem: fs.FileSystem, folder: str, source: str) -> list[str]:
    """Paths of all files below a folder of an object store, relative to it."""
    entries = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    if len(entries) > limit("data.files"):
        raise InputError(f"{source}: {exceeded('data.files', len(entries))}")
    start = len(folder.removesuffix("/")) + 1
    return [entry.path[start:] for entry in entries if entry.type == fs.FileType.File]


def _is_data(inside: str) -> bool:
    """Whether a path, relative to the folder, is that of a file whose rows would be read."""
    return format_of(inside) is not None and not _is_hidden(inside)


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


def _without_metadata(present: Collection[str]) -> list[str]:
    """The files of known suffixes without those that the library datasets writes beside them."""
    data = [name for name in sorted(present) if format_of(name) and name not in METADATA]
    if INFO in present:  # results of ``map`` are cached beside the data
        data = [name for name in data if not name.startswith("cache-")]
    return data


def _saved(place: str, filesystem: fs.FileSystem, state: str, data: Iterable[str]) -> list[str]:
    """The files of a ``save_to_disk`` folder; of its Arrow files those that its state lists."""
    most = limit("row.bytes")
    try:
        with filesystem.open_input_stream(state) as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise InputError(f"{place}/{STATE}: {exceeded('row.bytes')}")
        listed = [file["filename"] for file in parse_json(content, state)["_data_files"]]
        if not all(isinstance(name, str) for name in listed):
            raise TypeError("names of files are texts")
    except InputError:
        raise
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
