"""A damaged file of a store is made again, or reported with what to delete; it is never used."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError
from w2s_ray.store.identity import Identity

MakeStep = Callable[..., Identity]
Overwrite = Callable[[Store, str, Callable[[bytes], bytes]], None]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "cut after an inner object": lambda content: content[: content.rindex(b"},") + 1],
    "zeros": lambda content: bytes(len(content)),
    "no text": lambda content: b"\xff\xfe" + content[2:-9] + bytes(9),
    "no object": lambda content: b"[]",
}


def commit(store: Store, step: Identity, text: str) -> None:
    with store.draft(step, {}) as draft:
        (draft.folder / "head.bin").write_text(text)
        (draft.folder / "notes.txt").write_text("notes")


@pytest.fixture
def overwrite(raw: Any) -> Overwrite:
    def change(store: Store, path: str, changed: Callable[[bytes], bytes]) -> None:
        files = raw(store.backend)
        files.write(path, changed(files.read(path)))

    return change


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_step_whose_record_is_damaged_is_made_again(
    store: Store, make_step: MakeStep, overwrite: Overwrite, damage: Callable[[bytes], bytes]
) -> None:
    commit(store, make_step(), "first")
    assert set(store.finished()) == {"a1"}
    overwrite(store, "student/hh-kl-a1/record.json", damage)
    assert not store.has("a1")
    assert store.records(["a1"]) == {}
    with pytest.raises(KeyError):
        store.artifact("a1")
    if store.uri.startswith("/"):
        assert store.finished() == {}
    commit(store, make_step(), "second")
    assert set(store.finished()) == set(store.records(["a1"])) == {"a1"}
    assert (store.artifact("a1").folder / "head.bin").read_text() == "second"


def test_a_record_that_another_program_wrote_is_one(local: Store, make_step: MakeStep) -> None:
    commit(local, make_step(), "first")
    record = Path(local.uri, "student/hh-kl-a1/record.json")
    record.write_bytes(record.read_bytes() + b"\n")
    assert set(local.finished()) == {"a1"}
    commit(local, make_step(), "second")
    assert (local.artifact("a1").folder / "head.bin").read_text() == "first"


def test_a_damaged_record_does_not_hide_a_whole_one(
    store: Store, make_step: MakeStep, overwrite: Overwrite
) -> None:
    """A slug can change; the key is what counts."""
    commit(store, make_step(slug="a"), "first")
    overwrite(store, "student/a-a1/record.json", lambda content: b"x" + content)
    commit(store, make_step(slug="b"), "second")
    store.finished()
    assert (store.artifact("a1").folder / "head.bin").read_text() == "second"


def test_a_damaged_file_is_named_with_its_folder(
    store: Store, make_step: MakeStep, raw: Any, tmp_path: Path
) -> None:
    commit(store, make_step(), "content")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # as on a machine that has no copy
    files = raw(store.backend)
    (path,) = (path for path in files.files() if path.endswith("head.bin"))
    files.write(path, b"con")
    assert store.has("a1")
    folder = store.location("student/hh-kl-a1")
    expected = (
        f"{folder} is damaged: head.bin has 3 bytes, expected 7; "
        "running its study sets the folder aside and makes it again"
    )
    with pytest.raises(StoreError) as refused:
        store.artifact("a1")
    assert str(refused.value) == expected
    with pytest.raises(StoreError) as refused:
        list(store.contents(["a1"], "head.bin"))
    assert str(refused.value) == expected
    assert isinstance(refused.value, InputError), "the user can repair it"
    assert list(store.contents(["a1"], "notes.txt")) == [b"notes"], "which is whole"
    files.delete(path)
    for read in (store.artifact, lambda key: list(store.contents([key], "head.bin"))):
        with pytest.raises(StoreError, match=r"head\.bin is missing"):
            read("a1")
    with pytest.raises(FileNotFoundError, match="hh-kl-a1 has no file never-there"):
        list(store.contents(["a1"], "never-there"))


def test_a_damaged_copy_is_downloaded_again(remote: Store, make_step: MakeStep) -> None:
    commit(remote, make_step(), "content")
    copy = remote.artifact("a1").folder / "head.bin"
    copy.write_text("con")
    assert (remote.artifact("a1").folder / "head.bin").read_text() == "content"


@pytest.mark.parametrize("content", [b"", b'{"key": "a1", "er', b"[]", b'{"key": "a1"}', b"\xff"])
def test_a_damaged_note_on_a_failure_is_ignored(
    store: Store, make_step: MakeStep, overwrite: Overwrite, content: bytes
) -> None:
    store.record_failure(make_step("a1"), "lost")
    store.record_failure(make_step("c3"), "kept")
    overwrite(store, "failures/a1.json", lambda _: content)
    assert set(store.failures()) == {"c3"}
