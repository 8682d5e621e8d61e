"""What is in a store: its committed folders, its studies, and which steps these need."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from w2s_ray.errors import InputError
from w2s_ray.store.addresses import shown
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError, damaged
from w2s_ray.store.bundles import is_whole, member_keys
from w2s_ray.store.finished import RECORDS_AT_ONCE, Finder, groups, read_records
from w2s_ray.store.names import PLANS, RECORD, RESERVED, STUDIES, is_bundle, plan_file, study_file
from w2s_ray.store.records import recorded_files


class Folder(NamedTuple):
    """A committed folder.

    Attributes:
        content: of its record.
        keys: of the steps that it has.
    """

    path: str
    content: bytes
    record: dict[str, Any]
    keys: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.path.partition("/")[0]

    @property
    def bytes(self) -> int:
        """Size of its files and of its record."""
        files = recorded_files(self.record).values()
        return len(self.content) + sum(file.size for file in files)


class Inventory(NamedTuple):
    """The folders below the kinds of steps.

    Attributes:
        damaged: an error for each folder whose record is damaged.
        without_record: paths of folders (and files) that have none.
    """

    folders: list[Folder]
    damaged: list[StoreError]
    without_record: list[str]

    @property
    def keys(self) -> set[str]:
        """Of all finished steps."""
        return {key for folder in self.folders for key in folder.keys}


class Study(NamedTuple):
    """A study as the store knows it.

    Attributes:
        cells: None before the end of its first run.
        keys: of its steps, as its cells and its plan name them.
        planned: number of steps of its plan; 0 if it was written by an earlier version.
    """

    cells: list[dict[str, Any]] | None
    keys: set[str]
    planned: int


class Studies(NamedTuple):
    """The studies of a store by name, and a line for each file of one that cannot be read."""

    named: dict[str, Study]
    unreadable: list[str]


def read_inventory(store: Store) -> Inventory:
    """Reads the record of every folder.

    Raises:
        InputError: The store cannot be read, or there is none.
    """
    with store.reading():
        if not store.listing(""):
            location = store.location("").rstrip("/")
            raise InputError(f"STORE: {location} is empty or does not exist, expected a store")
        paths = sorted(store.backend.folders(RESERVED))
    folders: list[Folder] = []
    damages: list[StoreError] = []
    for group in groups(paths, RECORDS_AT_ONCE):
        for path, content, record in read_records(store, group, damages):
            if not is_bundle(path):
                folders.append(Folder(path, content, record, (record["key"],)))
            elif is_whole(record):
                folders.append(Folder(path, content, record, tuple(member_keys(record))))
            else:
                problem = f"{RECORD} lists other members than its key names"
                damages.append(damaged(shown(store.uri), path, content, problem))
    seen = {folder.path for folder in folders} | {error.path for error in damages}
    return Inventory(folders, damages, [path for path in paths if path not in seen])


def read_studies(store: Store) -> Studies:
    """The studies of a store, from their cells and plans.

    Raises:
        InputError: The store cannot be read.
    """
    named: dict[str, Study] = {}
    unreadable: list[str] = []
    with store.reading():
        listed = {
            name.removesuffix(".json")
            for folder in (STUDIES, PLANS)
            for name in store.listing(folder)
            if name.endswith(".json")
        }
        for name in sorted(listed):
            contents = store.backend.read([study_file(name), plan_file(name)])
            try:
                named[name] = study_of(*contents)
            except ValueError as error:
                files = f"{study_file(name)} or {plan_file(name)}"
                unreadable.append(f"study {name}: {files} is damaged: {error}")
    return Studies(named, unreadable)


def study_of(cells: bytes | None, plan: bytes | None) -> Study:
    """The study with these files.

    Raises:
        ValueError: One of them is damaged.
    """
    try:
        saved = None if cells is None else json.loads(cells)["cells"]
        planned = [] if plan is None else json.loads(plan)["keys"]
        keys = set(planned)
        for cell in saved or ():
            for of in (cell["keys"], *cell.get("tests", {}).values()):
                keys.update(of.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not what a run writes ({type(error).__name__})") from None
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("a key that is no text")
    return Study(saved, keys, len(planned))


def with_inputs(store: Store, wanted: Iterable[str], finished: Iterable[str]) -> set[str]:
    """The wanted keys, and those of all inputs that finished steps among them have.

    Raises:
        StoreError: A bundle is damaged.
    """
    inputs = _inputs(store, finished)
    reached = set(wanted)
    queue = list(reached)
    while queue:
        for key in inputs.get(queue.pop(), {}).values():
            if key not in reached:
                reached.add(key)
                queue.append(key)
    return reached


def _inputs(store: Store, keys: Iterable[str]) -> dict[str, Mapping[str, str]]:
    return {key: step.record["inputs"] for key, step in Finder(store, sorted(keys)).steps()}
