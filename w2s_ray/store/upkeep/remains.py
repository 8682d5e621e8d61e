"""What dead processes and finished work leave in a store, and its removal.

Temporary folders of dead owners, claims of the dead, checkpoints and parts of steps that are
finished or that no study needs, notes on failures of such steps, and what an interrupted upload
has left on an object store. Whatever a living process may be working on stays: a key is claimed
before anything of it is removed.
"""

import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from w2s_ray.store import claims
from w2s_ray.store.artifacts import Store
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.names import CHECKPOINTS, CLAIMS, FAILURES, PARTS, component
from w2s_ray.store.owners import Owner
from w2s_ray.store.temporary import ABANDONED_AFTER_SECONDS, PREFIX
from w2s_ray.store.upkeep.trees import Tree, tree

_UPLOADED = re.compile(r"files-[0-9a-f]{16}")


class Remains(NamedTuple):
    """Something that can go.

    Attributes:
        path: of a file or folder of the store.
        why: it can go.
        key: that is claimed while it is removed; "": none.
    """

    path: str
    why: str
    tree: Tree
    key: str = ""


def find_remains(
    store: Store,
    finished: Collection[str],
    needed: Collection[str] | None,
    without_record: Iterable[str],
) -> list[Remains]:
    """What can go.

    Args:
        finished: keys of finished steps.
        needed: keys of the steps that studies need; None: all may be needed.
        without_record: paths of folders that have none.

    Raises:
        InputError: The store cannot be read.
    """
    with store.reading():
        live = live_claims(store)
        found = [*_temporary(store), *_dead_claims(store, live)]
        for folder in (CHECKPOINTS, PARTS, FAILURES):
            for name in store.listing(folder):
                key = name.removesuffix(".json")
                if not _is_component(key) or key in live:
                    continue
                path = f"{folder}/{name}"
                if key in finished:
                    found.append(Remains(path, "its step is finished", tree(store, path), key))
                elif needed is not None and key not in needed:
                    found.append(Remains(path, "no study needs its step", tree(store, path), key))
        found += _interrupted_uploads(store, without_record, live)
    return found


def remove(store: Store, remains: Sequence[Remains]) -> list[Remains]:
    """Removes what can go, and returns that; what a living process has claimed by now stays."""
    removed = [each for each in remains if not each.key]
    keys = sorted({each.key for each in remains if each.key})
    with store.writing_errors(), store.claims(keys) as held:
        # Claims of the dead were taken over, and are removed when these are released.
        for each in remains:
            if not each.key:
                store.discard(each.path)
            elif each.key in held:
                removed.append(each)
                if each.path.startswith(f"{FAILURES}/"):
                    store.remove(each.path)
                elif not each.path.startswith(f"{CLAIMS}/"):
                    store.discard(each.path)
    return removed


def live_claims(store: Store) -> set[str]:
    """Keys that living processes hold, as far as that can be seen."""
    return {key for key in store.held() if _is_component(key)}


def _dead_claims(store: Store, live: Collection[str]) -> Iterator[Remains]:
    for name in sorted(store.claimed()):
        if _is_component(name) and name not in live:
            path = f"{CLAIMS}/{name}"
            yield Remains(path, "its process is dead", Tree(), name)


def _temporary(store: Store) -> Iterator[Remains]:
    """Temporary files and folders on a file system; those of object stores are in a local cache."""
    backend = store.backend
    if not isinstance(backend, LocalBackend):
        return
    for depth in ("", "*/", "*/*/"):
        for path in sorted(backend.root.glob(f"{depth}{PREFIX}*")):
            below = path.relative_to(backend.root).as_posix()
            if _is_abandoned(path, tree(store, below), backend.root / CLAIMS):
                yield Remains(below, "its process is dead", tree(store, below))


def _is_abandoned(path: Path, held: Tree, claims_folder: Path) -> bool:
    """As ``temporary.remove_abandoned`` judges."""
    name, _, random = path.name.removeprefix(PREFIX).rpartition("-")
    name, _, token = name.rpartition("-")
    owner = Owner.parse(token) if random else None
    if owner is not None and owner.is_on_this_machine:
        return owner.is_dead
    changed = max(held.changed, path.lstat().st_mtime)
    if time.time() - changed <= ABANDONED_AFTER_SECONDS:
        return False
    return not (_is_component(name) and claims.is_held(claims_folder, name))


def _interrupted_uploads(
    store: Store, paths: Iterable[str], live: Collection[str]
) -> Iterator[Remains]:
    """Files that were sent to an object store without the record that makes them an artifact.

    They are a day old, and nobody works on anything: a step that is fused is not claimed by its
    own key.
    """
    if isinstance(store.backend, LocalBackend) or live:
        return
    for path in paths:
        names = store.listing(path)
        if not names or not all(_UPLOADED.fullmatch(name) for name in names):
            continue
        size = tree(store, path)
        if size.age_seconds > ABANDONED_AFTER_SECONDS:
            yield Remains(path, "an upload that did not end", size)


def _is_component(name: str) -> bool:
    with suppress(ValueError):
        return component(name) == name
    return False
