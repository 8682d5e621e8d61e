"""Claims on an object store, which has no exclusive creation that pyarrow reaches.

Each contender lists the claims, writes ``claims/<name>`` with all keys that it wants, waits, and
lists again: of those that want a key, the earliest name holds it. Whoever has waited has seen all
others that could have listed before it wrote, provided that nobody takes longer than the wait from
its first listing to the end of its write. Who does, withdraws.

A name is ``<nanoseconds>-<unique>-<marks>``. The marks say which keys the claim may be about, so
that it is read only by those that want one of these: a group of any size costs six requests.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

from w2s_ray.store import claims
from w2s_ray.store.backend import Backend
from w2s_ray.store.names import CLAIMS
from w2s_ray.store.owners import Holder
from w2s_ray.store.system import SYSTEM, System

CONTENTION_SECONDS = 0.5  # the wait, and the time that a write may take
CONTENTIONS = 3  # after so many slow writes the keys are contended for all the same
MARK = 6  # letters that stand for a key
MOST_MARKS = 16  # in a name, which some file systems limit to 255 letters
ANY = "any"  # in place of more marks


class _Claim(NamedTuple):
    """A claim of another process, or of this one.

    Attributes:
        keys: those that it holds or wants.
    """

    name: str
    keys: frozenset[str]


class _Contenders(NamedTuple):
    """The claims that share a key with this process, the earliest first."""

    live: list[_Claim]
    stale: list[_Claim]

    def first(self, key: str) -> str | None:
        """The name of the claim that holds the key, or is about to."""
        return next((claim.name for claim in self.live if key in claim.keys), None)


@contextmanager
def object_claims(
    backend: Backend, keys: Iterable[str], system: System = SYSTEM
) -> Iterator[set[str]]:
    """As ``claims.local_claims``; heartbeats are dated by the clocks of the hosts."""
    claim = _contend(backend, frozenset(keys), system)
    if claim is None:
        yield set()
        return
    path = _path(claim.name)
    system.start_beating(path, partial(_write, backend, claim, system))
    try:
        yield set(claim.keys)
    finally:
        system.stop_beating(path)
        backend.remove(path)


def object_holder(backend: Backend, key: str, system: System = SYSTEM) -> Holder | None:
    """As ``claims.local_holder``; times are by the clocks of two hosts."""
    name = _contenders(backend, frozenset([key]), system).first(key)
    (content,) = backend.read([_path(name)]) if name is not None else [None]
    if name is None or content is None:
        return None
    silent = max(0.0, system.time() - _parsed(content)["beat"])
    since = int(name.partition("-")[0]) / 1e9
    return claims.holder_of(content.decode(), since, silent, system)


def object_claimed(backend: Backend) -> set[str]:
    """The keys of all claims, also of those whose process is dead."""
    return {key for content in _contents(backend) for key in _keys(_parsed(content))}


def object_held(backend: Backend, system: System = SYSTEM) -> set[str]:
    """The keys of the claims of living processes."""
    live = [content for content in _contents(backend) if _is_live(content, system)]
    return {key for content in live for key in _keys(_parsed(content))}


def _contend(backend: Backend, keys: frozenset[str], system: System) -> _Claim | None:
    """The claim by which this process holds some of the keys; None if others hold them all."""
    for contention in range(CONTENTIONS if keys else 0):
        began = system.monotonic()
        others = _contenders(backend, keys, system)
        free = frozenset(key for key in keys if others.first(key) is None)
        if not free:
            return None
        claim = _Claim(_name(free, system), free)
        try:
            _write(backend, claim, system)
            in_time = system.monotonic() - began < CONTENTION_SECONDS
            if in_time or contention == CONTENTIONS - 1:
                system.sleep(CONTENTION_SECONDS)
                won = _won(backend, claim, system)
                if won.keys:
                    return won
        except BaseException:
            backend.remove(_path(claim.name))
            raise
        backend.remove(_path(claim.name))
        if in_time:
            return None
    return None


def _won(backend: Backend, claim: _Claim, system: System) -> _Claim:
    """The claim with those of its keys that are held; stale claims on them are removed."""
    contenders = _contenders(backend, claim.keys, system, claim)
    won = claim._replace(
        keys=frozenset(key for key in claim.keys if contenders.first(key) == claim.name)
    )
    if won.keys and won != claim:
        _write(backend, won, system)
    for other in contenders.stale:
        if other.keys & won.keys:
            backend.remove(_path(other.name))
    return won


def _contenders(
    backend: Backend, keys: frozenset[str], system: System, own: _Claim | None = None
) -> _Contenders:
    """Reads the claims that share a key with ``keys``; one's own, if it is listed, is known."""
    contenders = _Contenders([], [])
    marks = {_mark(key) for key in keys}
    names = [name for name in _names(backend) if _may_concern(name, marks)]
    others = [name for name in names if own is None or name != own.name]
    contents = dict(zip(others, backend.read([_path(name) for name in others]), strict=True))
    for name in names:
        if own is not None and name == own.name:
            contenders.live.append(own)
            continue
        content = contents[name]
        if content is None:  # released since the listing
            continue
        # What cannot be read, a half-written object, is stale and in the way of every key.
        parsed = _parsed(content)
        shared = _keys(parsed) & keys if parsed else keys
        if shared:
            is_live = _is_live(content, system)
            (contenders.live if is_live else contenders.stale).append(_Claim(name, shared))
    return contenders


def _is_live(content: bytes, system: System) -> bool:
    owner = claims.owner_of(content.decode(errors="replace"), system)
    if owner is None or owner.is_dead:
        return False
    return bool(system.time() - _parsed(content).get("beat", 0.0) < claims.STALE_SECONDS)


def _contents(backend: Backend) -> list[bytes]:
    contents = backend.read([_path(name) for name in _names(backend)])
    return [content for content in contents if content is not None]


def _names(backend: Backend) -> list[str]:
    """The names of all claims, the earliest first."""
    return [name for name in backend.listing(CLAIMS) if name.count("-") >= 2]


def _name(keys: frozenset[str], system: System) -> str:
    marks = sorted(_mark(key) for key in keys) if len(keys) <= MOST_MARKS else [ANY]
    return "-".join([f"{int(system.time() * 1e9):020d}", system.unique()[:8], *marks])


def _may_concern(name: str, marks: set[str]) -> bool:
    of_name = name.split("-")[2:]
    return ANY in of_name or not marks.isdisjoint(of_name)


def _mark(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:MARK]


def _path(name: str) -> str:
    return f"{CLAIMS}/{name}"


def _write(backend: Backend, claim: _Claim, system: System) -> None:
    text = claims.claim_text(system, keys=sorted(claim.keys))
    backend.write(_path(claim.name), text.encode())


def _parsed(content: bytes) -> dict[str, Any]:
    """The content of a claim; empty if it is not completely there."""
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _keys(parsed: dict[str, Any]) -> frozenset[str]:
    return frozenset(parsed.get("keys", ()))
