"""The promises of ``Backend``, for every backend: files and folders appear whole or not at all."""

import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from w2s_ray.store import system
from w2s_ray.store.backend import Backend, StoreError
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.names import key_of
from w2s_ray.store.records import record_bytes, sizes_below

FOLDER = "student/hh-kl-a1"
RECORD = f"{FOLDER}/record.json"
Seen = Callable[[Backend], Any]


def commit(backend: Backend, path: str = FOLDER, text: str = "content") -> bytes:
    """Commit two files, one of them in a subfolder; returns the record."""
    parent, _, name = path.partition("/")
    workspace = backend.workspace(parent, name)
    (workspace / "model").mkdir()
    (workspace / "model" / "weights.bin").write_text(text)
    (workspace / "notes.txt").write_text(text)
    said = {"text": text, "kind": parent, "key": key_of(path), "files": sizes_below(workspace)}
    record = record_bytes(said)
    backend.commit(workspace, path, record)
    return record


def record_of(backend: Backend, path: str = FOLDER) -> bytes:
    (record,) = backend.read([f"{path}/record.json"])
    assert record is not None
    return record


def text_of(backend: Backend, path: str = FOLDER) -> set[str]:
    """The texts of the record and of the files, read in both ways."""
    record = record_of(backend, path)
    copy = backend.local_copy(path, record)
    names = ("model/weights.bin", "notes.txt")
    contents = backend.read([backend.file_in(path, record, name) for name in names])
    return {
        record.decode().split('"')[3],
        *((copy / name).read_text() for name in names),
        *(content.decode() for content in contents if content is not None),
    }


def test_an_empty_backend_has_nothing_and_makes_nothing(backend: Backend, raw: Seen) -> None:
    assert list(backend.folders()) == list(backend.committed()) == []
    assert backend.listing("") == backend.listing("failures") == []
    assert backend.read([]) == []
    assert backend.read(["failures/a.json", "b/c/d"]) == [None, None]
    assert backend.claimed() == set()
    backend.remove("failures/a.json")
    backend.discard("parts/a1")
    with pytest.raises(FileNotFoundError):
        backend.open_file("results/hh.parquet")
    assert raw(backend).files() == []


def test_a_committed_folder_has_its_files_and_its_record(backend: Backend) -> None:
    record = commit(backend)
    assert list(backend.folders()) == list(backend.committed()) == [FOLDER]
    assert record_of(backend) == record
    assert text_of(backend) == {"content"}
    with backend.open_file(RECORD) as file:
        file.seek(2)
        assert file.read() == record[2:]


def test_a_folder_is_not_there_before_it_is_committed(backend: Backend) -> None:
    workspace = backend.workspace("student", "a1")
    assert list(workspace.iterdir()) == []
    (workspace / "weights.bin").write_text("half")
    assert list(backend.folders()) == list(backend.committed()) == []
    assert backend.listing("student") == []


def test_a_second_commit_leaves_the_first_as_it_is(backend: Backend) -> None:
    first = commit(backend, text="first")
    commit(backend, text="second")
    assert record_of(backend) == first
    assert text_of(backend) == {"first"}


BAD_RECORDS = [b"", b'{"half', b"[]", None]


@pytest.mark.parametrize("content", BAD_RECORDS, ids=repr)
def test_a_folder_without_a_readable_record_is_replaced(
    backend: Backend, raw: Seen, content: bytes | None
) -> None:
    raw(backend).write(f"{FOLDER}/weights.bin", b"half of a copy")
    if content is not None:
        raw(backend).write(RECORD, content)
    if not content:
        assert list(backend.committed()) == []
    commit(backend)
    assert list(backend.committed()) == [FOLDER]
    assert text_of(backend) == {"content"}
    aside = [path for path in raw(backend).files() if path.startswith("damaged/")]
    assert bool(aside) == (content is not None), "a damaged record is kept"


@pytest.mark.parametrize("content", BAD_RECORDS, ids=repr)
def test_also_where_two_folders_cannot_change_places(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "_RENAMEAT2", None)
    backend = LocalBackend(tmp_path)
    (tmp_path / FOLDER).mkdir(parents=True)
    if content is not None:
        (tmp_path / RECORD).write_bytes(content)
    (tmp_path / FOLDER / "weights.bin").write_bytes(b"half of a copy")
    commit(backend)
    assert text_of(backend) == {"content"}
    aside = sorted(path.name for path in tmp_path.glob("damaged/student/*/*"))
    assert aside == ([] if content is None else ["record.json", "weights.bin"])


