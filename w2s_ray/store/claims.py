"""One holder for each key among all processes and hosts that share a store.

A claim saves work; it never guards a result. Commits are atomic on their own, so a claim that is
lost (a clock far off, a process stopped for minutes) costs a step computed twice and nothing else.
Take the claim, look again whether the key is finished, then work.

On a file system: ``claims/<key>.<n>`` is created exclusively, and the highest n is the holder. A
stale claim n is taken over by creating n + 1, which succeeds for one contender only; the winner
holds only if claim n is still the file it judged (else that one was released and taken anew).
Nothing that another process may hold is ever renamed or overwritten.

On an object store there is no exclusive creation: each contender writes ``claims/<key>/<own>``,
waits, lists, and the earliest name wins.
"""

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from w2s_ray.store.owners import Owner, this_process

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
REMOTE_PAUSE_SECONDS = 0.5  # longer than a small write takes to become visible
REMOTE_AT_ONCE = 64
ATTEMPTS = 20
GAP = 8  # numbers that may be missing below a live claim: holders taken over while they still lived


class Files(Protocol):
    """The small-file operations of a place."""

    def listing(self, folder: str) -> list[str]: ...
    def read_all(self, paths: Sequence[str]) -> list[bytes]: ...
    def write(self, path: str, content: bytes) -> None: ...
    def remove(self, path: str) -> None: ...


@contextmanager
def local_claim(folder: Path, key: str) -> Iterator[bool]:
    """Hold ``key`` if nobody does; yields whether it is held.

    A claim is stale when its process is known to be dead (same machine), or when its heartbeat is
    older than ``STALE_SECONDS`` by the file system's own clock (another machine).
    """
    text = _text()
    held = _acquire(folder, key, text)
    if held is None:
        yield False
        return
    mine, before = held
    _HEART.start(str(mine), lambda: os.utime(mine))
    try:
        yield True
    finally:
        _HEART.stop(str(mine))
        _remove_if(mine, text)
        if before is not None:
            _remove_if(*before)


@contextmanager
def local_claims(folder: Path, keys: Iterable[str]) -> Iterator[set[str]]:
    """Hold those of the keys that nobody holds; yields them."""
    with ExitStack() as claims:
        yield {key for key in keys if claims.enter_context(local_claim(folder, key))}


def is_held(folder: Path, key: str) -> bool:
    """Whether a live claim on ``key`` exists."""
    path = _highest(folder, key)
    text = None if path is None else _read(path)
    return path is not None and text is not None and not _is_stale(path, text)


def _acquire(folder: Path, key: str, text: str) -> tuple[Path, tuple[Path, str] | None] | None:
    """The claim file made, and the stale claim it follows; None if somebody else holds the key."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        number, before = 0, None
        if (highest := _highest(folder, key)) is not None:
            judged = _read(highest)
            if judged is None:  # released a moment ago
                continue
            if not _is_stale(highest, judged):
                return None
            number, before = int(highest.suffix[1:]) + 1, (highest, judged)
        mine = folder / f"{key}.{number}"
        try:
            with open(mine, "x") as file:
                file.write(text)
        except FileExistsError:
            continue
        if before is None or _read(before[0]) == before[1]:
            return mine, before
        _remove_if(mine, text)
    return None


def _highest(folder: Path, key: str) -> Path | None:
    """The claim file with the highest number, by asking for each: a listing would cost time by
    the number of all claims there are."""
    highest, number = -1, 0
    while number <= highest + GAP:
        if os.path.lexists(f"{folder}/{key}.{number}"):
            highest = number
        number += 1
    return folder / f"{key}.{highest}" if highest >= 0 else None


def _is_stale(path: Path, text: str) -> bool:
    owner = _owner(text)
    if owner is not None and owner.is_here:
        return owner.is_dead
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:  # dated by the same clock
            return os.fstat(probe.fileno()).st_mtime - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:  # released a moment ago: who takes it over finds that out
        return True


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _remove_if(path: Path, text: str) -> None:
    if _read(path) == text:
        path.unlink(missing_ok=True)


@contextmanager
def remote_claims(files: Files, keys: Iterable[str]) -> Iterator[set[str]]:
    """As ``local_claims``; the pauses of many claims pass at the same time."""
    wanted = list(keys)
    with ExitStack() as claims:
        with ThreadPoolExecutor(REMOTE_AT_ONCE) as pool:
            held = pool.map(lambda key: claims.enter_context(remote_claim(files, key)), wanted)
            mine = {key for key, is_mine in zip(wanted, held, strict=True) if is_mine}
        yield mine


@contextmanager
def remote_claim(files: Files, key: str) -> Iterator[bool]:
    """As ``local_claim``, on a store without exclusive creation; clocks are those of the hosts."""
    folder = f"claims/{key}"
    if _contenders(files, folder)[0]:
        yield False
        return
    name = f"{time.time_ns():020d}-{uuid4().hex[:8]}"
    files.write(f"{folder}/{name}", _text().encode())
    try:
        time.sleep(REMOTE_PAUSE_SECONDS)
        live, stale = _contenders(files, folder)
        held = min(live, default=None) == name
        if held:
            _HEART.start(name, lambda: files.write(f"{folder}/{name}", _text().encode()))
            for other in stale:
                files.remove(f"{folder}/{other}")
        else:
            files.remove(f"{folder}/{name}")
        yield held
    finally:
        _HEART.stop(name)
        files.remove(f"{folder}/{name}")


def _contenders(files: Files, folder: str) -> tuple[list[str], list[str]]:
    """Names of the live and of the stale claims."""
    live, stale = [], []
    for name in files.listing(folder):
        with suppress(FileNotFoundError):
            text = files.read_all([f"{folder}/{name}"])[0].decode()
            owner = _owner(text)
            if owner is None or owner.is_dead:
                stale.append(name)
            elif time.time() - json.loads(text)["beat"] < STALE_SECONDS:
                live.append(name)
            else:
                stale.append(name)
    return live, stale


def _text() -> str:
    """The content of a claim: unique, names its maker, says when it was written (Unix seconds)."""
    return json.dumps(
        {
            "owner": this_process().token,
            "host": socket.gethostname(),
            "beat": time.time(),
            "id": uuid4().hex,
        }
    )


def _owner(text: str) -> Owner | None:
    """The maker of a claim; None while its text is not (wholly) there."""
    try:
        return Owner.parse(json.loads(text)["owner"])
    except (ValueError, KeyError, TypeError):
        return None


class _Heart:
    """One thread for all claims of this process; it ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, Callable[[], object]] = {}
        self._thread: threading.Thread | None = None

    def start(self, name: str, beat: Callable[[], object]) -> None:
        with self._lock:
            self._beats[name] = beat
            if self._thread is None or not self._thread.is_alive():  # none, or lost in a fork
                self._thread = threading.Thread(target=self._run, name="claims", daemon=True)
                self._thread.start()

    def stop(self, name: str) -> None:
        """After this no beat of ``name`` runs or is running."""
        with self._lock:
            self._beats.pop(name, None)

    def _run(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            for name in list(self._beats):
                with self._lock, suppress(OSError):
                    if name in self._beats:
                        self._beats[name]()
            with self._lock:
                if not self._beats:
                    self._thread = None
                    return


_HEART = _Heart()
