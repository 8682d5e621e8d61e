"""Whatever a store's address or a name in it is, it is read or refused in one printable line."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.testing.fuzzing import fuzzed
from w2s_ray.errors import InputError
from w2s_ray.store.__main__ import main
from w2s_ray.store.opening import open_backend

# A remote scheme without a region or an endpoint would ask the network.
PIECES = [*"/.~:?@#%&=\\ \n\t\x1b\x00\u202e\udc80aé", "..", "file://", "file:", "s3:", "b", "://"]
PIECES += ["s3://b/x?region=eu-west-1", "endpoint_override=localhost:9", "memory://", "me:key@"]
ADDRESSES = st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text())
NETWORKED = ("s3://", "gs://", "gcs://", "hdfs://", "viewfs://", "abfs")

FILE_NAMES = st.binary(min_size=1, max_size=24).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in (b".", b"..")
)
NAMES = st.one_of(
    FILE_NAMES,
    st.sampled_from(
        [b"record.json", b"x-0123456789abcdef0123", b".tmp-1-2", b"@4-x", b"-rf", b"%s"]
    ),
)
FOLDERS = ["", "student", "weak", "claims", "parts", "plans", "results", "predictions", "damaged"]
CONTENTS = st.sampled_from(
    [b"", b"{}", b"[", b"\xff\xfe", b'{"key": 1}', b"null", b"PAR1", b"7" * 99]
)


@fuzzed(150)
@given(address=ADDRESSES)
def test_any_address(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assume("region=" in address or not any(scheme in address for scheme in NETWORKED))
    monkeypatch.chdir(tmp_path)
    line = ""
    try:
        open_backend(address)
    except InputError as error:
        line = str(error)
    assert line.isprintable()
    assert not list(tmp_path.iterdir()), "nothing is created before there is work"


@fuzzed(20)
@given(
    strays=st.lists(
        st.tuples(st.sampled_from(FOLDERS), NAMES, st.none() | CONTENTS), min_size=1, max_size=4
    )
)
def test_any_name_in_a_store(
    strays: list[tuple[str, bytes, bytes | None]], finished: Path, capfd: Any
) -> None:
    store = finished.parent / "store"
    added: list[Path] = []
    try:
        for folder, name, content in strays:
            stray = store / folder / os.fsdecode(name)
            if stray.exists() or stray.is_symlink() or not stray.parent.is_dir():
                continue
            added.append(stray)
            stray.mkdir() if content is None else stray.write_bytes(content)
        for command in ("ls", "verify", "gc"):
            assert main([str(store), command]) in (0, 1)
            printed = "".join(capfd.readouterr())
            assert all(line.isprintable() for line in printed.splitlines())
            assert "Traceback" not in printed
    finally:
        for stray in added:
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
