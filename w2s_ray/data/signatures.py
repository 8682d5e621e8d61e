"""Files that are not what their name says, recognised by their first bytes.

Each is refused with what to do, before a reader makes a riddle of it ("expected a JSON object").
"""

from typing import NamedTuple

from w2s_ray.errors import InputError


class Signature(NamedTuple):
    """The beginning of a kind of file.

    Attributes:
        beginning: its first bytes.
        kind: what such a file is, in messages.
        remedy: what the user can do.
    """

    beginning: bytes
    kind: str
    remedy: str


NEVER_DATA = (
    Signature(
        b"version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS, not the data",
        "fetch the data with 'git lfs pull'",
    ),
    Signature(
        b"/annex/objects/", "a pointer of git-annex, not the data", "fetch it with 'git annex get'"
    ),
    Signature(b"<!doctype html", "a web page, not the data", "download the file itself"),
    Signature(b"<html", "a web page, not the data", "download the file itself"),
)
"""Beginnings that no format has; letters are compared in lower case."""

NEVER_TEXT = (
    Signature(b"\x1f\x8b", "compressed by gzip", "name it {name}.gz"),
    Signature(b"\x28\xb5\x2f\xfd", "compressed by zstd", "name it {name}.zst"),
    Signature(b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack or export it"),
    Signature(b"BZh", "compressed by bzip2", "unpack it"),
    Signature(b"\xfd7zXZ", "compressed by xz", "unpack it"),
    Signature(b"PAR1", "Parquet", "name it .parquet"),
    Signature(b"ARROW1", "an Arrow file", "name it .arrow"),
    Signature(b"\xff\xff\xff\xff", "an Arrow stream", "name it .arrow"),
    Signature(b"\xff\xfe", "UTF-16", "save it as UTF-8"),
    Signature(b"\xfe\xff", "UTF-16", "save it as UTF-8"),
)
"""Beginnings that no uncompressed text in UTF-8 has."""


def refuse_misnamed(name: str, beginning: bytes, is_text: bool) -> None:
    """Refuse a file whose first bytes are not those of data of its format.

    Args:
        name: of the file, for messages.
        beginning: its first bytes as stored, at least 100 unless the file is shorter.
        is_text: whether its name says that it is text that is not compressed.

    Raises:
        InputError: it is not; the message says what it is and what to do.
    """
    lower = beginning[:100].lower()
    for signature in NEVER_DATA:
        if lower.startswith(signature.beginning):
            raise _refusal(name, signature)
    if is_text:
        for signature in NEVER_TEXT:
            if beginning.startswith(signature.beginning):
                raise _refusal(name, signature)


def _refusal(name: str, signature: Signature) -> InputError:
    base = name.rpartition("/")[2]
    return InputError(f"{name}: is {signature.kind}; {signature.remedy.format(name=base)}")
