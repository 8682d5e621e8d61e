"""``InputError``, the exception for user mistakes: one line, exit code 2, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from w2s_ray.masking import masked


class InputError(ValueError):
    """A mistake in the user's input (spec, data, model or options), reported as one line.

    The message names the file or field, the value, what was expected and, if there is one, the
    nearest valid name. It holds no secrets (``masking``).

    Attributes:
        place: the field of the spec at fault, as a path of names and indices; () if it is none.
    """

    def __init__(self, message: str, place: tuple[int | str, ...] = ()) -> None:
        super().__init__(masked(" ".join(message.split())))
        self.place = place


class SystemFault(InputError):
    """The system refused in the middle of a run (disk, permission, network): exit code 74."""


def line_of(error: BaseException) -> str:
    """Class and message of any exception as one line without secrets."""
    return masked(" ".join(f"{type(error).__name__}: {error}".split()))


@contextmanager
def at(*place: int | str) -> Iterator[None]:
    """Attach the spec field ``place`` to any ``InputError`` from the block that names no field."""
    try:
        yield
    except InputError as error:
        error.place = error.place or place
        raise
