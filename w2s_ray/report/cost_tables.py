"""Time, tokens and operations: of every kind of step of a study, and of its students."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from w2s_ray.report.page import Cell, Table, TableColumn, Text
from w2s_ray.report.settings import Row
from w2s_ray.report.slices import by

ALL = "all"
HOSTS = 3  # hosts that a cell names
NOT_RECORDED = "not recorded"

Record = Mapping[str, Any]


class StepCost(NamedTuple):
    """What the record of a finished step says of its cost; None: nothing.

    Attributes:
        seconds: wall-clock time, an equal share of it where steps were computed together.
        fused: how many steps were computed together.
    """

    kind: str
    seconds: float | None
    tokens: int | None
    flops: float | None
    fused: int
    device: str | None
    host: str | None

    @classmethod
    def of(cls, record: Record) -> "StepCost":
        """The cost in a record."""
        metrics = record["metrics"]
        return cls(
            kind=record["kind"],
            seconds=metrics.get("seconds"),
            tokens=metrics.get("tokens"),
            flops=metrics.get("flops"),
            fused=record["execution"].get("fused", 1),
            device=metrics.get("device"),
            host=record["provenance"].get("host"),
        )


def keys_of(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of all steps of a study's cells, each once; of further test sets too."""
    found: dict[str, None] = {}
    for cell in cells:
        found |= dict.fromkeys(cell["keys"].values())
        for keys in cell.get("tests", {}).values():
            found |= dict.fromkeys(keys.values())
    return list(found)


def step_cost_table(costs: Sequence[StepCost], steps: int, query: str) -> Text | Table:
    """Cost by kind of step, the most expensive first, and a last row of all.

    Args:
        costs: of the steps that have a record.
        steps: number of all steps of the study.
        query: that recomputes it.
    """
    missing = steps - len(costs)
    if not costs:
        return Text(
            f"The store has records of none of the study's {steps:,} steps, so nothing is known "
            "here of their time."
        )
    kinds = by(costs, lambda of: of.kind)
    ordered = sorted(kinds, key=lambda kind: (-(_sum(kinds[kind], "seconds") or 0.0), kind))
    notes = [
        "Wall-clock time; steps that were computed together (fused) have an equal share each. "
        "Every step counts once, whichever studies share it. The device is recorded where whole "
        "models or adapters are trained.",
        *_partial(costs),
    ]
    if missing:
        notes.append(
            f"{missing:,} of {steps:,} steps have no record: not computed yet, failed, or "
            "removed. Their time is not counted."
        )
    return Table(
        "cost-by-step",
        "Time and operations of the whole study, by kind of step",
        (
            TableColumn("kind of step"),
            TableColumn("steps", "number", 0),
            TableColumn("seconds", "number"),
            TableColumn("median seconds", "number", 2),
            TableColumn("fused, %", "percent"),
            TableColumn("tokens", "number", 0),
            TableColumn("operations", "number"),
            TableColumn("device"),
            TableColumn("host"),
        ),
        (*(_row(kind, kinds[kind]) for kind in ordered), _row(ALL, costs)),
        query,
        tuple(notes),
    )


def _row(kind: str, costs: Sequence[StepCost]) -> tuple[Cell, ...]:
    seconds = [of.seconds for of in costs if of.seconds is not None]
    return (
        Cell(text=kind),
        Cell(float(len(costs))),
        Cell(_sum(costs, "seconds")),
        Cell(median(seconds) if seconds else None),
        Cell(sum(of.fused > 1 for of in costs) / len(costs)),
        Cell(_sum(costs, "tokens")),
        operations(_sum(costs, "flops")),
        Cell(text=_devices([of.device for of in costs])),
        Cell(text=_hosts([of.host for of in costs])),
    )


def _sum(costs: Sequence[StepCost], name: str) -> float | None:
    values = [value for of in costs if (value := getattr(of, name)) is not None]
    return float(sum(values)) if values else None


def _partial(costs: Sequence[StepCost]) -> Iterator[str]:
    """Which sums leave out steps of their own kind, whose records lack the number."""
    for kind, own in by(costs, lambda of: of.kind).items():
        for name, title in (("seconds", "seconds"), ("tokens", "tokens"), ("flops", "operations")):
            known = sum(getattr(of, name) is not None for of in own)
            if 0 < known < len(own):
                counted = f"{known:,} of {len(own):,}"
                yield f"{kind}: {title} are of the {counted} steps that record them."


def operations(flops: float | None) -> Cell:
    """A number of floating-point operations, in powers of ten."""
    return Cell() if flops is None else Cell(flops, text=f"{flops:.3g}")


def _devices(devices: Sequence[str | None]) -> str:
    counts = Counter(device for device in devices if device is not None)
    if not counts:
        return NOT_RECORDED
    if counts.total() == len(devices) and len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items()))


def _hosts(hosts: Sequence[str | None]) -> str:
    names = sorted({host for host in hosts if host is not None})
    more = f" and {len(names) - HOSTS} more" if len(names) > HOSTS else ""
    return ", ".join(names[:HOSTS]) + more if names else NOT_RECORDED


def student_cost_table(rows: Sequence[Row], query: str) -> Table | None:
    """Time and operations of the students, by way of training; None without a finished one."""
    done = [row for row in rows if row["status"] == "done" and not row["control"]]
    groups = by(done, lambda row: (row["strong"], row["trainable"]))
    if not groups:
        return None
    return Table(
        "cost",
        "Training of the students; steps that they share (features, labels, ceilings) not counted",
        (
            TableColumn("strong model"),
            TableColumn("trainable"),
            *(TableColumn(title, "number", 0) for title in ("students", "seconds", "tokens")),
            TableColumn("operations", "number"),
        ),
        tuple(
            (
                Cell(text=strong),
                Cell(text=trainable),
                Cell(float(len({row["key"] for row in own}))),
                Cell(_over_students(own, "seconds")),
                Cell(_over_students(own, "tokens")),
                operations(_over_students(own, "flops")),
            )
            for (strong, trainable), own in groups.items()
        ),
        query,
    )


def _over_students(rows: Sequence[Row], name: str) -> float | None:
    """A sum over the students, each once; None where none has the number."""
    by_key = {row["key"]: row[name] for row in rows if row[name] is not None}
    return float(sum(by_key.values())) if by_key else None
