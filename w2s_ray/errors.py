"""``InputError``, the exception for user mistakes: one line, exit code 2, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from w2s_ray.masking import masked
from w2s_ray.printable import printable, shortened


class InputError(ValueError):
    """A mistake in the user's input (spec, data, model or options), reported as one line.

    The message names the file or field, the value, what was expected and, if there is one, the
    nearest valid name. It holds no secrets (``masking``) and nothing that controls a terminal
    (``printable``).

    Attributes:
        place: the field of the spec at fault, as a path of names and indices; () if it is none.
    """

    def __init__(self, message: str, place: tuple[int | str, ...] = ()) -> None:
        super().__init__(one_line(message))
        self.place = place


def one_line(text: str) -> str:
    """A text as one printable line of bounded length, without secrets."""
    return shortened(printable(masked(" ".join(text.split()))))


def line_of(error: BaseException) -> str:
    """Class and message of any exception as one printable line without secrets."""
    return one_line(f"{type(error).__name__}: {error}")


@contextmanager
def at(*place: int | str) -> Iterator[None]:
    """Attach the spec field ``place`` to any ``InputError`` from the block that names no field."""
    try:
        yield
    except InputError as error:
        error.place = error.place or place
        raise
