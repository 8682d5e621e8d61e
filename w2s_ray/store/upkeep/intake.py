"""Import: the artifacts of an archive of ``export`` become those of a store.

The archive may come from anybody. Each artifact is read into a workspace, compared with its record
while it is read, and committed as a run commits it: whole or not at all, and whatever is there
already stays. A record must have the name, the key and the files that it claims: the key is the
digest of kind, version, configuration and inputs. Tables are not taken from the archive; they are
made of the artifacts.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from w2s_ray.errors import line_of
from w2s_ray.store.artifacts import Store
from w2s_ray.store.bundles import is_whole, member_keys
from w2s_ray.store.canonical import digest
from w2s_ray.store.names import (
    MEMBERS,
    RECORD,
    RESERVED,
    artifact_folder,
    bundle_folder,
    is_bundle,
    key_of,
    plan_file,
    study_file,
)
from w2s_ray.store.records import RecordedFile, difference, parse_record, recorded_files
from w2s_ray.store.results import CELLS_SCHEMA, SOFT_LABELS_TASK
from w2s_ray.store.study_tables import write_tables
from w2s_ray.store.upkeep.archive import ARCHIVE, ARCHIVE_SCHEMA
from w2s_ray.store.upkeep.inventory import study_of
from w2s_ray.store.upkeep.tar import ArchiveError, Member, reading
from w2s_ray.store.upkeep.trees import size_text
from w2s_ray.store.upkeep.verify import CHUNK_BYTES, TABLES

LARGEST_RECORD = 64 << 20  # bytes; a bundle of a thousand exported models has about 10 MB
LARGEST_CELLS = 512 << 20  # bytes; a million cells
LONGEST_STUDY = 255  # characters
LARGEST_MEMBERS = 1_000_000_000  # bytes of the text in a bundle's members.parquet
_IDENTITY = ("key", "kind", "version", "config", "inputs")


class Imported(NamedTuple):
    """What became of an archive.

    Attributes:
        committed: number of folders that are new.
        present: number of folders whose steps were there.
        notes: lines on what was not taken in.
    """

    study: str
    committed: int
    present: int
    notes: list[str]


def take_in(store: Store, archive: Path) -> Imported:
    """Reads the archive into the store.

    Raises:
        ArchiveError: The archive is not what ``export`` writes; nothing of the folder at fault was
            taken in. The folders before it were, each of them whole.
        InputError: The store cannot be read or written.
    """
    intake = _Intake(store, archive)
    with store.writing_errors(), reading(archive) as members:
        intake.read(members)
    return intake.finish()


class _Intake:
    def __init__(self, store: Store, archive: Path) -> None:
        self._store, self._archive = store, archive
        self._finished = set(store.finished())
        self._study = ""
        self._files: dict[str, bytes] = {}  # of the study: cells and plan
        self._folders = self._committed = self._present = 0
        self._with_trained = False

    def refused(self, name: str, reason: str) -> ArchiveError:
        taken = f" ({self._committed:,} folders before it were taken in)" if self._committed else ""
        return ArchiveError(f"{self._archive}: {name}: {reason}{taken}")

    def read(self, members: Iterator[Member]) -> None:
        self._begin(next(members, None))
        for member in members:
            if member.name.endswith(f"/{RECORD}") and member.name.count("/") == 2:
                self._read_folder(member, members)
            else:
                self._read_file(member)
        seen = self._committed + self._present
        if seen != self._folders:
            raise self.refused(ARCHIVE, f"{self._folders} folders announced, {seen} read")

    def _begin(self, first: Member | None) -> None:
        if first is None or first.name != ARCHIVE:
            raise self.refused(ARCHIVE, "it is not the first file, expected an archive of export")
        head = self._json(ARCHIVE, self._whole(first, LARGEST_RECORD))
        study, folders = head.get("study"), head.get("folders")
        if head.get("schema") != ARCHIVE_SCHEMA or not isinstance(folders, int):
            raise self.refused(ARCHIVE, f"given schema {head.get('schema')!r}, expected 1")
        is_name = isinstance(study, str) and study.isprintable() and len(study) <= LONGEST_STUDY
        if not is_name or not study or "/" in study or study.startswith("."):
            raise self.refused(ARCHIVE, f"given study {study!r:.80}, expected the name of a study")
        self._study, self._folders = study, folders

    def _read_folder(self, first: Member, members: Iterator[Member]) -> None:
        """Reads and commits an artifact: its record, then the files that this lists."""
        path = first.name.removesuffix(f"/{RECORD}")
        content = self._whole(first, LARGEST_RECORD)
        try:
            record = parse_record(content, path)
            files = self._checked(path, record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = str(error) if type(error) is ValueError else "not what a run writes"
            raise self.refused(path, f"its record is {reason}") from None
        keys = member_keys(record) or [record["key"]]
        if self._finished.issuperset(keys):
            self._skip(path, files, members)
            self._present += 1
            return
        workspace = self._store.backend.workspace(path.partition("/")[0], key_of(path))
        try:
            needed = sum(file.size for file in files.values())
            if needed > (free := shutil.disk_usage(workspace).free):
                sizes = f"{size_text(needed)}, {size_text(free)} are free"
                raise self.refused(path, f"it needs {sizes}")
            for _ in range(len(files)):
                self._read_into(workspace, path, files, next(members, None))
            self._check_keys(path, record, workspace)
            self._store.backend.commit(workspace, path, content)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
        self._finished.update(keys)
        self._committed += 1

    def _checked(self, path: str, record: Mapping[str, Any]) -> dict[str, RecordedFile]:
        """The files of a record that belongs to this path.

        Raises:
            ValueError: It does not, or lists what no artifact has.
        """
        kind = path.partition("/")[0]
        if kind in RESERVED:
            raise ValueError(f"in a folder that is not for artifacts, {kind}")
        if is_bundle(path):
            if not is_whole(record):
                raise ValueError("one that lists other members than its key names")
            expected = bundle_folder(kind, len(record["members"]), record["key"])
        else:
            expected = artifact_folder(kind, record["slug"], record["key"])
        if path != expected:
            raise ValueError(f"that of {expected}")
        files = recorded_files(record)
        for name, file in files.items():
            if name.rpartition("/")[2] == RECORD and "/" not in name:
                raise ValueError(f"one that lists {RECORD}")
            if type(file.size) is not int or file.size < 0 or not isinstance(file.digest, str):
                raise ValueError(f"without size or digest of {name!r}")
        return files

    def _read_into(
        self, workspace: Path, path: str, files: dict[str, RecordedFile], member: Member | None
    ) -> None:
        """Reads one of the files of a folder, which is removed from ``files``."""
        name = self._expected(path, files, member)
        assert member is not None
        expected, hashed = files.pop(name), sha256()
        target = workspace / name  # a plain relative path: ``tar.check_name``
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as file:
                while chunk := member.content.read(CHUNK_BYTES):
                    hashed.update(chunk)
                    file.write(chunk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise self.refused(f"{path}/{name}", "a file and a folder of one name") from None
        read = RecordedFile(member.size, hashed.hexdigest())
        if (problem := difference(name, read, expected)) is not None:
            raise self.refused(path, problem)

    def _expected(self, path: str, files: Mapping[str, RecordedFile], member: Member | None) -> str:
        """The name, below the folder, of the next member; refused unless the record lists it."""
        if member is None:
            raise self.refused(path, f"it ends without {next(iter(files))}")
        name = member.name.removeprefix(f"{path}/")
        if name == member.name or name not in files:
            raise self.refused(member.name, f"no file that the record of {path} lists, or twice")
        if member.size != files[name].size:
            raise self.refused(path, f"{name} has {member.size} bytes, expected {files[name].size}")
        return name

    def _skip(self, path: str, files: dict[str, RecordedFile], members: Iterator[Member]) -> None:
        for _ in range(len(files)):
            files.pop(self._expected(path, files, next(members, None)))

    def _check_keys(self, path: str, record: Mapping[str, Any], workspace: Path) -> None:
        """Refuses numbers under the key of another configuration."""
        steps: Sequence[Mapping[str, Any]] = [record]
        if is_bundle(path):
            try:
                steps = _members(workspace / MEMBERS)
            except (OSError, pa.ArrowException, ValueError, KeyError, RecursionError) as error:
                raise self.refused(f"{path}/{MEMBERS}", f"it cannot be read: {error}") from None
            if [step["key"] for step in steps] != record["members"]:
                raise self.refused(f"{path}/{MEMBERS}", "other members than the record lists")
        for step in steps:
            try:
                key = digest({name: step[name] for name in _IDENTITY if name != "key"})
                are_keys = all(isinstance(of, str) for of in step["inputs"].values())
            except (KeyError, TypeError, AttributeError, RecursionError):
                key, are_keys = None, False
            if key != step["key"] or not are_keys:
                raise self.refused(path, f"{step['key']} is not the key of its configuration")

    def _read_file(self, member: Member) -> None:
        study = self._study
        if member.name in (study_file(study), plan_file(study)):
            self._files[member.name] = self._whole(member, LARGEST_CELLS)
        elif member.name in {file(study) for file in TABLES}:
            self._with_trained |= member.name == TABLES[-1](study)
        else:
            raise self.refused(member.name, "no file of an archive of export")

    def finish(self) -> Imported:
        """Writes the study and its tables."""
        study, store = self._study, self._store
        cells, plan = (self._files.get(file(study)) for file in (study_file, plan_file))
        for name, content in self._files.items():
            self._json(name, content)
        try:
            read = study_of(cells, plan)
        except ValueError as error:
            raise self.refused(f"study {study}", str(error)) from None
        notes: list[str] = []
        with store.writing_errors():
            for path, content in self._files.items():
                (present,) = store.backend.read([path])
                if present is None:
                    store.backend.write(path, content)
                elif present != content:
                    notes.append(f"{store.location(path)} is there with other content and stays")
        if cells is None or notes:
            notes.append(f"no tables were written; running study {study} writes them")
        else:
            notes += self._write_tables(read.cells or [], self._json(study_file(study), cells))
        return Imported(study, self._committed, self._present, notes)

    def _write_tables(self, cells: list[dict[str, Any]], saved: dict[str, Any]) -> Iterator[str]:
        """Writes the tables from the artifacts; yields why that is not possible."""
        try:
            if saved.get("schema") != CELLS_SCHEMA:
                raise ValueError(f"cells of schema {saved.get('schema')!r}")
            select, task = saved.get("select"), saved.get("task", SOFT_LABELS_TASK)
            with self._store.writing_errors():
                write_tables(
                    self._store,
                    self._study,
                    cells,
                    select,
                    trained_rows=self._with_trained,
                    task=task,
                )
        except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            reason = line_of(error)
            yield f"no tables were written ({reason}); running study {self._study} writes them"

    def _whole(self, member: Member, most: int) -> bytes:
        if member.size > most:
            raise self.refused(member.name, f"{member.size} bytes, expected at most {most}")
        pieces = []
        while chunk := member.content.read(CHUNK_BYTES):
            pieces.append(chunk)
        return b"".join(pieces)

    def _json(self, name: str, content: bytes) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self.refused(name, "no JSON object")
        return value


def _members(path: Path) -> list[dict[str, Any]]:
    """Kind, key, version, configuration and inputs of a bundle's members.

    Raises:
        ValueError: The texts are too long: a dictionary may repeat a long one a million times.
    """
    texts = ("config", "inputs")
    with parquet.ParquetFile(path, read_dictionary=[*texts, "kind", "key"]) as file:
        if file.metadata.num_rows * len(_IDENTITY) > LARGEST_MEMBERS:
            raise ValueError("too many members")
        table = file.read(list(_IDENTITY), use_threads=False)
    total = 0
    for column in table.columns:
        for chunk in column.chunks:
            if isinstance(chunk, pa.DictionaryArray):
                lengths = pc.binary_length(chunk.dictionary)
                total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if total > LARGEST_MEMBERS:
        raise ValueError(f"texts of {size_text(total)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    parse: Callable[[str], Any] = json.loads
    return [{**row, **{name: parse(row[name]) for name in texts}} for row in rows]
