"""A damaged file of a store is made again, or reported with what to delete; it is never used."""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from w2s_ray.errors import InputError
from w2s_ray.store import artifacts, file_digests
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError
from w2s_ray.store.identity import Identity
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.records import record_bytes
from w2s_ray.store.system import System

MakeStep = Callable[..., Identity]
Overwrite = Callable[[Store, str, Callable[[bytes], bytes]], None]


def another(digit: bytes) -> bytes:
    return b"1" if digit == b"0" else b"0"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "cut after an inner object": lambda content: content[: content.rindex(b"},") + 1],
    "zeros": lambda content: bytes(len(content)),
    "no text": lambda content: b"\xff\xfe" + content[2:-9] + bytes(9),
    "no object": lambda content: b"[]",
    "an empty object": lambda content: b"{}",
    "deep": lambda content: b"[" * 100_000,
    "an edited number": lambda content: content.replace(b'"accuracy": 0.5', b'"accuracy": 0.6'),
    "of another key": lambda content: content.replace(b'"a1"', b'"a2"'),
    "of another step": lambda content: record_bytes({**json.loads(content), "key": "a2"}),
    "of another kind": lambda content: record_bytes({**json.loads(content), "kind": "weak"}),
    "without its last line": lambda content: content[: content.rindex(b",\n")] + b"\n}",
    "with another last line": lambda content: content[:-4] + another(content[-4:-3]) + b'"\n}',
}


def commit(store: Store, step: Identity, text: str) -> None:
    with store.draft(step, {}) as draft:
        (draft.folder / "head.bin").write_text(text)
        (draft.folder / "notes.txt").write_text("notes")
        draft.metrics["accuracy"] = 0.5


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
    (said,) = store.checked(["a1"]).damaged
    assert f"{store.location('student/hh-kl-a1')} is damaged: record.json is " in str(said)
    commit(store, make_step(), "second")
    assert set(store.finished()) == set(store.records(["a1"])) == {"a1"}
    assert (store.artifact("a1").folder / "head.bin").read_text() == "second"
    assert len(store.listing("damaged/student")) == 1, "it is kept"


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


@pytest.mark.parametrize("damage", ["flipped", "a folder"])
def test_a_file_of_the_recorded_size_is_compared_by_its_digest(
    local: Store, make_step: MakeStep, damage: str
) -> None:
    commit(local, make_step(), "content")
    artifact = local.artifact("a1")
    assert artifact.file("head.bin").read_text() == "content"
    stamp = os.stat(artifact.file("head.bin")).st_mtime_ns
    if damage == "flipped":
        (artifact.folder / "head.bin").write_text("contenu")
        os.utime(artifact.folder / "head.bin", ns=(stamp, stamp))
    else:
        (artifact.folder / "head.bin").unlink()
        (artifact.folder / "head.bin").mkdir()
    expected = "the recorded size and another content" if damage == "flipped" else "is missing"
    with pytest.raises(StoreError, match=rf"is damaged: head\.bin (has )?{expected}"):
        local.artifact("a1").file("head.bin")
    assert artifact.file("notes.txt").read_text() == "notes", "which is whole"
    with pytest.raises(FileNotFoundError, match="no file other"):
        artifact.file("other")


