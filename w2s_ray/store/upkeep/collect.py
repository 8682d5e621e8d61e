"""Collection: what no study needs, what was set aside, and what dead processes have left.

A study needs the steps that its cells and its plan name, and all that went into these. A bundle
goes only if nobody needs any of its members. While a living process works on the store no artifact
goes: it may be at work for a study that is not written down yet.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.names import DAMAGED, RECORD, key_of
from w2s_ray.store.upkeep.inventory import (
    Folder,
    Inventory,
    Studies,
    read_inventory,
    read_studies,
    with_inputs,
)
from w2s_ray.store.upkeep.remains import Remains, find_remains, live_claims, remove
from w2s_ray.store.upkeep.trees import tree


class DamagedStore(InputError):
    """What studies need cannot be read, so nothing may be removed."""


class Collection(NamedTuple):
    """What can go.

    Attributes:
        artifacts: that no study needs.
        damaged: folders below ``damaged/``.
        remains: of dead processes and finished work.
        kept: artifacts that no study needs, and that stay while processes work on the store.
        live: names that living processes hold.
    """

    artifacts: list[Folder]
    damaged: list[Remains]
    remains: list[Remains]
    kept: list[Folder]
    live: set[str]


def find(store: Store, *, keep_damaged: bool = False) -> Collection:
    """What can go; nothing is removed.

    Raises:
        DamagedStore: A record, a bundle or the file of a study is damaged.
        InputError: The store cannot be read, or has artifacts and no study at all.
    """
    inventory, studies = read_inventory(store), read_studies(store)
    for line in (*map(str, inventory.damaged), *studies.unreadable):
        raise DamagedStore(f"nothing was removed: {line.partition('; ')[0]}; repair it first")
    if inventory.folders and not studies.named:
        raise InputError(
            f"nothing was removed: none of the {len(inventory.keys):,} artifacts of this store is "
            "needed, since it has no study; expected studies/ or plans/, or remove the store itself"
        )
    needed = needed_by(store, studies, inventory)
    with store.reading():
        live = live_claims(store)
    free = [folder for folder in inventory.folders if needed.isdisjoint(folder.keys)]
    return Collection(
        [] if live else free,
        [] if keep_damaged else list(_set_aside(store, inventory)),
        find_remains(store, inventory.keys, needed, inventory.without_record),
        free if live else [],
        live,
    )


def needed_by(store: Store, studies: Studies, inventory: Inventory) -> set[str]:
    """Keys of the steps that the studies need, inputs included."""
    wanted = (key for study in studies.named.values() for key in study.keys)
    return with_inputs(store, wanted, inventory.keys)


def collect(store: Store, found: Collection) -> Iterator[Folder | Remains]:
    """Removes what can go, and yields it.

    Raises:
        InputError: The store cannot be written.
    """
    with store.writing_errors():
        for folder in found.artifacts:
            with store.claim(key_of(folder.path)) as held:
                path = f"{folder.path}/{RECORD}"
                if held and store.backend.read([path]) == [folder.content]:
                    store.remove(path)  # the removal, on an object store; the rest takes a while
                    store.discard(folder.path)
                    yield folder
        for old in found.damaged:
            _discard_set_aside(store, old.path)
            yield old
    yield from remove(store, found.remains)


def _discard_set_aside(store: Store, path: str) -> None:
    """Removes an artifact that was set aside, and what an object store left where it was."""
    original = path.removeprefix(f"{DAMAGED}/").rpartition("-")[0]
    records = store.backend.read([f"{path}/{RECORD}", f"{original}/{RECORD}"])
    record, present = records
    if record is not None and record != present and not isinstance(store.backend, LocalBackend):
        store.discard(store.backend.file_in(original, record, "").rstrip("/"))
    store.discard(path)


def _set_aside(store: Store, inventory: Inventory) -> Iterator[Remains]:
    """Artifacts that were set aside."""
    with store.reading():
        for kind in store.listing(DAMAGED):
            for name in store.listing(f"{DAMAGED}/{kind}"):
                path = f"{DAMAGED}/{kind}/{name}"
                yield Remains(path, "it was set aside", tree(store, path))


def sizes(items: Iterable[Folder | Remains]) -> int:
    """Size in bytes of what is listed."""
    return sum(each.bytes if isinstance(each, Folder) else each.tree.bytes for each in items)
