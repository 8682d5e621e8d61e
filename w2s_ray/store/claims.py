"""Claims: one holder for each key among all processes and hosts that share a store.

A claim saves work; it never guards a result. Commits are atomic by themselves, so a claim that is
lost (a clock far off, a process suspended for minutes) costs a step computed twice and nothing
else. Take the claim, check again whether the key is finished, then work.

On a file system ``claims/<key>.<n>`` is created exclusively. A key is free if all claims on it are
stale; claim n + 1 then takes it over, where n is the highest, and creating it succeeds for one
contender only. That one holds the key only if claim n is still the file that was judged stale, and
if nobody has judged its own stale in turn, which was empty for a moment. Nothing that another
process may hold is ever renamed or overwritten.

An object store has no exclusive creation that pyarrow reaches: each contender lists the claims,
writes ``claims/<key>/<own name>``, waits, lists again, and the earliest name holds the key. Whoever
has waited has seen all others that could have listed before it wrote, provided that nobody takes
longer than the wait from its first listing to the end of its write. Who does, withdraws.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import NamedTuple

from w2s_ray.store.backend import Backend
from w2s_ray.store.names import CLAIMS
from w2s_ray.store.owners import Holder, Owner
from w2s_ray.store.system import SYSTEM, AnyPath, System

STALE_SECONDS = 60.0
CONTENTION_SECONDS = 0.5  # on an object store; the wait, and the time that a write may take
CONTENTIONS = 3  # after so many slow writes the key is contended for all the same
CONCURRENT_CLAIMS = 64
ATTEMPTS = 20
GAP = 8  # numbers that may be missing below a live claim: holders taken over while still alive


class ClaimFile(NamedTuple):
    """A claim file as it was read; ``text`` is empty for a moment after it is created."""

    path: str
    text: str


class _OwnClaim(NamedTuple):
    """A claim file that was created, and the stale ones that it replaces."""

    path: str
    replaced: list[ClaimFile]


class _Contenders(NamedTuple):
    """Names of the claim objects for one key."""

    live: list[str]
    stale: list[str]


@contextmanager
def local_claims(
    folder: AnyPath, keys: Iterable[str], system: System = SYSTEM
) -> Iterator[set[str]]:
    """Hold those of the keys that nobody else holds; yields them."""
    with ExitStack() as claims:
        yield {key for key in keys if claims.enter_context(local_claim(folder, key, system))}


@contextmanager
def local_claim(folder: AnyPath, key: str, system: System = SYSTEM) -> Iterator[bool]:
    """Hold ``key`` if nobody else does; yields whether it is held.

    A claim is stale when its process is dead (same machine), or when its heartbeat is older than
    ``STALE_SECONDS`` by the file system's own clock (another machine).
    """
    text = _claim_text(system)
    try:
        claim = _acquire(folder, key, text, system)
    except KeyboardInterrupt:  # perhaps between the file and its name here
        for left in _claims(folder, key, system):
            if left.text == text:
                _remove_if(*left, system)
        raise
    if claim is None:
        yield False
        return
    system.start_beating(claim.path, partial(system.touch, claim.path))
    try:
        yield True
    finally:
        try:
            _release(claim, text, system)
        except KeyboardInterrupt:
            _release(claim, text, system)
            raise


def _release(claim: _OwnClaim, text: str, system: System) -> None:
    system.stop_beating(claim.path)
    for other in claim.replaced:  # while the key is held, nobody makes them anew
        if _is_stale(other, system):
            _remove_if(*other, system)
    _remove_if(claim.path, text, system)


def is_held(folder: AnyPath, key: str, system: System = SYSTEM) -> bool:
    """Whether a live claim on ``key`` exists."""
    return not all(_is_stale(claim, system) for claim in _claims(folder, key, system))


def local_holder(folder: AnyPath, key: str, system: System = SYSTEM) -> Holder | None:
    """Who holds ``key``; None if nobody does, or if that cannot be read at the moment."""
    for claim in reversed(_claims(folder, key, system)):
        if not _is_stale(claim, system):
            with suppress(FileNotFoundError):
                return _holder(claim.text, None, system.age(claim.path), system)
    return None


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
    name = _contend(backend, f"{CLAIMS}/{key}", system)
    if name is None:
        yield False
        return
    path = f"{CLAIMS}/{key}/{name}"
    system.start_beating(path, partial(_write_claim, backend, path, system))
    try:
        yield True
    finally:
        system.stop_beating(path)
        backend.remove(path)


def object_holder(backend: Backend, key: str, system: System = SYSTEM) -> Holder | None:
    """As ``local_holder``; times are by the clocks of two hosts."""
    folder = f"{CLAIMS}/{key}"
    for name in _contenders(backend, folder, system).live:
        (content,) = backend.read([f"{folder}/{name}"])
        if content is not None:
            text = content.decode()
            silent = max(0.0, system.time() - json.loads(text)["beat"])
            return _holder(text, int(name.partition("-")[0]) / 1e9, silent, system)
    return None


def _acquire(folder: AnyPath, key: str, text: str, system: System) -> _OwnClaim | None:
    """Create a claim file; None if somebody else holds the key."""
    system.make_folders(folder)
    for _ in range(ATTEMPTS):
        stale = _claims(folder, key, system)
        if not all(_is_stale(claim, system) for claim in stale):
            return None
        number = _number(stale[-1].path) + 1 if stale else 0
        path = f"{folder}/{key}.{number}"
        try:
            system.create(path, text.encode())
        except FileExistsError:
            continue
        is_free = not stale or _read(stale[-1].path, system) == stale[-1].text
        is_last = _numbers(folder, key, system)[-1:] == [number]
        if is_free and is_last and _read(path, system) == text:
            return _OwnClaim(path, stale)
        _remove_if(path, text, system)
    return None


def _claims(folder: AnyPath, key: str, system: System) -> list[ClaimFile]:
    """The claim files of ``key``, the highest number last."""
    paths = [f"{folder}/{key}.{number}" for number in _numbers(folder, key, system)]
    texts = [_read(path, system) for path in paths]
    return [ClaimFile(p, text) for p, text in zip(paths, texts, strict=True) if text is not None]


def _numbers(folder: AnyPath, key: str, system: System) -> list[int]:
    """The numbers of the claim files of ``key``.

    Asks for one number after the other: a listing would take time for all claims in the store.
    """
    numbers, end = [], GAP
    number = 0
    while number < end:
        if system.exists(f"{folder}/{key}.{number}"):
            numbers.append(number)
            end = number + 1 + GAP
        number += 1
    return numbers


def _number(path: str) -> int:
    return int(path.rpartition(".")[2])


def _is_stale(claim: ClaimFile, system: System) -> bool:
    owner = _owner(claim.text, system)
    if owner is not None and owner.is_on_this_machine:
        return owner.is_dead
    try:
        return system.age(claim.path) > STALE_SECONDS
    except FileNotFoundError:  # released a moment ago: a contender notices when it takes over
        return True


def _read(path: str, system: System) -> str | None:
    try:
        return system.read(path).decode()
    except FileNotFoundError:
        return None


def _remove_if(path: str, text: str, system: System) -> None:
    """Remove a claim file if its text is still the given one."""
    if _read(path, system) == text:
        with suppress(FileNotFoundError):
            system.remove(path)


def _contend(backend: Backend, folder: str, system: System) -> str | None:
    """The name of the object by which this process holds a key; None if somebody else holds it."""
    for contention in range(CONTENTIONS):
        began = system.monotonic()
        if _contenders(backend, folder, system).live:
            return None
        name = f"{int(system.time() * 1e9):020d}-{system.unique()[:8]}"
        path = f"{folder}/{name}"
        try:
            _write_claim(backend, path, system)
            in_time = system.monotonic() - began < CONTENTION_SECONDS
            if in_time or contention == CONTENTIONS - 1:
                system.sleep(CONTENTION_SECONDS)
                live, stale = _contenders(backend, folder, system)
                if min(live, default=None) == name:
                    for other in stale:
                        backend.remove(f"{folder}/{other}")
                    return name
        except BaseException:
            backend.remove(path)
            raise
        backend.remove(path)
        if in_time:
            return None
    return None


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


def _holder(text: str, since: float | None, silent: float, system: System) -> Holder | None:
    """The holder whose claim has this text; ``since`` None: it was written when it was taken."""
    owner = _owner(text, system)
    if owner is None:
        return None
    claim = json.loads(text)
    taken = claim.get("beat", 0.0) if since is None else since
    return Holder(claim.get("host", "another machine"), owner.pid, taken, silent)
