"""Values of axes that another field of the spec limits."""

from collections.abc import Iterator, Mapping
from typing import Any

from w2s_ray.spec.fields import Location, Mistake, mistake
from w2s_ray.spec.grid import Grid


def axis_mistakes(grid: Grid, weak_rows: Mapping[str, int | None]) -> list[Mistake]:
    """What is wrong with the values of axes in the grid and its ``include`` entries.

    Args:
        weak_rows: rows that students may learn from, by data set; None: not in the spec.
    """
    parts = list(_parts(grid, weak_rows))
    wrong = [wrong for part in parts for wrong in _too_many_rows(weak_rows, *part)]
    return wrong + [wrong for part in parts for wrong in _read_out_of_trained(*part)]


def _parts(
    grid: Grid, weak_rows: Mapping[str, int | None]
) -> Iterator[tuple[Location, dict[str, tuple[Any, ...]], frozenset[str]]]:
    """Grid and ``include`` entries: where, the values of each axis, and the axes written there."""
    axes = {axis: getattr(grid, axis) for axis in type(grid).model_fields}
    axes["data"] = grid.data or tuple(weak_rows)
    yield ("grid",), axes, frozenset(axes)
    for position, entry in enumerate(grid.include):
        own = {
            axis: values for axis in type(entry).model_fields if (values := getattr(entry, axis))
        }
        yield ("grid", "include", position), {**axes, **own}, frozenset(own)


def _too_many_rows(
    weak_rows: Mapping[str, int | None],
    place: Location,
    axes: dict[str, tuple[Any, ...]],
    own: frozenset[str],
) -> Iterator[Mistake]:
    """``train_rows`` above the rows of the split weak, as far as the spec says how many there are.

    Where it does not (``splits`` without ``sizes``), the student's step fails with this message.
    """
    sizes = {name: weak_rows.get(name) for name in axes["data"]}
    for position, count in enumerate(axes["train_rows"]):
        for name, size in sizes.items():
            if count is not None and size is not None and count > size:
                expected = f"at most {size}, the weak rows of data set '{name}', or null"
                where = place if "train_rows" in own else ("grid",)
                yield (*where, "train_rows", position), count, mistake(expected)


def _read_out_of_trained(
    place: Location, axes: dict[str, tuple[Any, ...]], own: frozenset[str]
) -> Iterator[Mistake]:
    """``readout_block`` with students whose backbone is trained, all of it."""
    trained = [trainable for trainable in axes["trainable"] if trainable != "last_layer"]
    for position, block in enumerate(axes["readout_block"]):
        if block is not None and trained:
            where = place if "readout_block" in own else ("grid",)
            expected = mistake(f"null with trainable: {trained[0]}, or trainable: last_layer alone")
            yield (*where, "readout_block", position), block, expected
