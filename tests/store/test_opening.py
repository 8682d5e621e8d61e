"""A store that cannot be used is refused in one line, before any work."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity as Identity


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
