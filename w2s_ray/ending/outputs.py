"""Standard output and error that never stop a run.

Hours of work must not be lost because the terminal was closed, the reader of a pipe has gone, a
disk with the log is full, or a character is not in the terminal's encoding. Results are in the
store in any case. What could not be written is said at the end, in one line and by the exit code.
"""

import errno
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO, cast

from w2s_ray.masking import MaskedStream

STANDARD = (0, 1, 2)
# The reader has gone, or there never was one: no more output is wanted.
_UNWANTED = (errno.EPIPE, errno.EBADF)


def open_standard_files() -> None:
    """Opens closed standard files (``>&-``) on /dev/null.

    The next file to be opened would get the number of a closed one, and then receive whatever
    libraries print. To be called before any file is opened.
    """
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


class Output:
    """A text stream whose errors are noted and not raised; in all else the stream itself.

    Attributes:
        problem: why text was lost; "" if none was, or nobody wanted it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem = ""
        if hasattr(stream, "reconfigure"):  # a character that the encoding lacks, as \u2265
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError) as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        """Notes the error and writes to /dev/null from now on, which takes what is buffered too."""
        if getattr(error, "errno", None) not in _UNWANTED:
            self.problem = self.problem or getattr(error, "strerror", None) or str(error)
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard() -> Output:
    """Guards and masks ``sys.stdout`` and ``sys.stderr``; returns the former."""
    out, err = Output(sys.stdout or _nowhere()), Output(sys.stderr or _nowhere())
    # What libraries print, and the traceback of an error of our own, hold no secrets either.
    sys.stdout, sys.stderr = MaskedStream(cast(TextIO, out)), MaskedStream(cast(TextIO, err))
    return out


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
