"""Claims: one holder for each key among all processes and hosts that share a store.

A claim saves work; it never guards a result. Commits are atomic by themselves, so a claim that is
lost (a clock far off, a process suspended for minutes) costs a step computed twice and nothing
else. Take the claim, check again whether the key is finished, then work.

On a file system ``claims/<key>.<n>`` is created exclusively. A key is free if all claims on it are
stale; claim n + 1 then takes it over, where n is the highest, and creating it succeeds for one
contender only. That one holds the key only if claim n is still the file that was judged stale, and
if nobody has judged its own stale in turn, which was empty for a moment. Nothing that another
process may hold is ever renamed or overwritten.

An object store has no exclusive creation; see ``object_claims``.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from w2s_ray.store.owners import Holder, Owner
from w2s_ray.store.system import SYSTEM, AnyPath, System

STALE_SECONDS = 60.0
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
    text = claim_text(system)
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
                return holder_of(claim.text, None, system.age(claim.path), system)
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
    owner = owner_of(claim.text, system)
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


def claim_text(system: System, **more: Any) -> str:
    """The content of a claim: unique, with its owner and the time of writing (Unix seconds)."""
    return json.dumps(
        {
            "owner": system.this_process().token,
            "host": system.host,
            "beat": system.time(),
            "id": system.unique(),
            **more,
        }
    )


def owner_of(text: str, system: System) -> Owner | None:
    """The process that wrote a claim; None while its text is not completely there."""
    try:
        return system.owner(json.loads(text)["owner"])
    except (ValueError, KeyError, TypeError):
        return None


def holder_of(text: str, since: float | None, silent: float, system: System) -> Holder | None:
    """The holder whose claim has this text; ``since`` None: it was written when it was taken."""
    owner = owner_of(text, system)
    if owner is None:
        return None
    claim = json.loads(text)
    taken = claim.get("beat", 0.0) if since is None else since
    return Holder(claim.get("host", "another machine"), owner.pid, taken, silent)
