"""Settings that depend on the number of classes K, which is known once the data are prepared."""

from collections.abc import Iterable

from w2s_ray.errors import InputError
from w2s_ray.plan.graph import Cell


def check_classes(cells: Iterable[Cell], num_classes: int) -> None:
    """Refuses cells that cannot be computed with K classes.

    Args:
        cells: of one data set.
        num_classes: K of that data set.

    Raises:
        InputError: with K > 2, a ``noise_strength`` between -1 and 0 (a partly flipped label has
            no single other class to move to); a ``label_clip`` of 1/K or more. ``place`` is the
            setting's.
    """
    for cell in cells:
        data, strength = cell.values["data"], float(cell.values["noise_strength"])
        clip = float(cell.values["label_clip"])
        if num_classes > 2 and -1 < strength < 0:
            raise InputError(
                f"grid.noise_strength: given {strength:g}, expected -1 or 0 to 1 with the "
                f"{num_classes} classes of data {data!r}",
                ("grid", "noise_strength"),
            )
        if clip * num_classes >= 1:
            raise InputError(
                f"training.label_clip: given {clip:g}, expected less than 1/{num_classes} with the "
                f"{num_classes} classes of data {data!r}",
                ("training", "label_clip"),
            )
