"""Claims: one holder for each key among all processes and hosts that share a store.

A claim saves work; it never guards a result. Commits are atomic by themselves, so a claim that is
lost (a clock far off, a process suspended for minutes) costs a step computed twice and nothing
else. Take the claim, check again whether the key is finished, then work.

On a file system ``claims/<key>.<n>`` is created exclusively, and the highest n holds the key. A
stale claim n is taken over by creating n + 1, which succeeds for one contender only. That one holds
the key only if claim n is still the file that was judged stale; otherwise it was released and the
key claimed anew. Nothing that another process may hold is ever renamed or overwritten.

An object store has no exclusive creation: each contender writes ``claims/<key>/<own name>``, waits,
lists the contenders, and the earliest name holds the key.
"""

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from w2s_ray.store.backend import Backend
from w2s_ray.store.names import CLAIMS
from w2s_ray.store.owners import Owner, this_process

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
CONTENTION_SECONDS = 0.5  # on an object store; longer than a small write takes to become visible
CONCURRENT_CLAIMS = 64
ATTEMPTS = 20
GAP = 8  # numbers that may be missing below a live claim: holders taken over while still alive


class _LocalClaim(NamedTuple):
    """A claim file that was created, and the stale one it replaces, if any, with its text."""

    path: Path
    replaced: tuple[Path, str] | None


class _Contenders(NamedTuple):
    """Names of the claim objects for one key."""

    live: list[str]
    stale: list[str]


@contextmanager
def local_claims(folder: Path, keys: Iterable[str]) -> Iterator[set[str]]:
    """Hold those of the keys that nobody else holds; yields them."""
    with ExitStack() as claims:
        yield {key for key in keys if claims.enter_context(local_claim(folder, key))}


@contextmanager
def local_claim(folder: Path, key: str) -> Iterator[bool]:
    """Hold ``key`` if nobody else does; yields whether it is held.

    A claim is stale when its process is dead (same machine), or when its heartbeat is older than
    ``STALE_SECONDS`` by the file system's own clock (another machine).
    """
    text = _claim_text()
    claim = _acquire(folder, key, text)
    if claim is None:
        yield False
        return
    _HEARTBEAT.start(str(claim.path), partial(os.utime, claim.path))
    try:
        yield True
    finally:
        _HEARTBEAT.stop(str(claim.path))
        _remove_if(claim.path, text)
        if claim.replaced is not None:
            _remove_if(*claim.replaced)


def is_held(folder: Path, key: str) -> bool:
    """Whether a live claim on ``key`` exists."""
    path = _highest(folder, key)
    text = None if path is None else _read(path)
    return path is not None and text is not None and not _is_stale(path, text)


@contextmanager
def object_claims(backend: Backend, keys: Iterable[str]) -> Iterator[set[str]]:
    """As ``local_claims``, on an object store; all keys are contended for at the same time."""
    keys = list(keys)
    with ExitStack() as claims:
        with ThreadPoolExecutor(CONCURRENT_CLAIMS) as pool:
            contexts = [object_claim(backend, key) for key in keys]
            is_held = list(pool.map(claims.enter_context, contexts))
        yield {key for key, held in zip(keys, is_held, strict=True) if held}


@contextmanager
def object_claim(backend: Backend, key: str) -> Iterator[bool]:
    """As ``local_claim``, without exclusive creation; heartbeats are dated by the hosts' clocks."""
    folder = f"{CLAIMS}/{key}"
    if _contenders(backend, folder).live:
        yield False
        return
    name = f"{time.time_ns():020d}-{uuid4().hex[:8]}"
    path = f"{folder}/{name}"
    _beat_object(backend, path)
    try:
        time.sleep(CONTENTION_SECONDS)
        live, stale = _contenders(backend, folder)
        held = min(live, default=None) == name
        if held:
            _HEARTBEAT.start(name, partial(_beat_object, backend, path))
            for other in stale:
                backend.remove(f"{folder}/{other}")
        else:
            backend.remove(path)
        yield held
    finally:
        _HEARTBEAT.stop(name)
        backend.remove(path)


def _acquire(folder: Path, key: str, text: str) -> _LocalClaim | None:
    """Create a claim file; None if somebody else holds the key."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        number, replaced = 0, None
        if (highest := _highest(folder, key)) is not None:
            judged = _read(highest)
            if judged is None:  # released a moment ago
                continue
            if not _is_stale(highest, judged):
                return None
            number, replaced = int(highest.suffix[1:]) + 1, (highest, judged)
        path = folder / f"{key}.{number}"
        try:
            with open(path, "x") as file:
                file.write(text)
        except FileExistsError:
            continue
        if replaced is None or _read(replaced[0]) == replaced[1]:
            return _LocalClaim(path, replaced)
        _remove_if(path, text)
    return None


def _highest(folder: Path, key: str) -> Path | None:
    """The claim file of ``key`` with the highest number.

    Asks for one number after the other: a listing would take time for all claims in the store.
    """
    highest, number = -1, 0
    while number <= highest + GAP:
        if os.path.lexists(f"{folder}/{key}.{number}"):
            highest = number
        number += 1
    return folder / f"{key}.{highest}" if highest >= 0 else None


def _is_stale(path: Path, text: str) -> bool:
    owner = _owner(text)
    if owner is not None and owner.is_on_this_machine:
        return owner.is_dead
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:  # dated by the same clock
            return os.fstat(probe.fileno()).st_mtime - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:  # released a moment ago: a contender notices when it takes over
        return True


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _remove_if(path: Path, text: str) -> None:
    """Remove a claim file if its text is still the given one."""
    if _read(path) == text:
        path.unlink(missing_ok=True)


def _beat_object(backend: Backend, path: str) -> None:
    backend.write(path, _claim_text().encode())


def _contenders(backend: Backend, folder: str) -> _Contenders:
    contenders = _Contenders([], [])
    names = backend.listing(folder)
    contents = backend.read([f"{folder}/{name}" for name in names])
    for name, content in zip(names, contents, strict=True):
        if content is None:  # released since the listing
            continue
        if _is_live(content.decode()):
            contenders.live.append(name)
        else:
            contenders.stale.append(name)
    return contenders


def _is_live(text: str) -> bool:
    owner = _owner(text)
    if owner is None or owner.is_dead:
        return False
    return bool(time.time() - json.loads(text).get("beat", 0.0) < STALE_SECONDS)


def _claim_text() -> str:
    """The content of a claim: unique, with its owner and the time of writing (Unix seconds)."""
    return json.dumps(
        {
            "owner": this_process().token,
            "host": socket.gethostname(),
            "beat": time.time(),
            "id": uuid4().hex,
        }
    )


def _owner(text: str) -> Owner | None:
    """The process that wrote a claim; None while its text is not completely there."""
    try:
        return Owner.parse(json.loads(text)["owner"])
    except (ValueError, KeyError, TypeError):
        return None


class _Heartbeat:
    """One thread that renews all claims of this process; it ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beats: dict[str, Callable[[], object]] = {}
        self._thread: threading.Thread | None = None

    def start(self, name: str, beat: Callable[[], object]) -> None:
        """Call ``beat`` every ``HEARTBEAT_SECONDS`` from now on."""
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


_HEARTBEAT = _Heartbeat()
