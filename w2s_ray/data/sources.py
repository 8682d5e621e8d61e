"""Sources of rows: files, folders and URIs on any file system that Arrow supports, and the Hub.

A source yields raw rows, each with its file and line for messages. Its fingerprint depends on the
content alone: moving or renaming a file keeps all results that depend on it, and changing the file
invalidates all of them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from pyarrow import ArrowException, fs

from w2s_ray.data import agreement
from w2s_ray.data.folders import data_files
from w2s_ray.data.formats import COMPRESSIONS, FORMATS, RawRow, format_of, rows_of
from w2s_ray.data.signatures import refuse_misnamed
from w2s_ray.errors import InputError
from w2s_ray.extras import require
from w2s_ray.foreign.opening import check_regular
from w2s_ray.masking import masked

if TYPE_CHECKING:
    from w2s_ray.spec.schema import DataSpec

HUB = "hf:"
GENERATED = "generate:"
REPEATED_LINKS = "links to files or folders that are read already; each is read once"


class Fingerprint(TypedDict):
    """SHA-256 of a source's content, and its size; None if the content was not read."""

    digest: str
    bytes: int | None


class HubPart(NamedTuple):
    """Which part of a Hub data set to read; ignored for files."""

    subset: str | None = None
    split: str = "train"
    revision: str | None = None


WHOLE = HubPart()


class _File(NamedTuple):
    """A data file; ``name`` is for people and holds no secrets."""

    name: str
    filesystem: fs.FileSystem
    path: str


def read_rows(source: str | Sequence[str], part: HubPart = WHOLE) -> Iterator[tuple[str, RawRow]]:
    """All rows of one or more sources, each with ``file:line`` or ``file: row n``.

    Args:
        source: paths, URIs or folders of files of ``formats.FORMATS`` (streamed ones may be
            compressed as .gz or .zst), or ``hf:ORG/NAME``, of which ``hf:ORG/NAME/FOLDER`` is what
            lies in one folder.
        part: what to read of a Hub data set.

    Raises:
        InputError: a source does not exist, cannot be reached, or does not have the format that its
            name says.
    """
    for one in _as_list(source):
        if one.startswith(HUB):
            yield from _hub_rows(one, part)
            continue
        for file in _files(one):
            try:
                yield from rows_of(file.name, file.filesystem, file.path)
            except InputError:
                raise
            except (OSError, ArrowException, ValueError, MemoryError) as error:
                raise InputError(f"{file.name}: cannot be read: {_first_line(error)}") from error


def fingerprint(source: str | Sequence[str], part: HubPart = WHOLE) -> Fingerprint:
    """The fingerprint of a source's content, independent of file names and order.

    A Hub data set is identified by its name, subset, split and revision, because reading its
    content would need a download: give a commit as the revision if the key has to follow the
    content. A generator is identified by its version.

    Args:
        source: as in ``read_rows``, or ``generate:NAME``.
        part: what to read of a Hub data set.

    Raises:
        InputError: as in ``read_rows``.
    """
    digests: list[str] = []
    size: int | None = 0
    for one in _as_list(source):
        if one.startswith((HUB, GENERATED)):
            identity = [one, *part] if one.startswith(HUB) else [one, agreement.VERSION]
            digests.append(hashlib.sha256(json.dumps(identity).encode()).hexdigest())
            size = None
            continue
        for file in _files(one):
            digest, length = _hash(file)
            digests.append(f"{format_of(file.path)} {digest}")
            size = None if size is None else size + length
    total = hashlib.sha256("\n".join(sorted(digests)).encode())
    return {"digest": total.hexdigest(), "bytes": size}


def note_links(source: str | Sequence[str], notes: Counter[str]) -> None:
    """Counts links in folders of a source that lead to what is read already.

    Args:
        source: as in ``read_rows``; it was read.
        notes: takes the count, where there are such links.
    """
    for one in _as_list(source):
        if not one.startswith((HUB, GENERATED)) and (repeated := _located(one).repeated):
            notes[REPEATED_LINKS] += repeated


