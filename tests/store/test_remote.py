"""What only an object store can get wrong: half uploads, mixed uploads, stale copies."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from pyarrow import fs

from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity as Step

MakeStep = Callable[..., Step]


def commit(store: Store, step: Step, text: str) -> None:
    with store.draft(step, {}) as draft:
        (draft.folder / "weights.bin").write_text(text)


def content(store: Store, key: str = "a1") -> str:
    return (store.artifact(key).folder / "weights.bin").read_text()


def objects(store: Store) -> list[str]:
    selector = fs.FileSelector(store._root, recursive=True)
    infos = store._filesystem.get_file_info(selector)
    return [info.path for info in infos if info.type == fs.FileType.File]


def elsewhere(store: Store, cache: Path) -> Store:
    """The same bucket seen from another machine."""
    return Store(store._filesystem, store._root, cache=cache)


def test_files_without_a_record_are_no_artifact(remote: Store, make_step: MakeStep) -> None:
    commit(remote, make_step(), "x")
    (record,) = [path for path in objects(remote) if path.endswith("record.json")]
    remote._filesystem.delete_file(record)
    assert len(objects(remote)) == 1
    assert remote.finished() == {}
    assert not remote.has("a1")
    with pytest.raises(KeyError):
        remote.artifact("a1")
    commit(remote, make_step(), "y")
    assert content(remote) == "y"


def test_another_machine_downloads_once(remote: Store, make_step: MakeStep, tmp_path: Path) -> None:
    commit(remote, make_step(), "x")
    other = elsewhere(remote, tmp_path / "other")
    assert content(other) == "x"
    for path in objects(remote):
        if path.endswith("weights.bin"):
            remote._filesystem.delete_file(path)
    assert content(other) == "x", "from its copy"
    with pytest.raises(FileNotFoundError):
        content(elsewhere(remote, tmp_path / "third"))


def test_a_copy_of_an_artifact_that_was_made_anew_is_not_used(
    remote: Store, make_step: MakeStep, tmp_path: Path
) -> None:
    commit(remote, make_step(), "old")
    other = elsewhere(remote, tmp_path / "other")
    assert content(other) == "old"
    remote._filesystem.delete_dir(f"{remote._root}/student")
    assert not other.has("a1")
    commit(remote, make_step(), "new")
    assert content(other) == "new"


def test_a_truncated_object_is_noticed(remote: Store, make_step: MakeStep, tmp_path: Path) -> None:
    commit(remote, make_step(), "whole")
    (weights,) = [path for path in objects(remote) if path.endswith("weights.bin")]
    with remote._filesystem.open_output_stream(weights) as stream:
        stream.write(b"who")
    other = elsewhere(remote, tmp_path / "other")
    with pytest.raises(OSError, match="not the 5 bytes"):
        other.artifact("a1")
    assert not list((tmp_path / "other").rglob("weights.bin"))


def test_the_record_that_stands_names_its_own_files(remote: Store, make_step: MakeStep) -> None:
    """Both of two racing uploads are complete at the last record's writing: no file is shared."""
    commit(remote, make_step(), "first")
    (record,) = [path for path in objects(remote) if path.endswith("record.json")]
    with remote._filesystem.open_input_stream(record) as stream:
        first = stream.read()
    remote._filesystem.delete_file(record)  # the second driver looked before this one was there
    commit(remote, make_step(), "second")
    assert content(remote) == "second"
    with remote._filesystem.open_output_stream(record) as stream:
        stream.write(first)
    assert content(remote) == "first"


def test_of_contenders_that_arrive_together_one_goes_on(remote: Store, tmp_path: Path) -> None:
    """All of them find the key free and write; only then do they look at each other.

    Without exclusive creation a contender that is held up between the two may make it two that
    go on; a claim on such a store only saves work. It must never be none.
    """
    together, finished = Barrier(4), Barrier(4)

    def contend(number: int) -> bool:
        store = elsewhere(remote, tmp_path / str(number))
        together.wait()
        with store.claim("a1") as held:
            finished.wait()
            return held

    with ThreadPoolExecutor(4) as pool:
        assert any(pool.map(contend, range(4)))


def test_only_the_first_of_two_contenders_holds(remote: Store, tmp_path: Path) -> None:
    other = elsewhere(remote, tmp_path / "other")
    with remote.claim("a1") as held:
        assert held
        with other.claim("a1") as also:
            assert not also
    with other.claim("a1") as held:
        assert held
    assert objects(remote) == []
