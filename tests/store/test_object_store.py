"""What only an object store can get wrong: half uploads, mixed uploads, stale copies."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError
from w2s_ray.store.identity import Identity

MakeStep = Callable[..., Identity]
Elsewhere = Callable[[Store, str], Store]
RECORD = "student/hh-kl-a1/record.json"


def commit(store: Store, step: Identity, text: str) -> None:
    with store.draft(step, {}) as draft:
        (draft.folder / "weights.bin").write_text(text)


def content(store: Store, key: str = "a1") -> str:
    return (store.artifact(key).folder / "weights.bin").read_text()


def test_files_without_a_record_are_no_artifact(
    remote: Store, make_step: MakeStep, raw: Any
) -> None:
    commit(remote, make_step(), "x")
    raw(remote.backend).delete(RECORD)
    assert len(raw(remote.backend).files()) == 1
    assert remote.finished() == {}
    assert not remote.has("a1")
    with pytest.raises(KeyError):
        remote.artifact("a1")
    commit(remote, make_step(), "y")
    assert content(remote) == "y"


def test_another_machine_downloads_once(
    remote: Store, make_step: MakeStep, raw: Any, elsewhere: Elsewhere
) -> None:
    commit(remote, make_step(), "x")
    other = elsewhere(remote, "other")
    assert content(other) == "x"
    files = raw(remote.backend)
    for path in files.files():
        if path.endswith("weights.bin"):
            files.delete(path)
    assert content(other) == "x", "from its copy"
    with pytest.raises(StoreError, match=r"weights\.bin is missing"):
        content(elsewhere(remote, "third"))


def test_a_copy_of_an_artifact_that_was_made_anew_is_not_used(
    remote: Store, make_step: MakeStep, raw: Any, elsewhere: Elsewhere
) -> None:
    commit(remote, make_step(), "old")
    other = elsewhere(remote, "other")
    assert content(other) == "old"
    raw(remote.backend).delete_folder("student")
    assert not other.has("a1")
    commit(remote, make_step(), "new")
    assert content(other) == "new"


def test_a_truncated_object_is_noticed(
    remote: Store, make_step: MakeStep, raw: Any, elsewhere: Elsewhere, tmp_path: Any
) -> None:
    commit(remote, make_step(), "whole")
    files = raw(remote.backend)
    (weights,) = [path for path in files.files() if path.endswith("weights.bin")]
    files.write(weights, b"who")
    with pytest.raises(StoreError, match=r"weights\.bin has 3 bytes, expected 5"):
        elsewhere(remote, "other").artifact("a1")
    assert not list((tmp_path / "other").rglob("weights.bin"))


def test_the_record_names_its_own_files(remote: Store, make_step: MakeStep, raw: Any) -> None:
    """Two racing uploads are both complete when the last record is written: they share no file."""
    commit(remote, make_step(), "first")
    files = raw(remote.backend)
    first = files.read(RECORD)
    files.delete(RECORD)  # the second process had checked before the record was written
    commit(remote, make_step(), "second")
    assert content(remote) == "second"
    files.write(RECORD, first)
    assert content(remote) == "first"


def test_of_contenders_that_arrive_together_one_holds_the_key(
    remote: Store, elsewhere: Elsewhere
) -> None:
    """All of them see the key unclaimed and write; only then do they see each other.

    Without exclusive creation, a contender that is suspended between the two steps may lead to two
    holders; a claim on such a store only saves work. It must never be none.
    """
    together, finished = Barrier(4), Barrier(4)

    def contend(number: int) -> bool:
        store = elsewhere(remote, str(number))
        together.wait()
        with store.claim("a1") as held:
            finished.wait()
            return held

    with ThreadPoolExecutor(4) as pool:
        assert any(pool.map(contend, range(4)))


def test_only_the_first_of_two_contenders_holds(
    remote: Store, raw: Any, elsewhere: Elsewhere
) -> None:
    other = elsewhere(remote, "other")
    with remote.claim("a1") as held:
        assert held
        with other.claim("a1") as also:
            assert not also
    with other.claim("a1") as held:
        assert held
    assert raw(remote.backend).files() == []
