"""What a store holds, in numbers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import DAMAGED
from w2s_ray.store.results import cell_status
from w2s_ray.store.upkeep.inventory import Inventory, Study, read_inventory, read_studies
from w2s_ray.store.upkeep.remains import find_remains
from w2s_ray.store.upkeep.trees import size_text, total, tree


class OfKind(NamedTuple):
    """Artifacts of a kind: members of bundles counted, folders of their own and bundles, size."""

    artifacts: int
    folders: int
    bundles: int
    bytes: int


class OfStudy(NamedTuple):
    """A study's cells by status, and its steps.

    Attributes:
        cells: 0 before the end of its first run.
        pending: of the cells, those neither done nor failed; blocked ones count as failed.
        steps: that its plan and its cells name.
    """

    cells: int
    done: int
    failed: int
    pending: int
    steps: int
    finished_steps: int


@dataclass(frozen=True)
class Counted:
    """A number of things and their size."""

    count: int
    bytes: int


class Overview(NamedTuple):
    """A store in numbers.

    Attributes:
        damaged_records: messages; their folders are in no other number.
        set_aside: artifacts below ``damaged/``.
        leftovers: of dead processes and finished work.
    """

    location: str
    kinds: Mapping[str, OfKind]
    studies: Mapping[str, OfStudy]
    damaged_records: list[str]
    set_aside: Counted
    leftovers: Counted

    @property
    def all_kinds(self) -> OfKind:
        columns = zip(*self.kinds.values(), strict=True)
        return OfKind(*map(sum, columns)) if self.kinds else OfKind(0, 0, 0, 0)

    def as_json(self) -> dict[str, Any]:
        everything = self.all_kinds
        return {
            "store": self.location,
            "artifacts": everything.artifacts,
            "bytes": everything.bytes,
            "kinds": {name: of._asdict() for name, of in self.kinds.items()},
            "studies": {name: of._asdict() for name, of in self.studies.items()},
            "damaged_records": self.damaged_records,
            "damaged": asdict(self.set_aside),
            "leftovers": asdict(self.leftovers),
        }


def overview(store: Store) -> Overview:
    """Reads records, cells and notes, and no other file of an artifact.

    Raises:
        InputError: The store cannot be read, or there is none.
    """
    inventory, studies = read_inventory(store), read_studies(store)
    finished, failures = inventory.keys, store.failures()
    # Without the inputs of steps: which checkpoints are needed is the question of ``gc``.
    remains = find_remains(store, finished, None, inventory.without_record)
    with store.reading():
        aside = [
            tree(store, f"{DAMAGED}/{kind}/{name}")
            for kind in store.listing(DAMAGED)
            for name in store.listing(f"{DAMAGED}/{kind}")
        ]
    return Overview(
        store.location("").rstrip("/"),
        _kinds(inventory),
        {name: _of(study, finished, failures) for name, study in studies.named.items()},
        [*map(str, inventory.damaged), *studies.unreadable],
        Counted(len(aside), total(aside)),
        Counted(len(remains), total(each.tree for each in remains)),
    )


def _kinds(inventory: Inventory) -> dict[str, OfKind]:
    kinds: dict[str, OfKind] = {}
    keys: dict[str, set[str]] = {}
    for folder in inventory.folders:
        before = kinds.get(folder.kind, OfKind(0, 0, 0, 0))
        of_kind = keys.setdefault(folder.kind, set())
        of_kind.update(folder.keys)
        is_bundle = "members" in folder.record
        kinds[folder.kind] = OfKind(
            len(of_kind),
            before.folders + (not is_bundle),
            before.bundles + is_bundle,
            before.bytes + folder.bytes,
        )
    return dict(sorted(kinds.items()))


def _of(study: Study, finished: set[str], failures: Mapping[str, Mapping[str, Any]]) -> OfStudy:
    present = dict.fromkeys(finished)
    states = Counter(cell_status(cell["keys"], present, failures)[0] for cell in study.cells or ())
    cells, done, failed = states.total(), states["done"], states["failed"] + states["blocked"]
    own = len(study.keys & finished)
    return OfStudy(cells, done, failed, cells - done - failed, len(study.keys), own)


def show(view: Overview, console: Console) -> None:
    """Prints the numbers as tables."""
    kinds = _table("kind", "artifacts", "folders", "bundles", "size")
    for name, of in (*view.kinds.items(), ("all", view.all_kinds)):
        numbers = (of.artifacts, of.folders, of.bundles)
        kinds.add_row(name, *(f"{number:,}" for number in numbers), size_text(of.bytes))
    studies = _table("study", "cells", "done", "failed", "pending", "steps", "finished steps")
    for name, counts in view.studies.items():
        studies.add_row(name, *(f"{number:,}" for number in counts))
    console.print(view.location, highlight=False, markup=False, soft_wrap=True)
    console.print(kinds)
    if view.studies:
        console.print(studies)
    for line in view.damaged_records:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for name, counted in (("damaged", view.set_aside), ("leftovers", view.leftovers)):
        size = size_text(counted.bytes)
        console.print(f"{name:<12} {counted.count:,}, {size}", highlight=False, markup=False)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
