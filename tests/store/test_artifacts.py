"""An artifact is complete or absent, on a disk and on an object store alike."""

import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testing.calls import calls
from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity
from w2s_ray.store.records import json_bytes
from w2s_ray.store.temporary import remove_abandoned, temporary_name

MakeStep = Callable[..., Identity]


def commit(store: Store, step: Identity, text: str = "content", **metrics: object) -> None:
    with store.draft(step, {"world": 1}) as draft:
        (draft.folder / "model").mkdir()
        (draft.folder / "model" / "weights.bin").write_text(text)
        draft.metrics.update(metrics)


def visible(root: Path) -> set[str]:
    """Every file below a local store, temporary ones too, but for its claims."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_committed_step_is_read_back_with_its_files_and_record(
    store: Store, make_step: MakeStep
) -> None:
    step = make_step("a1", loss="kl")
    assert store.finished() == {}
    assert not store.has("a1")
    commit(store, step, accuracy=0.5)
    assert store.finished() == {"a1": "student/hh-kl-a1"}
    assert store.has("a1")
    artifact = store.artifact("a1")
    assert (artifact.folder / "model" / "weights.bin").read_text() == "content"
    record = artifact.record
    assert record == store.record("a1") == store.records(["zz", "a1"])["a1"]
    assert record["config"] == {"loss": "kl"}
    assert record["inputs"] == {"weak": "b2"}
    assert record["execution"] == {"world": 1}
    assert record["metrics"] == {"accuracy": 0.5}
    assert record["files"] == {"model/weights.bin": 7}
    assert record["provenance"]["pid"] == os.getpid()
    assert list(store.contents(["a1"], "model/weights.bin")) == [b"content"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)])
def test_nothing_remains_of_a_draft_that_raises(
    local: Store, make_step: MakeStep, error: BaseException
) -> None:
    def work() -> None:
        with local.draft(make_step(), {}) as draft:
            (draft.folder / "half").write_text("x")
            raise error

    with pytest.raises(type(error)):
        work()
    assert local.finished() == {}
    assert not any(Path(local.uri, "student").iterdir())
    with pytest.raises(KeyError):
        local.artifact("a1")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, Path("x")])
def test_metrics_that_json_cannot_hold_are_refused_by_name(
    store: Store, make_step: MakeStep, value: object
) -> None:
    with pytest.raises(TypeError, match=r"^metrics\.final_loss: "):
        commit(store, make_step(), final_loss=value)
    assert store.finished() == {}


def test_of_two_drafts_of_one_key_the_first_to_finish_stays(
    store: Store, make_step: MakeStep
) -> None:
    with store.draft(make_step(), {}) as slow:
        (slow.folder / "model").mkdir()
        (slow.folder / "model" / "weights.bin").write_text("slow!")
        commit(store, make_step(), "quick")
        quick = store.record("a1")
    assert store.record("a1") == quick
    assert (store.artifact("a1").folder / "model/weights.bin").read_text() == "quick"
    assert not slow.folder.exists()


def test_a_folder_without_a_record_is_not_read_and_not_in_the_way(
    store: Store, make_step: MakeStep, raw: Any
) -> None:
    raw(store.backend).write("student/hh-kl-a1/weights.bin", b"half of a copy")
    assert store.finished() == {}
    assert not store.has("a1")
    commit(store, make_step())
    assert store.record("a1")["files"] == {"model/weights.bin": 7}
    if store.uri.startswith("/"):
        assert visible(Path(store.uri)) == {
            "student/hh-kl-a1/record.json",
            "student/hh-kl-a1/model/weights.bin",
        }


def test_an_artifact_that_was_removed_is_absent_at_once(
    store: Store, make_step: MakeStep, raw: Any
) -> None:
    commit(store, make_step())
    assert store.has("a1")
    raw(store.backend).delete("student/hh-kl-a1/record.json")
    assert not store.has("a1")
    with pytest.raises(KeyError):
        store.record("a1")


def test_many_artifacts_are_opened_by_one_listing(
    store: Store, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        commit(store, make_step(f"k{number}"), f"{number}")
    listings: list[str] = []
    list_folders = store.backend.folders

    def counted(*without: Container[str]) -> Iterator[str]:
        listings.append("folders")
        return list_folders(*without)

    monkeypatch.setattr(store.backend, "folders", counted)
    artifact = store.artifacts(["k0", "k3", "missing"])
    assert (artifact("k3").folder / "model/weights.bin").read_text() == "3"
    assert artifact("k0") is artifact("k0")
    assert list(store.contents([f"k{n}" for n in range(5)], "model/weights.bin")) == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]
    assert store.finished_among(["k4", "k2", "missing"]) == {"k2", "k4"}
    assert len(listings) == 3
    with pytest.raises(KeyError, match="missing"):
        artifact("missing")


def test_of_two_folders_of_one_key_the_first_that_is_whole_counts(
    store: Store, make_step: MakeStep, raw: Any
) -> None:
    """A slug can change; the key identifies the step."""
    commit(store, make_step(slug="b"), "b")
    raw(store.backend).write("student/1-a1/record.json", b"{}")
    old = {"kind": "student", "key": "a1", "files": {}}  # of a version without digests
    raw(store.backend).write("student/a-a1/record.json", json_bytes(old))
    raw(store.backend).write("student/0-a1/record.json", b"{")
    assert store.record("a1") == old
    raw(store.backend).delete("student/a-a1/record.json")
    assert (store.artifact("a1").folder / "model/weights.bin").read_text() == "b"


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the kernel refuses the write."""
    script = f"""
import resource
from w2s_ray.store.identity import Identity
from w2s_ray.store.artifacts import Store
store = Store.open({str(tmp_path / "store")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))
try:
    with store.draft(Identity("student", "a1", "x", 1, {{}}, {{}}), {{}}) as draft:
        (draft.folder / "weights").write_bytes(bytes(100_000))
except OSError as error:
    print("raised", error.errno)
try:
    with store.draft(Identity("student", "a2", "x", 1, {{}}, {{}}), {{}}) as draft:
        draft.metrics["curve"] = [0.5] * 10_000
except OSError as error:
    print("raised", error.errno)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "raised 27\nraised 27\n"
    assert visible(tmp_path / "store") == set()


def test_a_store_that_cannot_be_written_raises(tmp_path: Path, make_step: MakeStep) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(OSError, match="store"):
        commit(Store.open(tmp_path / "store"), make_step())


def test_failures_are_kept_in_one_line_and_cleared_by_a_commit(
    store: Store, make_step: MakeStep
) -> None:
    step = make_step()
    try:
        raise ValueError("first\n  second")
    except ValueError as error:
        store.record_failure(step, error)
    store.record_failure(make_step("c3"), "worker died")
    note = store.failures()["a1"]
    assert note["error"] == "ValueError: first second"
    assert "Traceback" in note["traceback"]
    assert (note["key"], note["kind"], note["slug"]) == ("a1", "student", "hh-kl")
    commit(store, step)
    assert set(store.failures()) == {"c3"}
    assert store.listing("failures") == ["c3.json"]
    store.record_failure(step, "from a process that lost the race")
    assert set(store.failures()) == {"c3"}, "a finished step has not failed"


@pytest.mark.parametrize(
    ("key", "kind", "slug"),
    [("a-1", "student", "x"), ("../a", "student", "x"), ("a1", "results", "x"), ("a1", "w", "a/b")],
)
def test_names_that_would_leave_their_folder_are_refused(
    local: Store, make_step: MakeStep, key: str, kind: str, slug: str
) -> None:
    with pytest.raises(ValueError, match=r"key|file name"):
        commit(local, make_step(key, kind, slug))
    assert not Path(local.uri).exists()


def test_a_path_and_its_uri_are_one_store(tmp_path: Path, make_step: MakeStep) -> None:
    folder = tmp_path / "my store"
    by_path = Store.open(folder)
    commit(by_path, make_step())
    for other in (
        Store.open(str(folder)),
        Store.open(folder.as_uri()),
        Store.open(by_path.uri),
        pickle.loads(pickle.dumps(by_path)),
    ):
        assert other.finished() == by_path.finished()
        assert other.uri == by_path.uri


def test_an_unknown_scheme_is_the_users_mistake() -> None:
    with pytest.raises(InputError, match="s4://bucket"):
        Store.open("s4://bucket/store")


def test_temporary_files_are_removed_only_if_no_process_can_be_writing_them(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "from w2s_ray.store.owners import *; print(this_process().token)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()
    folder, claims = tmp_path / "student", tmp_path / "claims"
    elsewhere = "0123456789ab.77.5"
    day_ago = time.time() - 2 * 86_400
    cases = {  # name: (age of its content, whether it must stay)
        temporary_name("mine"): (day_ago, True),
        f".tmp-dead-{dead}-00": (time.time(), False),
        f".tmp-far-{elsewhere}-00": (time.time(), True),
        f".tmp-old-{elsewhere}-00": (day_ago, False),
        f".tmp-claimed-{elsewhere}-00": (day_ago, True),
        ".tmp-foreign": (day_ago, False),
        "hh-kl-a1": (day_ago, True),
    }
    claims.mkdir()
    (claims / "claimed.0").write_text(f'{{"owner": "{elsewhere}"}}')
    for name, (when, _) in cases.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "file").touch()
        os.utime(folder / name / "file", (when, when))
        os.utime(folder / name, (day_ago, day_ago))
    remove_abandoned(folder, claims)
    assert {path.name for path in folder.iterdir()} == {
        n for n, (_, stays) in cases.items() if stays
    }


def test_listing_artifacts_takes_few_calls_for_each(local: Store) -> None:
    counts = []
    for first, end in ((0, 200), (200, 400)):
        for n in range(first, end):
            folder = f"{local.uri}/{('student', 'evaluate')[n % 2]}/hh-kl-{n:x}"
            os.makedirs(folder)
            Path(folder, "record.json").write_bytes(b'{\n "key": {\n  "x": 0\n }\n}')
        counts.append(calls(local.finished))
    assert len(local.finished()) == 400
    assert counts[1] - counts[0] < 200 * 40
