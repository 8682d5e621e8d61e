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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from w2s_ray.store.backend import Backend
from w2s_ray.store.names import CLAIMS
from w2s_ray.store.owners import Owner
from w2s_ray.store.system import SYSTEM, System

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
def local_claims(folder: Path, keys: Iterable[str], system: System = SYSTEM) -> Iterator[set[str]]:
    """Hold those of the keys that nobody else holds; yields them."""
    with ExitStack() as claims:
        yield {key for key in keys if claims.enter_context(local_claim(folder, key, system))}


@contextmanager
def local_claim(folder: Path, key: str, system: System = SYSTEM) -> Iterator[bool]:
    """Hold ``key`` if nobody else does; yields whether it is held.

    A claim is stale when its process is dead (same machine), or when its heartbeat is older than
    ``STALE_SECONDS`` by the file system's own clock (another machine).
    """
    text = _claim_text(system)
    claim = _acquire(folder, key, text, system)
    if claim is None:
        yield False
        return
    system.start_beating(str(claim.path), partial(system.touch, claim.path))
    try:
        yield True
    finally:
        system.stop_beating(str(claim.path))
        _remove_if(claim.path, text, system)
        if claim.replaced is not None:
            _remove_if(*claim.replaced, system)


def is_held(folder: Path, key: str, system: System = SYSTEM) -> bool:
    """Whether a live claim on ``key`` exists."""
    path = _highest(folder, key, system)
    text = None if path is None else _read(path, system)
    return path is not None and text is not None and not _is_stale(path, text, system)


@contextmanager
def object_claims(
    backend: Backend, keys: Iterable[str], system: System = SYSTEM
) -> Iterator[set[str]]:
    """As ``local_claims``, on an object store; all keys are contended for at the same time."""
    keys = list(keys)
    with ExitStack() as claims:
        contexts = [object_claim(backend, key, system) for key in keys]
        enter = [partial(claims.enter_context, context) for context in contexts]
        is_held = system.at_once(enter, CONCURRENT_CLAIMS)
        yield {key for key, held in zip(keys, is_held, strict=True) if held}


@contextmanager
def object_claim(backend: Backend, key: str, system: System = SYSTEM) -> Iterator[bool]:
    """As ``local_claim``, without exclusive creation; heartbeats are dated by the hosts' clocks."""
    folder = f"{CLAIMS}/{key}"
    if _contenders(backend, folder, system).live:
        yield False
        return
    name = f"{int(system.time() * 1e9):020d}-{system.unique()[:8]}"
    path = f"{folder}/{name}"
    beat = partial(_write_claim, backend, path, system)
    beat()
    try:
        system.sleep(CONTENTION_SECONDS)
        live, stale = _contenders(backend, folder, system)
        held = min(live, default=None) == name
        if held:
            system.start_beating(name, beat)
            for other in stale:
                backend.remove(f"{folder}/{other}")
        else:
            backend.remove(path)
        yield held
    finally:
        system.stop_beating(name)
        backend.remove(path)


def _acquire(folder: Path, key: str, text: str, system: System) -> _LocalClaim | None:
    """Create a claim file; None if somebody else holds the key."""
    system.make_folders(folder)
    for _ in range(ATTEMPTS):
        number, replaced = 0, None
        if (highest := _highest(folder, key, system)) is not None:
            judged = _read(highest, system)
            if judged is None:  # released a moment ago
                continue
            if not _is_stale(highest, judged, system):
                return None
            number, replaced = int(highest.suffix[1:]) + 1, (highest, judged)
        path = folder / f"{key}.{number}"
        try:
            system.create(path, text.encode())
        except FileExistsError:
            continue
        if replaced is None or _read(replaced[0], system) == replaced[1]:
            return _LocalClaim(path, replaced)
        _remove_if(path, text, system)
    return None


def _highest(folder: Path, key: str, system: System) -> Path | None:
    """The claim file of ``key`` with the highest number.

    Asks for one number after the other: a listing would take time for all claims in the store.
    """
    highest, number = -1, 0
    while number <= highest + GAP:
        if system.exists(f"{folder}/{key}.{number}"):
            highest = number
        number += 1
    return folder / f"{key}.{highest}" if highest >= 0 else None


def _is_stale(path: Path, text: str, system: System) -> bool:
    owner = _owner(text, system)
    if owner is not None and owner.is_on_this_machine:
        return owner.is_dead
    try:
        return system.age(path) > STALE_SECONDS
    except FileNotFoundError:  # released a moment ago: a contender notices when it takes over
        return True


def _read(path: Path, system: System) -> str | None:
    try:
        return system.read(path).decode()
    except FileNotFoundError:
        return None


def _remove_if(path: Path, text: str, system: System) -> None:
    """Remove a claim file if its text is still the given one."""
    if _read(path, system) == text:
        with suppress(FileNotFoundError):
            system.remove(path)


def _write_claim(backend: Backend, path: str, system: System) -> None:
    backend.write(path, _claim_text(system).encode())


def _contenders(backend: Backend, folder: str, system: System) -> _Contenders:
    contenders = _Contenders([], [])
    names = backend.listing(folder)
    contents = backend.read([f"{folder}/{name}" for name in names])
    for name, content in zip(names, contents, strict=True):
        if content is None:  # released since the listing
            continue
        if _is_live(content.decode(), system):
            contenders.live.append(name)
        else:
            contenders.stale.append(name)
    return contenders


def _is_live(text: str, system: System) -> bool:
    owner = _owner(text, system)
    if owner is None or owner.is_dead:
        return False
    return bool(system.time() - json.loads(text).get("beat", 0.0) < STALE_SECONDS)


def _claim_text(system: System) -> str:
    """The content of a claim: unique, with its owner and the time of writing (Unix seconds)."""
    return json.dumps(
        {
            "owner": system.this_process().token,
            "host": system.host,
            "beat": system.time(),
            "id": system.unique(),
        }
    )


def _owner(text: str, system: System) -> Owner | None:
    """The process that wrote a claim; None while its text is not completely there."""
    try:
        return system.owner(json.loads(text)["owner"])
    except (ValueError, KeyError, TypeError):
        return None
