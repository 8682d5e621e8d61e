"""The stores that are simulated: a disk, and object stores that keep fewer promises."""

from typing import NamedTuple


class Model(NamedTuple):
    """What a schedule may contain.

    Attributes:
        name: for people.
        on_objects: an object store, not a file system.
        lag: seconds by which listings of the object store may be late.
        torn: objects may be left half written.
    """

    name: str
    on_objects: bool
    lag: float = 0.0
    torn: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether every promise holds at every moment, not only at the end."""
        return not (self.lag or self.torn)


DISK = Model("disk", on_objects=False)
OBJECTS = Model("objects", on_objects=True)
LAGGING = Model("lagging", on_objects=True, lag=3.0)
TORN = Model("torn", on_objects=True, torn=True)
MODELS = {model.name: model for model in (DISK, OBJECTS, LAGGING, TORN)}
