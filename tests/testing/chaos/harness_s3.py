"""Episodes on an object store."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.testing.chaos import stores
from tests.testing.chaos.episodes import Driver, Episode
from tests.testing.chaos.forks import Forks
from tests.testing.chaos.harness import Harness, Straight
from tests.testing.chaos.s3 import CREDENTIALS, Proxy, address
from w2s_ray.store.artifacts import Store

CONTENTION_SECONDS = 0.1  # on loopback a write takes a few milliseconds


class S3Harness(Harness):
    """As ``Harness``, with stores on a server behind a proxy.

    The numbers must be those of stores on a disk.

    Args:
        port: of the server.
    """

    def __init__(self, folder: Path, forks: Forks, port: int) -> None:
        super().__init__(folder, forks)
        self._port, self.proxy = port, Proxy(port)
        self._contention = CONTENTION_SECONDS
        self._environment = {**CREDENTIALS, "XDG_CACHE_HOME": str(folder / "cache")}
        self._changes: dict[str, int] = {}
        self._on_s3: dict[str, Straight] = {}
        os.environ |= CREDENTIALS

    def straight(self, study: str) -> Straight:
        """The tables of a run on a disk, with the time of one on the server."""
        if study not in self._on_s3:
            local = super().straight(study)
            root, store = self._store(f"straight-{study}")
            self.proxy.calm()
            began = time.monotonic()
            code, output = self._run(study, root, Driver())
            assert code == 0, output
            seconds = time.monotonic() - began
            self._changes[study] = self.proxy.changes()
            wrong = stores.faults(store, "tiny", local.tables, {})
            assert not wrong, f"S3 differs from a disk: {wrong}"
            self._on_s3[study] = local._replace(seconds=seconds)
        return self._on_s3[study]

    def run(self, episode: Episode) -> list[str]:
        """As of ``Harness``; the last run is on another machine, without copies."""
        self.straight(episode.study)
        self._environment["XDG_CACHE_HOME"] = str(self._folder / f"cache-{episode.name}")
        return super().run(episode)

    def _store(self, name: str) -> tuple[str, Store]:
        cache = self._folder / f"checks-{name}"
        return address(self.proxy.port, name), Store.open(address(self._port, name), cache=cache)

    @contextmanager
    def _disturbed(
        self, episode: Episode, pids: Sequence[int], start: float, drivers: Sequence[Driver]
    ) -> Iterator[None]:
        proxy, straight = self.proxy, self.straight(episode.study)
        proxy.calm()
        proxy.failing = episode.failing
        if episode.outage is not None:
            moment, seconds = episode.outage
            begin = start + moment * straight.seconds
            proxy.outage = begin, begin + seconds
        for pid, driver in zip(pids, drivers, strict=True):
            if driver.request is not None:
                kill = _Kill(pid, 1 + int(driver.request * self._changes[episode.study]))
                if driver.answered:
                    proxy.after = kill
                else:
                    proxy.before = kill
        try:
            with super()._disturbed(episode, pids, start, drivers):
                yield
        finally:
            proxy.calm()


class _Kill:
    """Kills a process at the n-th change."""

    def __init__(self, pid: int, number: int) -> None:
        self._pid, self._number = pid, number

    def __call__(self, number: int) -> None:
        if number == self._number:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
