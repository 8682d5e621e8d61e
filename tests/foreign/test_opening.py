"""Nothing but a regular file of bounded size is opened, and nothing blocks."""

import os
import socket
from pathlib import Path

import pytest

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import limit
from w2s_ray.foreign.opening import check_regular, open_regular, read_bounded


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("opened", [check_regular, open_regular])
@pytest.mark.parametrize(
    ("make", "kind"),
    [(fifo, "a FIFO"), (folder, "a folder"), (a_socket, "a socket"), (device, "a device")],
)
def test_what_is_no_regular_file_is_one_line_and_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, kind: str, opened
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "spec.yaml"
    make(path)
    with pytest.raises(InputError) as refused:
        opened(path)
    assert str(refused.value).startswith(f"{path}: given {kind}")
    assert str(refused.value).endswith("expected a regular file")


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"text")
    (tmp_path / "link").symlink_to("real")
    assert read_bounded(tmp_path / "link", "spec.bytes") == b"text"


def test_a_missing_file_is_the_callers_to_word(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def test_a_file_at_the_limit_is_read_and_one_above_is_refused(tmp_path: Path) -> None:
    most = limit("spec.bytes")
    (tmp_path / "at").write_bytes(b"x" * most)
    (tmp_path / "above").write_bytes(b"x" * (most + 1))
    assert len(read_bounded(tmp_path / "at", "spec.bytes")) == most
    with pytest.raises(InputError, match=f"given {most + 1:,} bytes, expected at most {most:,} "):
        read_bounded(tmp_path / "above", "spec.bytes")


def test_a_file_that_hides_its_size_is_bounded_too() -> None:
    """Files of the kernel have size 0 whatever they hold."""
    path = Path("/proc/kallsyms")
    if not path.exists():
        pytest.skip("no such file of the kernel here")
    with pytest.raises(InputError, match="given more than 1,048,576 bytes, expected"):
        read_bounded(path, "spec.bytes")
