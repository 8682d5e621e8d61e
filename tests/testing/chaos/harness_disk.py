"""Episodes on a disk that is full, out of inodes or read-only: a ``tmpfs`` that root may mount."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import NamedTuple

from tests.testing.chaos.episodes import Driver, Episode
from tests.testing.chaos.harness import Harness
from w2s_ray.store.artifacts import Store
from w2s_ray.store.files import PROBE_BYTES

PAGE = 4096  # bytes that a tmpfs takes at a time


class Need(NamedTuple):
    """What a store takes: bytes in whole pages, and files with folders."""

    bytes: int
    inodes: int


def can_mount() -> bool:
    """Whether this process may mount a disk."""
    with tempfile.TemporaryDirectory() as folder:
        if os.getuid() or _mount(folder, "size=64k").returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


class DiskHarness(Harness):
    """As ``Harness``, with each store on a disk of its own."""

    _disk: Path

    def run(self, episode: Episode) -> list[str]:
        """As of ``Harness``; before the last run the disk is large and can be written."""
        self.straight(episode.study)
        need = _need(self._folder / f"straight-{episode.study}")
        size, inodes = 64 * need.bytes + 64 * PROBE_BYTES, 64 * need.inodes
        if episode.space:
            size = int(episode.space * (need.bytes + PROBE_BYTES))
        if episode.inodes:
            inodes = max(2, int(episode.inodes * need.inodes))
        self._disk = self._folder / f"disk-{episode.name}"
        self._disk.mkdir()
        _mount(str(self._disk), f"size={size},nr_inodes={inodes}").check_returncode()
        return super().run(episode)

    def _store(self, name: str) -> tuple[str, Store]:
        root = str(self._disk / "store")
        return root, Store.open(root)

    def _restore(self, episode: Episode) -> None:
        _remount(self._disk, "rw,size=1g,nr_inodes=100000")

    def _put_away(self, root: str, *, is_kept: bool) -> None:
        if not is_kept:
            subprocess.run(["umount", str(self._disk)], check=True)

    @contextmanager
    def _disturbed(
        self, episode: Episode, pids: Sequence[int], start: float, drivers: Sequence[Driver]
    ) -> Iterator[None]:
        seconds = self.straight(episode.study).seconds
        moment = 1e6 if episode.read_only is None else episode.read_only * seconds
        timer = Timer(moment, _read_only_soon, [self._disk, pids])
        timer.daemon = True
        timer.start()
        with super()._disturbed(episode, pids, start, drivers):
            yield
        timer.cancel()
        timer.join()


def _need(root: Path) -> Need:
    paths = list(root.rglob("*"))
    sizes = [path.lstat().st_size for path in paths]
    return Need(sum(-(-size // PAGE) * PAGE for size in sizes), len(paths))


def _read_only_soon(disk: Path, pids: Sequence[int]) -> None:
    """Makes a disk read-only at the first moment at which no file is open for writing."""
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if not _remount(disk, "ro"):
            return


def _mount(folder: str, options: str) -> "subprocess.CompletedProcess[bytes]":
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return subprocess.run(command, capture_output=True, check=False)


def _remount(disk: Path, options: str) -> int:
    command = ["mount", "-o", f"remount,{options}", str(disk)]
    return subprocess.run(command, capture_output=True, check=False).returncode
