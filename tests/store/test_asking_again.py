"""Small objects are read from a server of S3 that is busy, or that has removed them meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.testing.chaos.s3 import CREDENTIALS, SLOW_DOWN, Proxy, address, moto_server, serving
from w2s_ray.store.asking_again import PAUSES, asked_again
from w2s_ray.store.backend import Backend
from w2s_ray.store.opening import open_backend
from w2s_ray.store.system import System

DID_NOT_FIT = OSError(
    "AWS Error INTERNAL_FAILURE: Failed to flush response stream (eof: 0, bad: 1)"
)


class Sleepless(System):
    """This machine, but for its sleep, which is noted."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize("times", [0, 1, len(PAUSES), len(PAUSES) + 1])
def test_what_did_not_fit_is_asked_for_again_some_times(times: int) -> None:
    answers, system = iter([DID_NOT_FIT] * times), Sleepless()

    def read() -> str:
        for error in answers:
            raise error
        return "content"

    if times > len(PAUSES):
        with pytest.raises(OSError, match="flush"):
            asked_again(read, system)
    else:
        assert asked_again(read, system) == "content"
    assert system.slept == list(PAUSES[:times])


def test_other_errors_are_not_waited_for() -> None:
    def read() -> None:
        raise PermissionError("no")

    system = Sleepless()
    with pytest.raises(PermissionError):
        asked_again(read, system)
    assert not system.slept


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    if moto_server() is None:
        pytest.skip("there is no moto_server")
    with pytest.MonkeyPatch.context() as patch, serving() as port:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        proxy = Proxy(port)
        yield proxy
        proxy.end()


@pytest.fixture
def backend(proxy: Proxy, tmp_path: Path) -> Iterator[Backend]:
    yield open_backend(address(proxy.port, tmp_path.name), cache=tmp_path / "cache")
    proxy.calm()


SMALL = b"shorter than an error"


@pytest.mark.long
def test_small_objects_are_read_from_a_busy_server(
    backend: Backend, proxy: Proxy, tmp_path: Path
) -> None:
    assert len(SMALL) < len(SLOW_DOWN)
    workspace = backend.workspace("features", "x-a1")
    (workspace / "small").write_bytes(SMALL)
    record = b'{"kind": "features", "key": "a1", "files": {"small": %d}}' % len(SMALL)
    backend.commit(workspace, "features/x-a1", record)
    table = pa.table({"number": range(1000)})
    pq.write_table(table, tmp_path / "table", row_group_size=10)
    backend.write("results/table", (tmp_path / "table").read_bytes())
    elsewhere = open_backend(backend.uri, cache=tmp_path / "another")
    proxy.failing = 0.4
    for _ in range(5):
        assert elsewhere.read(["features/x-a1/record.json"]) == [record]
    copy = elsewhere.local_copy("features/x-a1", record)
    assert (copy / "small").read_bytes() == SMALL
    with elsewhere.open_file("results/table") as file:
        assert pq.read_table(file).equals(table)
        file.seek(7)
        assert file.tell() == 7
        assert file.read(3) == (tmp_path / "table").read_bytes()[7:10]


@pytest.mark.long
def test_an_object_that_is_removed_while_it_is_read_is_not_there(backend: Backend) -> None:
    backend.write("claims/c", SMALL)
    with backend.open_file("claims/c") as file:
        backend.remove("claims/c")
        with pytest.raises(FileNotFoundError):
            file.read()
    assert backend.read(["claims/c"]) == [None]
