"""``InputError``, the exception for user mistakes: one line, exit code 2, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A mistake in the user's input (spec, data, model or options), reported as one line.

    The message names the file or field, the value, what was expected and, if there is one, the
    nearest valid name.

    Attributes:
        place: the field of the spec at fault, as a path of names and indices; () if it is none.
    """

    def __init__(self, message: str, place: tuple[int | str, ...] = ()) -> None:
        super().__init__(" ".join(message.split()))
        self.place = place


@contextmanager
def at(*place: int | str) -> Iterator[None]:
    """Attach the spec field ``place`` to any ``InputError`` from the block that names no field."""
    try:
        yield
    except InputError as error:
        error.place = error.place or place
        raise
