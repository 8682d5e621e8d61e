"""Runs episodes, and says what is wrong afterwards."""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import yaml

from tests.testing.chaos import stores
from tests.testing.chaos.episodes import STUDIES, Driver, Episode
from tests.testing.chaos.forks import Forks, Request
from w2s_ray.store.artifacts import Store

TIMEOUT_SECONDS = 180.0
BARRIER_SECONDS = 0.1  # from a request to the start of its drivers


class Straight(NamedTuple):
    """A run that nobody disturbed: its tables, its seconds, and how often it reached each point."""

    tables: stores.Tables
    seconds: float
    points: Counter[str]


class Harness:
    """Runs episodes in a folder.

    Args:
        folder: an empty one.
        forks: that start the drivers.
    """

    def __init__(self, folder: Path, forks: Forks) -> None:
        self._folder, self._forks = folder, forks
        self._environment: dict[str, str] = {}
        self._contention = 0.0
        self._mode = ["--local"]
        self._straight: dict[str, Straight] = {}
        for name, spec in STUDIES.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))

    def straight(self, study: str) -> Straight:
        """The undisturbed run of a study; made once."""
        if study not in self._straight:
            root, log = self._folder / f"straight-{study}", self._folder / "points"
            modules = self._folder / "modules"
            self._run(study, str(root), Driver(), modules=str(modules))
            self._forks.preload(modules)
            shutil.rmtree(root)
            began = time.monotonic()
            code, output = self._run(study, str(root), Driver(), points=str(log))
            seconds = time.monotonic() - began
            assert code == 0, output
            points = Counter(log.read_text().splitlines())
            log.unlink()
            tables = stores.tables(Store.open(root), "tiny")
            self._straight[study] = Straight(tables, seconds, points)
        return self._straight[study]

    def run(self, episode: Episode) -> list[str]:
        """What is wrong after an episode; the store stays if something is."""
        straight = self.straight(episode.study)
        root, store = self._store(episode.name)
        found: list[str] = []
        before: dict[str, bytes] = {}
        for drivers in episode.rounds:
            found += self._round(episode, root, drivers)
            with suppress(FileNotFoundError):
                before |= stores.finished_records(store)
        self._restore(episode)
        stores.let_unsigned_claims_expire(store)
        code, output = self._run(episode.study, root, Driver())
        undisturbed = Episode("last run", episode.seed, episode.study, [])
        found += self._wrong(Driver(), undisturbed, code, output)
        if not found:
            found += stores.faults(store, "tiny", straight.tables, before)
        found += [f"left behind: {path}" for path in stores.leftovers(store)]
        self._put_away(root, is_kept=bool(found))
        return found

    def _restore(self, episode: Episode) -> None:
        """Ends what disturbs more than one round, before the last run."""

    def _put_away(self, root: str, *, is_kept: bool) -> None:
        """Removes the store of an episode, unless it shows a fault."""
        if not is_kept:
            shutil.rmtree(root, ignore_errors=True)

    def _store(self, name: str) -> tuple[str, Store]:
        """The address of a new store for drivers, and the store for checks."""
        root = str(self._folder / name)
        return root, Store.open(root)

    @contextmanager
    def _disturbed(
        self, episode: Episode, pids: Sequence[int], start: float, drivers: Sequence[Driver]
    ) -> Iterator[None]:
        """Does to the drivers of a round what the episode says."""
        with _signals(pids, drivers, start, self.straight(episode.study).seconds):
            yield

    def _round(self, episode: Episode, root: str, drivers: Sequence[Driver]) -> list[str]:
        start = time.monotonic() + BARRIER_SECONDS
        started = [self._start(episode, root, d, n, start) for n, d in enumerate(drivers)]
        found = []
        with self._disturbed(episode, [pid for pid, _ in started], start, drivers):
            for (pid, output), driver in zip(started, drivers, strict=True):
                found += self._wrong(driver, episode, self._forks.wait(pid), _text(output))
        return found

    @staticmethod
    def _wrong(driver: Driver, episode: Episode, code: int, output: str) -> list[str]:
        """What is wrong with how a driver has ended."""
        if code not in expected_codes(driver, episode):
            return [f"{driver} ended with {code}: {output[-2000:]}"]
        return [f"{driver}: {output[-2000:]}"] if "Traceback" in output else []

    def _start(
        self, episode: Episode, root: str, driver: Driver, number: int, start: float
    ) -> tuple[int, Path]:
        output = self._folder / f"output-{number}"
        output.unlink(missing_ok=True)
        return self._request(episode.study, root, driver, output, start, episode.lease)

    def _run(self, study: str, root: str, driver: Driver, **fields: Any) -> tuple[int, str]:
        output = self._folder / "output"
        output.unlink(missing_ok=True)
        pid, _ = self._request(study, root, driver, output, 0.0, 0.0, **fields)
        timer = Timer(TIMEOUT_SECONDS, _send, [pid, signal.SIGKILL])
        timer.start()
        code = self._forks.wait(pid)
        timer.cancel()
        return code, _text(output)

    def _request(
        self,
        study: str,
        root: str,
        driver: Driver,
        output: Path,
        start: float,
        lease: float,
        **fields: str,
    ) -> tuple[int, Path]:
        spec = str(self._folder / f"{study}.yaml")
        request = Request(
            [spec, *self._mode, "--no-report", "--store", root],
            str(output),
            start=start,
            root=root,
            point=self._point(study, driver.point),
            machine=driver.machine,
            clock=driver.clock,
            lease=lease,
            contention=self._contention,
            environment=self._environment,
            **fields,
        )
        return self._forks.start(request), output

    def _point(self, study: str, at: tuple[float, float] | None) -> tuple[str, int] | None:
        """A point, each name as likely as another, and which of its occurrences."""
        if at is None:
            return None
        points = self.straight(study).points
        name = sorted(points)[int(at[0] * len(points))]
        return name, 1 + int(at[1] * points[name])


def expected_codes(driver: Driver, episode: Episode) -> set[int]:
    """Exit codes that a driver may end with; 0 if it was faster than what was to disturb it."""
    refused = {1, 2, 74} if episode.is_refused else set()
    if driver.point is not None or driver.request is not None:
        return {0, -signal.SIGKILL} | refused
    if refused:
        return {0} | refused
    if driver.moment is None or driver.signal == signal.SIGSTOP:
        return {0}
    return {0, 128 + driver.signal, -driver.signal}


@contextmanager
def _signals(
    pids: Sequence[int], drivers: Sequence[Driver], start: float, seconds: float
) -> Iterator[None]:
    """Sends each driver its signals at their moments, and kills whoever is there too long."""
    began, timers = time.monotonic(), []
    for pid, driver in zip(pids, drivers, strict=True):
        timers.append(Timer(TIMEOUT_SECONDS, _send, [pid, signal.SIGKILL]))
        if driver.moment is not None:
            delay = start - began + driver.moment * seconds
            timers.append(Timer(delay, _send, [pid, driver.signal]))
            if driver.stopped:
                timers.append(Timer(delay + driver.stopped, _send, [pid, signal.SIGCONT]))
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _text(output: Path) -> str:
    return output.read_text(errors="replace") if output.exists() else ""