def data_identity(data: "DataSpec") -> dict[str, Any]:
    """What the prepared rows depend on: the sources' content and how to read it, but no paths."""
    part = HubPart(data.subset, data.split, data.revision)
    content: dict[str, str]
    if data.splits is None:
        content = {"source": fingerprint(data.source or "", part)["digest"]}
    else:
        splits = data.splits.model_dump()
        content = {name: fingerprint(files, part)["digest"] for name, files in splits.items()}
    no_label = {} if data.no_label is None else {"no_label": sorted(data.no_label)}
    return {
        "kind": data.kind,
        "content": content,
        "sizes": data.sizes.model_dump(),
        "seed": data.seed,
        "format": data.format,
        "columns": data.columns.model_dump(exclude_none=True),
        **no_label,
    }


def _as_list(source: str | Sequence[str]) -> Sequence[str]:
    return [source] if isinstance(source, str) else source


class _Located(NamedTuple):
    """The data files of a path or URI, and how many links repeat some of them."""

    files: list[_File]
    repeated: int


def _files(source: str) -> list[_File]:
    return _located(source).files


def _located(source: str) -> _Located:
    """The data files of a path or URI."""
    try:
        if "://" in source:
            filesystem, path = fs.FileSystem.from_uri(source)
            base = masked(source.partition("?")[0])
            prefix = base.removesuffix("/").removesuffix(path.removesuffix("/"))
        else:
            filesystem, path, prefix = fs.LocalFileSystem(), source, ""
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise InputError(f"{source}: no such file or folder{_hint(filesystem, path)}")
        if info.type == fs.FileType.File:
            if format_of(path) is None:
                raise InputError(f"{source}: expected a file of {', '.join(FORMATS)} (.gz, .zst)")
            return _Located([_File(masked(source), filesystem, path)], 0)
        if info.type == fs.FileType.Unknown:
            check_regular(path)
        found = data_files(masked(source), filesystem, path)
    except InputError:
        raise
    except (OSError, ArrowException, ValueError) as error:
        raise InputError(f"{source}: cannot be reached: {_first_line(error)}") from error
    files = [_File(f"{prefix}{path}", filesystem, path) for path in found.paths]
    return _Located(files, found.repeated)


def _hint(filesystem: fs.FileSystem, path: str) -> str:
    folder, _, name = path.rstrip("/").rpartition("/")
    siblings = filesystem.get_file_info(fs.FileSelector(folder or ".", allow_not_found=True))
    near = get_close_matches(name, [entry.base_name for entry in siblings], 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _hash(file: _File) -> tuple[str, int]:
    """SHA-256 and length in bytes of a file, as stored.

    Raises:
        InputError: the file cannot be read, or its first bytes are those of another kind of file.
    """
    digest, length = hashlib.sha256(), 0
    form = FORMATS[format_of(file.path) or ""]
    is_text = not form.random_access and not file.path.lower().endswith(tuple(COMPRESSIONS))
    try:
        with file.filesystem.open_input_stream(file.path, compression=None) as stream:
            while block := stream.read(1 << 20):
                if length == 0:
                    refuse_misnamed(file.name, block, is_text)
                digest.update(block)
                length += len(block)
    except OSError as error:
        raise InputError(f"{file.name}: cannot be read: {_first_line(error)}") from error
    return digest.hexdigest(), length


def _hub_rows(source: str, part: HubPart) -> Iterator[tuple[str, RawRow]]:
    require("datasets", f"{source}: given a data set of the Hub")
    import datasets

    organisation, *rest = source.removeprefix(HUB).split("/", 2)
    name, folder = "/".join([organisation, *rest[:1]]), rest[1:]
    if Path(name).exists():  # which datasets would read instead
        raise InputError(
            f"{source}: {name} is also a folder here, expected a Hub data set alone: give ./{name} "
            "for the folder, or run the study in another working directory"
        )
    try:
        within = {"data_dir": folder[0]} if folder else {}
        loaded = datasets.load_dataset(
            name, part.subset, split=part.split, revision=part.revision, **within
        )
    except Exception as error:  # the Hub's client raises errors of many libraries
        raise InputError(
            f"{source}: cannot be loaded (subset {part.subset}, split {part.split}, revision "
            f"{part.revision}): {_first_line(error)}; is the Hub reachable?"
        ) from error
    for number, row in enumerate(loaded, start=1):
        yield f"{source}: row {number}", dict(row)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
