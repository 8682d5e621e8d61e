"""Values of axes that another field of the spec limits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from w2s_ray.spec.fields import Location, Mistake, mistake

if TYPE_CHECKING:
    from w2s_ray.spec.schema import Spec


def axis_mistakes(spec: "Spec") -> list[Mistake]:
    """What is wrong with the values of axes in the grid and its ``include`` entries."""
    parts = list(_parts(spec))
    wrong = [wrong for part in parts for wrong in _too_many_rows(spec, *part)]
    return wrong + [wrong for part in parts for wrong in _read_out_of_trained(*part)]


def _parts(spec: "Spec") -> Iterator[tuple[Location, dict[str, tuple[Any, ...]], frozenset[str]]]:
    """Grid and ``include`` entries: where, the values of each axis, and the axes written there."""
    axes = {axis: getattr(spec.grid, axis) for axis in type(spec.grid).model_fields}
    axes["data"] = spec.grid.data or tuple(spec.data)
    yield ("grid",), axes, frozenset(axes)
    for position, entry in enumerate(spec.grid.include):
        own = {
            axis: values for axis in type(entry).model_fields if (values := getattr(entry, axis))
        }
        yield ("grid", "include", position), {**axes, **own}, frozenset(own)


def _too_many_rows(
    spec: "Spec", place: Location, axes: dict[str, tuple[Any, ...]], own: frozenset[str]
) -> Iterator[Mistake]:
    """``train_rows`` above the rows of the split weak, as far as the spec says how many there are.

    Where it does not (``splits`` without ``sizes``), the student's step fails with this message.
    """
    sizes = {name: spec.data[name].sizes.weak for name in axes["data"] if name in spec.data}
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
