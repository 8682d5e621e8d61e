"""Text that is not UTF-8, with its place: decoders read in blocks and cannot name a line."""

from collections.abc import Iterable, Iterator

from w2s_ray.errors import InputError

ERRORS = "surrogateescape"
"""How a stream must be decoded for the functions here: each wrong byte becomes a surrogate."""

REMEDY = "save the file as UTF-8"


def checked_lines(name: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines of a file that was decoded with ``ERRORS``.

    Args:
        name: of the file in messages.

    Raises:
        InputError: a line has a byte that is not UTF-8.
    """
    for number, line in enumerate(lines, start=1):
        if wrong := wrong_byte(line):
            raise not_utf8(f"{name}:{number}", wrong)
        yield line


def wrong_byte(text: str) -> UnicodeDecodeError | None:
    """The first byte of a text decoded with ``ERRORS`` that is not UTF-8; None if all are."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            text.encode(errors=ERRORS).decode()
        except UnicodeDecodeError as error:
            return error
    return None


def not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    """The error for a byte at a file and line."""
    byte = error.object[error.start]
    return InputError(
        f"{where}: expected text in UTF-8, given the byte 0x{byte:02x} ({error.reason}); {REMEDY}"
    )
