"""What lies below a URI is below its path, and what people see of a URI holds no secret."""

from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from pyarrow import fs

from w2s_ray.errors import InputError
from w2s_ray.store.addresses import child, remove_scratch, shown
from w2s_ray.store.artifacts import Store
from w2s_ray.store.object_store import ObjectStoreBackend

QUERY = "region=eu-west-1&endpoint_override=http%3A%2F%2Flocalhost%3A9"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/data/store", "/data/store/.ray/hh"),
        ("/data/why?/store/", "/data/why?/store/.ray/hh"),
        ("s3://b", "s3://b/.ray/hh"),
        ("s3://b/w2s/", "s3://b/w2s/.ray/hh"),
        (f"s3://b/w2s?{QUERY}", f"s3://b/w2s/.ray/hh?{QUERY}"),
        (f"s3://b/w2s/?{QUERY}", f"s3://b/w2s/.ray/hh?{QUERY}"),
        (f"s3://me:key@b/w2s?{QUERY}", f"s3://me:key@b/w2s/.ray/hh?{QUERY}"),
    ],
)
def test_a_child_keeps_the_query(address: str, expected: str) -> None:
    assert child(address, ".ray/hh") == child(child(address, ".ray"), "hh") == expected


@pytest.mark.parametrize(
    "address", ["/data/why?/store", f"s3://b?{QUERY}", f"s3://me:key@b/w2s/?{QUERY}"]
)
def test_a_child_is_below_the_path_of_the_same_file_system(address: str) -> None:
    root_system, root = fs.FileSystem.from_uri(address)
    child_system, path = fs.FileSystem.from_uri(child(address, ".ray/hh"))
    assert child_system.equals(root_system)
    assert path == root.rstrip("/") + "/.ray/hh"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/data/me@home?", "/data/me@home?"),
        ("s3://b/me@home:1/x", "s3://b/me@home:1/x"),
        (f"s3://b/x?secret_key=key&{QUERY}", "s3://b/x"),
        ("s3://me:key@b/x", "s3://b/x"),
        ("s3://me:k/e+y@b/x?access_key=me", "s3://b/x"),
        ("s3://me@b/x", "s3://b/x"),
        ("hdfs://me@host:9000/x@y", "hdfs://host:9000/x@y"),
        ("hdfs://host:9000/x@y", "hdfs://host:9000/x@y"),
    ],
)
def test_user_info_and_query_are_not_shown(address: str, expected: str) -> None:
    assert shown(address) == expected


def test_locations_in_a_store_show_no_secrets(tmp_path: Path) -> None:
    memory = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("memory")))
    uri = "s3://me:key@b/w2s?secret_key=key"
    store = Store(ObjectStoreBackend(memory, "b/w2s", cache=tmp_path, uri=uri))
    assert store.location("results/hh.parquet") == "s3://b/w2s/results/hh.parquet"
    assert "key@" in store.uri, "other processes need them"
    with pytest.raises(InputError) as refused:
        Store.open("s3://me:k/ey@b/x?secret_key=key")
    assert "s3://b/x" in str(refused.value)
    assert "k/ey" not in str(refused.value)


def test_only_what_lies_below_rays_folder_is_removed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for folder in ("student/x-a1", ".ray/hh/trials", ".ray/workers/x-a1"):
        (store / folder).mkdir(parents=True)
    uri = f"{store.as_uri()}?region=x"
    wrong = ("", "student", "student/x-a1", ".ray", ".ray/", ".ray/..", ".ray/hh/trials/x")
    for path in wrong:
        with pytest.raises(ValueError, match=r"below \.ray"):
            remove_scratch(child(uri, path))
    with pytest.raises(ValueError, match=r"below \.ray"):
        remove_scratch(f"{uri}/.ray/hh")  # added after the query: this is the root of the store
    assert (store / "student/x-a1").exists()
    assert (store / ".ray/hh/trials").exists()
    for path in (".ray/hh", ".ray/workers/x-a1", ".ray/nothing"):
        remove_scratch(child(uri, path))
    assert [path.name for path in (store / ".ray").iterdir()] == ["workers"]
    assert list((store / ".ray/workers").iterdir()) == []
    assert (store / "student/x-a1").exists()
