"""Leftovers: what processes that were killed have left in a store, and its removal."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import CHECKPOINTS, PARTS, component


def remove_leftovers(store: Store) -> None:
    """Remove claims of the dead, their workspaces, and unfinished work of finished steps.

    A key is claimed before anything of it is removed, and looked up while it is held; so nothing is
    removed that a living process, of this machine or another, may still use. What cannot be removed
    stays for another time.
    """
    with suppress(OSError, InputError):
        partial_work = {
            folder: set(_keys(store.listing(folder))) for folder in (CHECKPOINTS, PARTS)
        }
        with_work = set().union(*partial_work.values())
        with store.claims(sorted({*_keys(store.claimed()), *with_work})) as held:
            # Claims of the dead were taken over, and are removed when these are released.
            finished = store.finished_among(held & with_work)
            for folder, keys in partial_work.items():
                for key in sorted(keys & finished):
                    store.discard(f"{folder}/{key}")
        store.backend.remove_abandoned()


def _keys(names: Iterable[str]) -> Iterator[str]:
    """Those of the names that can be keys."""
    for name in names:
        with suppress(ValueError):
            yield component(name)
