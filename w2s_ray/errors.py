"""The exception that means "the user can mend this": one line, exit code 2, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A mistake in what the user gave (spec, data, model, options), told in one line.

    The line names the place, the value, what was expected and, where there is one, the nearest
    right name. ``place``: where in the spec, as a path of names and positions; () if nowhere.
    """

    def __init__(self, message: str, place: tuple[int | str, ...] = ()) -> None:
        super().__init__(" ".join(message.split()))
        self.place = place


@contextmanager
def at(*place: int | str) -> Iterator[None]:
    """An ``InputError`` raised inside is about this place of the spec, if it names no other."""
    try:
        yield
    except InputError as error:
        error.place = error.place or place
        raise