def test_a_second_read_of_a_settled_file_costs_no_digest(
    local: Store, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(local, make_step(), "content")
    artifact = local.artifact("a1")
    os.utime(artifact.folder / "head.bin", ns=(0, 0))  # changed long ago
    artifact.file("head.bin")
    monkeypatch.setattr(file_digests, "file_digest", None)
    artifact.file("head.bin")
    with pytest.raises(TypeError):
        artifact.file("notes.txt")


def test_a_flipped_object_is_noticed_when_it_is_downloaded(
    remote: Store, make_step: MakeStep, raw: Any, tmp_path: Path
) -> None:
    commit(remote, make_step(), "content")
    assert remote.artifact("a1").file("head.bin").read_text() == "content"
    shutil.rmtree(tmp_path / "cache")
    files = raw(remote.backend)
    (path,) = (path for path in files.files() if path.endswith("head.bin"))
    files.write(path, b"contenu")
    for read in (remote.artifact, lambda key: list(remote.contents([key], "head.bin"))):
        with pytest.raises(StoreError, match=r"head\.bin has the recorded size and another"):
            read("a1")


def test_records_without_digests_are_read_as_before(store: Store, make_step: MakeStep) -> None:
    commit(store, make_step(), "content")
    record = {k: v for k, v in store.record("a1").items() if k not in ("digests", "digest")}
    store.write_json("student/hh-kl-a1/record.json", record)
    assert store.record("a1") == record
    if store.uri.startswith("/"):  # objects lie in a folder named by their record
        assert store.artifact("a1").file("head.bin").read_text() == "content"
        assert list(store.contents(["a1"], "head.bin")) == [b"content"]


def damage_of(store: Store, raw: Any) -> StoreError:
    """Damages the file of the step a1, and reads it."""
    files = raw(store.backend)
    (location,) = store.file_locations(["a1"], "head.bin").values()
    files.write(location.removeprefix(store.location("")), b"xxxxx")
    with pytest.raises(StoreError) as refused:
        list(store.contents(["a1"], "head.bin"))
    return refused.value


def test_what_is_set_aside_is_absent_and_kept(store: Store, make_step: MakeStep, raw: Any) -> None:
    for number in (1, 2):
        commit(store, make_step(), "first")
        content = store.record("a1")
        aside = store.set_aside(damage_of(store, raw))
        assert aside is not None and aside.startswith(store.location("damaged/student/hh-kl-a1-"))
        assert store.finished() == {} and not store.has("a1") and store.claimed() == set()
        names = store.listing("damaged/student")
        assert len(names) == number
        kept = [store.read_json(f"damaged/student/{name}/record.json") for name in names]
        assert content in kept
    commit(store, make_step(), "second")
    assert list(store.contents(["a1"], "head.bin")) == [b"second"]


def test_an_artifact_that_was_made_again_in_the_meantime_stays(
    store: Store, make_step: MakeStep, raw: Any
) -> None:
    commit(store, make_step(), "first")
    damage = damage_of(store, raw)
    assert store.set_aside(damage) is not None
    assert store.set_aside(damage) is None, "it is gone"
    commit(store, make_step(), "again")
    assert store.set_aside(damage) is None
    assert list(store.contents(["a1"], "head.bin")) == [b"again"]


def test_of_many_that_find_the_same_damage_one_sets_it_aside(
    local: Store, make_step: MakeStep, raw: Any
) -> None:
    """Each makes the step again, as a study does; all have the one artifact that was committed."""
    commit(local, make_step(), "first")
    damage = damage_of(local, raw)
    together = Barrier(8)

    def repair(number: int) -> str | None:
        together.wait()
        aside = local.set_aside(damage)
        with local.claim("a1") as held:
            if held and not local.has("a1"):
                commit(local, make_step(), f"again {number}")
        return aside

    with ThreadPoolExecutor(8) as pool:
        moved = [aside for aside in pool.map(repair, range(8)) if aside is not None]
    assert len(moved) == 1 == len(local.listing("damaged/student"))
    (content,) = local.contents(["a1"], "head.bin")
    assert content.startswith(b"again")


def test_what_is_held_by_another_process_is_not_moved(
    local: Store, make_step: MakeStep, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(local, make_step(), "first")
    damage = damage_of(local, raw)
    waits: list[float] = []
    with ExitStack() as holder:
        assert holder.enter_context(local.claim("a1"))

        def wait(seconds: float) -> None:
            waits.append(seconds)
            assert local.has("a1")
            holder.close()

        monkeypatch.setattr(artifacts.time, "sleep", wait)
        assert local.set_aside(damage) is not None
    assert len(waits) == 1


class StoppedBeforeItMoves(System):
    """Others act, once, between a look at a folder and its move."""

    def __init__(self, others: Callable[[], None]) -> None:
        self.others: Callable[[], None] | None = others

    def rename(self, source: str | Path, target: str | Path) -> None:
        others, self.others = self.others, None
        if others is not None:
            others()
        super().rename(source, target)


def test_who_was_stopped_before_it_moves_puts_back_what_was_made_again(
    local: Store, make_step: MakeStep, raw: Any
) -> None:
    """Its lease ran out: without a claim, others set the damaged one aside and made it again."""
    commit(local, make_step(), "first")
    damage = damage_of(local, raw)

    def others() -> None:
        local.backend.set_aside(damage.path, damage.record)
        commit(local, make_step(), "again")

    stopped = Store(LocalBackend(Path(local.backend.uri), StoppedBeforeItMoves(others)))
    assert stopped.set_aside(damage) is None
    assert list(local.contents(["a1"], "head.bin")) == [b"again"]
    assert len(local.listing("damaged/student")) == 1


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
