"""The newest complete checkpoint is found, whatever was cut off, and old ones go.

How training resumes from them is in ``tests/training``.
"""

import pickle
from dataclasses import astuple
from hashlib import sha256

import pytest

from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import KEPT, Checkpoints

LONG = bytes(range(256)) * 32


@pytest.fixture
def checkpoints(store: Store) -> Checkpoints:
    return Checkpoints(store, "abc")


def write(checkpoints: Checkpoints, update: int, name: str, content: bytes) -> None:
    with checkpoints.writing(update, name) as path:
        path.write_bytes(content)


def made(checkpoints: Checkpoints, update: int, **files: bytes) -> None:
    files = files or {"rank0": LONG, "rank1": b"short"}
    for name, content in files.items():
        write(checkpoints, update, name, content)
    described = {n: (len(content), sha256(content).hexdigest()) for n, content in files.items()}
    checkpoints.complete(update, {"loss": [0.5, update]}, described)


def names(checkpoints: Checkpoints) -> list[str]:
    return checkpoints.store.listing(checkpoints.folder)


def newest(checkpoints: Checkpoints) -> int | None:
    latest = checkpoints.latest()
    return latest and latest.update


def test_a_checkpoint_is_what_was_written(checkpoints: Checkpoints) -> None:
    assert checkpoints.latest() is None
    made(checkpoints, 12)
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.update, latest.content, latest.files) == (
        12,
        {"loss": [0.5, 12]},
        {"rank0": sha256(LONG).hexdigest(), "rank1": sha256(b"short").hexdigest()},
    )
    assert all(checkpoints.is_whole(latest, name) for name in latest.files)
    with checkpoints.open_file(12, "rank0") as file:
        assert file.read() == LONG
    assert names(checkpoints) == ["000000012-rank0", "000000012-rank1", "000000012.json"]
    assert checkpoints.folder == "checkpoints/abc"
    manifest = checkpoints.store.location("checkpoints/abc/000000012.json")
    assert astuple(latest)[-1] == manifest, "for people"


def test_nothing_is_a_checkpoint_before_its_manifest(checkpoints: Checkpoints) -> None:
    write(checkpoints, 3, "rank0", LONG)
    assert checkpoints.latest() is None
    made(checkpoints, 2)
    assert newest(checkpoints) == 2


def test_the_newest_is_that_of_most_updates_not_of_the_longest_name(
    checkpoints: Checkpoints,
) -> None:
    for update in (9, 10, 100):
        made(checkpoints, update)
        assert newest(checkpoints) == update


@pytest.mark.parametrize(
    "content",
    [
        LONG[:-1],  # cut off
        LONG + b"x",
        b"",
    ],
    ids=["shorter", "longer", "empty"],
)
def test_a_checkpoint_with_a_file_of_another_size_is_passed_over(
    checkpoints: Checkpoints, content: bytes
) -> None:
    made(checkpoints, 1)
    made(checkpoints, 2)
    write(checkpoints, 2, "rank0", content)
    assert newest(checkpoints) == 1


@pytest.mark.parametrize("place", [0, 4_096, len(LONG) - 1])
def test_a_bit_that_flips_is_noticed_wherever_it_is(checkpoints: Checkpoints, place: int) -> None:
    made(checkpoints, 2)
    damaged = bytearray(LONG)
    damaged[place] ^= 1
    write(checkpoints, 2, "rank0", bytes(damaged))
    latest = checkpoints.latest()
    assert latest is not None
    assert {n for n in latest.files if not checkpoints.is_whole(latest, n)} == {"rank0"}


def test_no_bit_of_a_manifest_may_flip(checkpoints: Checkpoints) -> None:
    made(checkpoints, 2)
    path = f"{checkpoints.folder}/000000002.json"
    (content,) = checkpoints.store.backend.read([path])
    assert content is not None
    found = []
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        checkpoints.store.backend.write(path, bytes(damaged))
        found.append(newest(checkpoints))
    assert set(found) == {None}


@pytest.mark.parametrize("before", [1, 2, 3])
def test_those_before_an_update_are_asked_for(checkpoints: Checkpoints, before: int) -> None:
    made(checkpoints, 1)
    made(checkpoints, 2)
    latest = checkpoints.latest(before)
    assert (latest and latest.update) == {1: None, 2: 1, 3: 2}[before]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b'{"files": {"rank0": [1]}, "content": 1}']
)
def test_a_damaged_manifest_is_passed_over(checkpoints: Checkpoints, content: bytes) -> None:
    made(checkpoints, 1)
    made(checkpoints, 2)
    with checkpoints.store.writing(f"{checkpoints.folder}/000000002.json") as path:
        path.write_bytes(content)
    assert newest(checkpoints) == 1


def test_a_file_that_is_gone_leaves_the_one_before(checkpoints: Checkpoints) -> None:
    made(checkpoints, 1)
    made(checkpoints, 2)
    checkpoints.store.remove(f"{checkpoints.folder}/000000002-rank1")
    assert newest(checkpoints) == 1


def test_two_are_kept_and_other_files_are_left_alone(checkpoints: Checkpoints) -> None:
    with checkpoints.store.writing(f"{checkpoints.folder}/notes.json") as path:
        path.write_text("{}")
    for update in range(1, 6):
        made(checkpoints, update)
    kept = {name[:9] for name in names(checkpoints)} - {"notes.jso"}
    assert kept == {f"{update:09}" for update in range(6 - KEPT, 6)}
    assert "notes.json" in names(checkpoints)


def test_what_lies_behind_a_new_checkpoint_goes(checkpoints: Checkpoints) -> None:
    """It was damaged, or the run would have resumed from it."""
    for update in (4, 6, 8):
        made(checkpoints, update)
    made(checkpoints, 7)
    assert sorted({name[:9] for name in names(checkpoints)}) == ["000000006", "000000007"]


def test_a_half_written_checkpoint_goes_with_the_next(checkpoints: Checkpoints) -> None:
    made(checkpoints, 1)
    write(checkpoints, 2, "rank0", LONG)
    made(checkpoints, 3)
    assert sorted({name[:9] for name in names(checkpoints)}) == ["000000001", "000000003"]


def test_old_ones_that_cannot_be_removed_do_no_harm(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Store, path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(Store, "remove", refuse)
    for update in (1, 2, 3):
        made(checkpoints, update)
    assert newest(checkpoints) == 3


def test_an_old_checkpoint_loses_its_manifest_first(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []
    remove = Store.remove

    def watch(self: Store, path: str) -> None:
        removed.append(path.rpartition("/")[2])
        remove(self, path)

    monkeypatch.setattr(Store, "remove", watch)
    for update in (1, 2, 3, 4):
        made(checkpoints, update)
    assert removed[0] == "000000001.json" and removed[3] == "000000002.json"
    assert sorted(removed) == [
        *("000000001-rank0", "000000001-rank1", "000000001.json"),
        *("000000002-rank0", "000000002-rank1", "000000002.json"),
    ]


def test_all_go_at_once_and_those_of_another_step_stay(checkpoints: Checkpoints) -> None:
    other = Checkpoints(checkpoints.store, "abcd")
    made(checkpoints, 1)
    made(other, 1)
    checkpoints.discard()
    assert checkpoints.latest() is None and names(checkpoints) == []
    assert newest(other) == 1
    checkpoints.discard()


def test_checkpoints_travel_to_another_process(local: Store) -> None:
    made(Checkpoints(local, "abc"), 5)
    assert newest(pickle.loads(pickle.dumps(Checkpoints(local, "abc")))) == 5