def test_concurrent_commits_never_mix_their_files(backend: Backend) -> None:
    together = Barrier(4)

    def race(number: int) -> None:
        other = pickle.loads(pickle.dumps(backend))
        together.wait()
        commit(other, text=f"text {number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(race, range(4)))
    assert list(backend.committed()) == [FOLDER]
    assert len(text_of(backend)) == 1


def test_only_folders_two_levels_down_can_be_committed(backend: Backend, raw: Seen) -> None:
    commit(backend)
    for path in ("record.json", "student/record.json", "a/b/c/record.json", ".ray/x/record.json"):
        raw(backend).write(path, b"{}")
    assert list(backend.committed()) == [FOLDER]
    assert {FOLDER, "a/b"} <= set(backend.folders())
    assert not any(path.startswith(".") for path in backend.folders())


@pytest.mark.parametrize(
    ("change", "damage"),
    [("delete", "notes.txt is missing"), ("shorten", "notes.txt has 3 bytes, expected 7")],
)
def test_a_damaged_folder_is_named_with_what_differs(
    backend: Backend, raw: Seen, tmp_path: Path, change: str, damage: str
) -> None:
    record = commit(backend)
    (path,) = (path for path in raw(backend).files() if path.endswith("notes.txt"))
    if change == "delete":
        raw(backend).delete(path)
    else:
        raw(backend).write(path, b"con")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # as on a machine that has no copy
    with pytest.raises(StoreError) as refused:
        backend.local_copy(FOLDER, record)
    folder = f"{backend.uri}/{FOLDER}"
    assert str(refused.value) == (
        f"{folder} is damaged: {damage}; running its study sets the folder aside and makes it again"
    )


def test_a_file_is_replaced_whole_at_the_end_of_the_block(backend: Backend) -> None:
    backend.write("results/hh.parquet", b"old")
    with backend.writing("results/hh.parquet") as path:
        path.write_bytes(b"new")
        assert backend.read(["results/hh.parquet"]) == [b"old"]
        assert backend.listing("results") == ["hh.parquet"]
    assert backend.read(["results/hh.parquet"]) == [b"new"]
    backend.write("results/hh.parquet", b"")
    assert backend.read(["results/hh.parquet"]) == [b""]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(
    backend: Backend, raw: Seen
) -> None:
    backend.write("results/hh.parquet", b"old")
    with pytest.raises(ValueError, match="half"), backend.writing("results/hh.parquet") as path:
        raise ValueError(f"wrote {path.write_text('half')} characters, half of the table")
    assert backend.read(["results/hh.parquet"]) == [b"old"]
    assert raw(backend).files() == ["results/hh.parquet"]


def test_contents_come_in_the_order_of_the_paths(backend: Backend) -> None:
    for name in ("a", "b", "c"):
        backend.write(f"parts/{name}", name.encode())
    paths = ["parts/c", "parts/missing", "parts/a", "parts/b", "parts/c"]
    assert backend.read(paths) == [b"c", None, b"a", b"b", b"c"]


def test_a_listing_has_files_and_folders_but_no_hidden_names(backend: Backend, raw: Seen) -> None:
    for path in ("parts/b", "parts/a", "parts/c/d/e", "parts/.hidden"):
        raw(backend).write(path, b"x")
    assert backend.listing("parts") == ["a", "b", "c"]
    assert backend.listing("") == ["parts"]
    assert backend.listing("part") == []


def test_removed_and_discarded_is_gone(backend: Backend, raw: Seen) -> None:
    for path in ("parts/a1/x", "parts/a1/y", "parts/a10/x"):
        backend.write(path, b"x")
    backend.remove("parts/a1/x")
    assert backend.listing("parts/a1") == ["y"]
    backend.discard("parts/a1")
    assert raw(backend).files() == ["parts/a10/x"]


def test_a_name_is_held_by_one_at_a_time(backend: Backend) -> None:
    other = pickle.loads(pickle.dumps(backend))
    with backend.claims(["a", "b"]) as held:
        assert held == {"a", "b"}
        assert other.claimed() == {"a", "b"}
        with other.claims(["b", "c"]) as others:
            assert others == {"c"}
    assert backend.claimed() == set()
    with other.claims(["a"]) as held:
        assert held == {"a"}


def test_a_copy_for_another_process_sees_the_same(backend: Backend) -> None:
    commit(backend)
    other = pickle.loads(pickle.dumps(backend))
    assert other.uri == backend.uri
    assert list(other.committed()) == [FOLDER]
    assert text_of(other) == {"content"}
