"""Output that cannot be written stops nothing."""

import errno
import io
import os

import pytest

from w2s_ray.ending.outputs import Output


class Failing(io.StringIO):
    """Refuses everything after the first text."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        if self.getvalue():
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),
        (ValueError("I/O operation on closed file."), "I/O operation on closed file."),
    ],
)
def test_lost_text_is_noted_unless_nobody_reads_it(error: Exception, problem: str) -> None:
    stream = Failing(error)
    output = Output(stream)
    assert output.write("first") == 5
    assert output.write("second") == 6
    output.writelines(["third", "fourth"])
    output.flush()
    assert output.problem == problem
    assert stream.getvalue() == "first"


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", b"\\u2265 1"), ("latin-1", b"\\u2265 1"), ("utf-8", None)]
)
def test_characters_that_the_encoding_lacks_are_escaped(
    encoding: str, expected: bytes | None
) -> None:
    raw = io.BytesIO()
    output = Output(io.TextIOWrapper(raw, encoding=encoding))
    output.write("\u2265 1")
    output.flush()
    assert raw.getvalue() == (expected or "\u2265 1".encode())
    output.write("\udcff")  # of a file name that is not UTF-8
    output.flush()
    assert raw.getvalue().endswith(b"\\udcff") and not output.problem


def test_buffered_text_is_no_error_at_exit() -> None:
    """As after `| head -c 1`: what is buffered goes to /dev/null when the stream is closed."""
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    output = Output(stream)
    os.close(reader)
    output.write("x" * 100_000)
    output.flush()
    output.write("y")
    stream.close()
    assert output.problem == ""
