"""A bundle's members are artifacts like any other: written, found, read, damaged and made again."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from w2s_ray.store import bundles, finished
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError
from w2s_ray.store.drafts import Draft
from w2s_ray.store.identity import Identity
from w2s_ray.store.records import record_bytes
from w2s_ray.store.upkeep.inventory import read_inventory

KEYS = [f"{number:02x}key" for number in range(20)]


def identity(key: str) -> Identity:
    return Identity("student", key, f"of-{key}", 3, {"seed": int(key[:2], 16)}, {"label": "l1"})


def write(draft: Draft, key: str) -> None:
    """Contents of every form; some members have other columns, and a file for themselves."""
    number = int(key[:2], 16)
    columns: dict[str, Any] = {"row_id": ["a", "b", "c"], "probs": [[0.5, number / 7]] * 3}
    if number % 3 == 0:
        columns["noisy"] = [True, None, False]
    draft.write("test.parquet", pa.table(columns))
    draft.write("curve.parquet", pa.table({"loss": np.arange(number) / 3}))
    draft.write("steps.npy", np.full((2, number + 1), number, dtype=np.float32))
    if number % 2:
        draft.write("head.safetensors", {"weight": np.ones(3) * number, "bias": np.zeros(1)})
        (draft.folder / "export").mkdir()
        (draft.folder / "export" / "config.json").write_text(key)
    draft.metrics["accuracy"] = number / 20


def commit_bundle(store: Store, keys: list[str]) -> str:
    """Commits a bundle, and returns its path."""
    with store.bundle("student", keys[0]) as bundle:
        for key in keys:
            draft = bundle.draft(key)
            write(draft, key)
            bundle.add(identity(key), {"fused": len(keys)}, draft)
    (path,) = {path for key, path in store.finished().items() if key in keys}
    return path


def commit_single(store: Store, key: str) -> None:
    with store.draft(identity(key), {"fused": 1}) as draft:
        write(draft, key)


def test_a_member_is_read_as_an_artifact_with_a_folder_of_its_own(store: Store) -> None:
    commit_bundle(store, KEYS[:10])
    for key in KEYS[10:]:
        commit_single(store, key)
    assert set(store.finished()) == store.finished_among([*KEYS, "no"]) == set(KEYS)
    opened = store.artifacts(KEYS)
    for key in KEYS:
        number, artifact = int(key[:2], 16), opened(key)
        record = artifact.record
        assert record == store.record(key)
        assert (record["kind"], record["key"], record["version"]) == ("student", key, 3)
        assert record["config"] == {"seed": number} and record["inputs"] == {"label": "l1"}
        assert record["metrics"] == {"accuracy": number / 20}
        assert record["provenance"]["started"] <= record["provenance"]["finished"]
        table = artifact.table("test.parquet")
        names = ["row_id", "probs", *(["noisy"] if number % 3 == 0 else [])]
        assert table.column_names == names and table["probs"].to_pylist()[2] == [0.5, number / 7]
        assert artifact.table("test.parquet", ["probs"]).column_names == ["probs"]
        assert artifact.table("curve.parquet").num_rows == number
        np.testing.assert_array_equal(artifact.array("steps.npy"), np.full((2, number + 1), number))
        assert artifact.has("head.safetensors") == artifact.has("export/config.json") == number % 2
        if number % 2:
            assert artifact.file("export/config.json").read_text() == key
            assert artifact.tensors("head.safetensors")["weight"].tolist() == [number] * 3
        else:
            with pytest.raises(FileNotFoundError):
                artifact.file("export/config.json")
    locations = store.file_locations(KEYS, "export/config.json")
    assert list(locations) == KEYS[1::2]
    assert list(store.contents(locations, "export/config.json")) == [k.encode() for k in locations]


def test_tables_come_in_the_order_of_the_keys_from_wherever_they_are(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finished, "OPEN_BUNDLES", 1)
    commit_bundle(store, KEYS[0:12:2])
    commit_bundle(store, KEYS[1:12:2])
    for key in KEYS[12:]:
        commit_single(store, key)
    wanted = [*KEYS[::-1], *KEYS[:1]]
    lengths = [table.num_rows for table in store.tables(wanted, "curve.parquet")]
    assert lengths == list(range(19, -1, -1)), "each key once"
    for columns, expected in ((["row_id", "noisy"], 2), (["noisy"], 1)):
        table = next(store.tables(KEYS, "test.parquet", columns))
        assert table.num_columns == expected
    with pytest.raises(KeyError, match="no finished step"):
        list(store.tables(["no"], "test.parquet"))


def test_what_fails_is_no_member_and_a_bundle_of_none_is_none(store: Store) -> None:
    store.record_failure(identity(KEYS[0]), "earlier")
    with store.bundle("student", KEYS[0]) as bundle:
        for key in KEYS[:3]:
            draft = bundle.draft(key)
            write(draft, key)
            draft.metrics["accuracy"] = float("nan") if key == KEYS[1] else 0.5
            if key == KEYS[1]:
                with pytest.raises(TypeError, match="accuracy: nan is not a finite number"):
                    bundle.add(identity(key), {}, draft)
                bundle.drop(draft)
            else:
                bundle.add(identity(key), {}, draft)
    assert set(store.finished()) == {KEYS[0], KEYS[2]}
    assert not store.failures(), "the note of a member is removed"
    with store.bundle("student", "none"):
        pass
    with suppress(RuntimeError), store.bundle("student", KEYS[5]) as bundle:
        bundle.add(identity(KEYS[5]), {}, bundle.draft(KEYS[5]))
        raise RuntimeError
    assert set(store.finished()) == {KEYS[0], KEYS[2]}


def test_a_step_in_two_bundles_counts_once(store: Store) -> None:
    """Two runs may compute a step, if one takes the other for dead."""
    first, second = commit_bundle(store, KEYS[:4]), ""
    with store.bundle("student", KEYS[3]) as bundle:
        for key in KEYS[2:6]:
            draft = bundle.draft(key)
            write(draft, key)
            bundle.add(identity(key), {}, draft)
    commit_single(store, KEYS[0])
    paths = store.finished()
    assert set(paths) == set(KEYS[:6])
    second = paths[KEYS[5]]
    assert paths[KEYS[2]] == paths[KEYS[3]] == min(first, second)
    assert [r["key"] for r in store.records(KEYS).values()] == KEYS[:6]
    assert store.record(KEYS[0])["execution"] == {"fused": 1}, "a folder of its own comes first"


@pytest.mark.parametrize("file", ["members.parquet", "test.parquet", "steps.safetensors"])
def test_a_damaged_bundle_is_named_and_its_members_are_made_again(
    store: Store, raw: Any, tmp_path: Path, file: str
) -> None:
    path = commit_bundle(store, KEYS[:4])
    files = raw(store.backend)
    (damaged,) = (each for each in files.files() if each.endswith(f"/{file}"))
    content = bytearray(files.read(damaged))
    content[len(content) // 2] ^= 1
    files.write(damaged, bytes(content))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # as on a machine that has no copy
    reads: list[Callable[[], object]] = [
        lambda: store.records(KEYS),
        lambda: store.artifact(KEYS[0]).table("test.parquet"),
        lambda: store.artifact(KEYS[0]).array("steps.npy"),
    ]
    refused = []
    for read in reads:
        try:
            read()
        except StoreError as error:
            refused.append(error)
    assert refused, "nobody has read the file"
    expected = f"{path} is damaged: {file} has the recorded size and another content"
    assert all(expected in str(error) for error in refused)
    store.set_aside(refused[0])
    assert not store.finished_among(KEYS)


def test_the_record_of_a_bundle_is_compared_with_its_name(
    store: Store, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = commit_bundle(store, KEYS[:4])
    files = raw(store.backend)
    whole = files.read(f"{path}/record.json")
    for damage in (whole[:-9], whole.replace(KEYS[1].encode(), KEYS[2].encode(), 1), b"{}"):
        monkeypatch.setattr(finished, "_members_of", {})  # as in a new process
        files.write(f"{path}/record.json", damage)
        checked = store.checked(KEYS)
        assert not checked.finished
        (said,) = checked.damaged
        assert f"{path} is damaged: record.json is" in str(said)
    moved = store.set_aside(said)
    assert moved is not None and "damaged/student/@4-" in moved
    monkeypatch.setattr(finished, "_members_of", {})
    assert store.checked(KEYS) == (set(), [])
    assert commit_bundle(store, KEYS[:4]) == path
    assert set(store.records(KEYS)) == set(KEYS[:4])


def test_a_whole_record_of_other_members_is_damage(store: Store, raw: Any) -> None:
    path = commit_bundle(store, KEYS[:4])
    files = raw(store.backend)
    record = json.loads(files.read(f"{path}/record.json"))
    del record["digest"]
    record["members"] = [*KEYS[:3], KEYS[4]]
    files.write(f"{path}/record.json", record_bytes(record))
    inventory = read_inventory(store)
    assert not inventory.folders
    (found,) = inventory.damaged
    assert f"{path} is damaged: record.json lists other members than its key names" in str(found)


def test_a_slug_cannot_look_like_a_bundle(local: Store) -> None:
    with pytest.raises(ValueError, match="no artifact can have"):
        local.draft(Identity("student", "a1", "@9", 1, {}, {}), {}).__enter__()


def test_arrays_are_kept_whatever_their_memory_looks_like(store: Store) -> None:
    columns = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    with store.bundle("student", KEYS[0]) as bundle:
        draft = bundle.draft(KEYS[0])
        draft.write("a.npy", columns[::2])
        draft.write("b.safetensors", {"t": columns.T, "scalar": np.array(2.0)})
        bundle.add(identity(KEYS[0]), {}, draft)
    artifact = store.artifact(KEYS[0])
    np.testing.assert_array_equal(artifact.array("a.npy"), columns[::2])
    np.testing.assert_array_equal(artifact.tensors("b.safetensors")["t"], columns.T)
    assert artifact.tensors("b.safetensors")["scalar"].shape == ()


def test_a_table_is_read_by_row_groups(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that begin and end inside of groups, span several, or have no rows."""
    monkeypatch.setattr(bundles, "ROW_GROUP", 5)
    counts = [0, 3, 5, 5, 0, 1, 17, 2, 10, 0]
    with store.bundle("student", KEYS[0]) as bundle:
        for key, count in zip(KEYS, counts, strict=False):
            draft = bundle.draft(key)
            draft.write("t.parquet", pa.table({"row": np.arange(count), "of": [key] * count}))
            bundle.add(identity(key), {}, draft)
    for keys in (KEYS[:10], KEYS[9::-1]):
        for key, table in zip(keys, store.tables(keys, "t.parquet"), strict=True):
            count = counts[KEYS.index(key)]
            assert table["row"].to_pylist() == list(range(count))
            assert set(table["of"].to_pylist()) <= {key}


def test_a_bundle_that_goes_after_it_was_listed_is_not_finished(local: Store) -> None:
    path = commit_bundle(local, KEYS[:4])
    finder = finished.Finder(local, KEYS)
    shutil.rmtree(Path(local.uri, path))
    assert dict(finder.steps()) == {}
    with pytest.raises(KeyError, match=KEYS[0]):
        finder.artifact(KEYS[0])
