"""A damaged file of a store is made again, or named with what to delete; it is never believed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity as Step
from w2s_ray.store.local import StoreError

MakeStep = Callable[..., Step]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "cut after an inner object": lambda content: content[: content.rindex(b"},") + 1],
    "zeros": lambda content: bytes(len(content)),
    "no text": lambda content: b"\xff\xfe" + content[2:-9] + bytes(9),
    "no object": lambda content: b"[]",
}


def commit(store: Store, step: Step, text: str) -> None:
    with store.draft(step, {}) as draft:
        (draft.folder / "head.bin").write_text(text)
        (draft.folder / "notes.txt").write_text("notes")


def overwrite(store: Store, path: str, change: Callable[[bytes], bytes]) -> None:
    with store._filesystem.open_input_stream(f"{store._root}/{path}") as stream:
        content = change(stream.read())
    with store._filesystem.open_output_stream(f"{store._root}/{path}") as stream:
        stream.write(content)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_step_whose_record_is_damaged_is_made_again(
    store: Store, make_step: MakeStep, damage: Callable[[bytes], bytes]
) -> None:
    commit(store, make_step(), "first")
    assert set(store.finished()) == {"a1"}
    overwrite(store, "student/hh-kl-a1/record.json", damage)
    assert not store.has("a1")
    assert store.records(["a1"]) == {}
    with pytest.raises(KeyError):
        store.artifact("a1")
    if isinstance(store._filesystem, fs.LocalFileSystem):
        assert store.finished() == {}
    commit(store, make_step(), "second")
    assert set(store.finished()) == set(store.records(["a1"])) == {"a1"}
    assert (store.artifact("a1").folder / "head.bin").read_text() == "second"


def test_a_record_that_another_program_wrote_is_one(local: Store, make_step: MakeStep) -> None:
    commit(local, make_step(), "first")
    overwrite(local, "student/hh-kl-a1/record.json", lambda content: content + b"\n")
    assert set(local.finished()) == {"a1"}
    commit(local, make_step(), "second")
    assert (local.artifact("a1").folder / "head.bin").read_text() == "first"


def test_a_damaged_record_does_not_hide_a_whole_one(store: Store, make_step: MakeStep) -> None:
    """A slug can change; the key is what counts."""
    commit(store, make_step(slug="a"), "first")
    overwrite(store, "student/a-a1/record.json", lambda content: b"x" + content)
    commit(store, make_step(slug="b"), "second")
    store.finished()
    assert (store.artifact("a1").folder / "head.bin").read_text() == "second"


def test_a_damaged_file_is_named_with_its_folder(local: Store, make_step: MakeStep) -> None:
    commit(local, make_step(), "content")
    folder = Path(local.uri, "student/hh-kl-a1")
    (folder / "head.bin").write_text("con")
    assert local.has("a1")
    expected = (
        f"{folder} is damaged: head.bin has 3 bytes, expected 7; "
        f"delete the folder {folder} and run again"
    )
    with pytest.raises(StoreError) as found:
        local.artifact("a1")
    assert str(found.value) == expected
    with pytest.raises(StoreError) as found:
        list(local.contents(["a1"], "head.bin"))
    assert str(found.value) == expected
    assert isinstance(found.value, InputError), "the user can mend it"
    assert list(local.contents(["a1"], "notes.txt")) == [b"notes"], "which is whole"
    (folder / "head.bin").unlink()
    with pytest.raises(StoreError, match=r"head\.bin is missing"):
        local.artifact("a1")
    with pytest.raises(FileNotFoundError):
        list(local.contents(["a1"], "never-there"))


def test_a_damaged_copy_is_downloaded_again(remote: Store, make_step: MakeStep) -> None:
    commit(remote, make_step(), "content")
    copy = remote.artifact("a1").folder / "head.bin"
    copy.write_text("con")
    assert (remote.artifact("a1").folder / "head.bin").read_text() == "content"


@pytest.mark.parametrize("content", [b"", b'{"key": "a1", "er', b"[]", b'{"key": "a1"}', b"\xff"])
def test_a_damaged_note_of_a_failure_is_passed_over(
    store: Store, make_step: MakeStep, content: bytes
) -> None:
    store.record_failure(make_step("a1"), "lost")
    store.record_failure(make_step("c3"), "kept")
    overwrite(store, "failures/a1.json", lambda _: content)
    assert set(store.failures()) == {"c3"}
