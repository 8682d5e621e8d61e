"""A store that cannot be used is refused in one line, before any work."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity as Identity
from w2s_ray.store.object_store import ObjectStoreBackend


def use(address: str) -> None:
    """The first things a run does with a store."""
    store = Store.open(address)
    store.finished()
    store.failures()
    store.probe()


def refusal(address: str) -> str:
    with pytest.raises(InputError) as refused:
        use(address)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "s3://",
        "s3:///x",
        "gs://",
        "file://",
        "s4://b/x",
        "/proc/nope",
        "/dev/null",
        "/dev/null/x",
    ],
)
def test_an_address_of_no_store_is_the_users_mistake(address: str) -> None:
    assert address in refusal(address)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("s3:bucket/x", "s3://bucket/x"),
        ("s3:/bucket/x", "s3://bucket/x"),
        ("GS:bucket", "gs://bucket"),
        ("file:/data/x", "file:///data/x"),
    ],
)
def test_a_uri_without_its_slashes_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"{address!r}: expected {meant!r}" in refusal(address)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["s3:bucket", "my:store", "s3"])
def test_a_folder_may_have_a_colon_in_its_name(tmp_path: Path, name: str) -> None:
    use(str(tmp_path / name))
    assert (tmp_path / name).is_dir()


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for address in ("file", "file/x", "file/x/y"):
        assert "cannot be" in refusal(str(tmp_path / address))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_without_permission(tmp_path: Path, mode: int) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    try:
        assert "Permission denied" in refusal(str(tmp_path / "store"))
    finally:
        (tmp_path / "store").chmod(0o700)


def test_a_bucket_that_nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with socket.socket() as bound:  # but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        query = f"region=x&scheme=http&endpoint_override=127.0.0.1%3A{port}"
        line = refusal(f"s3://no-such-bucket/x?{query}")
    assert line.startswith("store s3://no-such-bucket/x cannot be")


def test_a_probe_makes_the_root_and_leaves_nothing_in_it(store: Store, tmp_path: Path) -> None:
    store.probe()
    store.probe()
    assert store.listing("") == []
    assert store.finished() == {}
    folder = tmp_path / "new" / "store"
    Store.open(folder).probe()
    assert list(folder.iterdir()) == []


def test_a_probe_leaves_what_is_in_the_store_as_it_is(store: Store) -> None:
    store.write_json("results/hh.parquet", [1])
    store.write_json("failures/a1.json", [2])
    store.probe(["results", "failures", "parts"], ["results/hh.parquet", "studies/hh.json"])
    assert store.listing("") == ["failures", "results"]
    assert store.listing("results") == ["hh.parquet"]
    assert store.read_json("results/hh.parquet") == [1]


def test_what_a_killed_probe_leaves_goes_with_the_next(
    store: Store, raw: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_json("weak/x.json", [1])

    def killed(_backend: object, path: str) -> None:
        if path.startswith("weak/"):
            raise KeyboardInterrupt
        remove(_backend, path)

    remove = type(store.backend).remove
    with monkeypatch.context() as patched:
        patched.setattr(type(store.backend), "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            store.probe(["weak"])
    assert len(raw(store.backend).files()) == 2
    store.probe(["weak"])
    assert raw(store.backend).files() == ["weak/x.json"]


def test_what_is_in_the_way_of_a_run_is_found_before_it(local: Store, tmp_path: Path) -> None:
    root = tmp_path / "store"
    (root / "results/hh.parquet").mkdir(parents=True)
    local.probe(["results"])
    with pytest.raises(InputError, match=r"cannot be written: .*hh\.parquet"):
        local.probe(["results"], ["results/hh.parquet"])
    (root / "student").write_text("a file, not a folder")
    local.probe(["results"])
    with pytest.raises(InputError, match=r"cannot be written: .*student"):
        local.probe(["results", "student"])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError("Forbidden"),
        RuntimeError("Forbidden"),  # of a library behind fsspec
    ],
)
def test_a_store_whose_system_refuses_to_write(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", refuse)
    if isinstance(store.backend, ObjectStoreBackend):
        monkeypatch.setattr(store.backend, "_upload", refuse)
    with pytest.raises(InputError, match=str(error.args[-1])) as refused:
        store.probe()
    assert "\n" not in str(refused.value) and "--store" in str(refused.value)


def test_a_cache_that_cannot_be_written_is_found_before_a_run(
    tmp_path: Path, remote: Store
) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(InputError, match=r"cannot be written: .*cache"):
        remote.probe()


def test_reading_a_store_that_became_unreadable(
    local: Store, make_step: Callable[..., Identity]
) -> None:
    with local.draft(make_step(), {}):
        pass
    record = Path(local.uri, "student/hh-kl-a1/record.json")
    record.unlink()
    record.symlink_to("record.json")  # a loop: an error even for root
    with pytest.raises(InputError, match="cannot be read"):
        local.finished()
    Path(local.uri, "failures").write_text("a file, not a folder")
    with pytest.raises(InputError, match="cannot be read"):
        local.failures()
