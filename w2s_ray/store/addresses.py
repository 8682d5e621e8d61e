"""Addresses of a store: a path, or a URI whose query holds options (region, endpoint).

A URI may hold secrets, in its user info or its query; ``shown`` is the form for people. Paths below
a URI are added before its query, never at its end.
"""

import re
from contextlib import suppress

from pyarrow import fs

SCRATCH = ".ray"  # Ray's folder below a store's root while a study runs
# The text before an @ in the authority. A secret may hold slashes; a port is not part of it.
_USER = re.compile(r"(?<=://)[^/@:]*(:(?!\d+(/|$)).*)?@")


def child(address: str, path: str) -> str:
    """The address of ``path`` below ``address``; a URI keeps its query and its secrets."""
    # In a plain path a question mark is a character like any other.
    base, mark, query = address.partition("?") if "://" in address else (address, "", "")
    return f"{base.rstrip('/')}/{path}{mark}{query}"


def shown(address: str) -> str:
    """The address for people: a URI without user info and query."""
    if "://" not in address:
        return address
    return _USER.sub("", address.partition("?")[0])


def remove_scratch(address: str) -> None:
    """Remove a folder that Ray created, ``…/.ray/<name>`` or ``…/.ray/workers/<name>``.

    Does nothing if it does not exist or cannot be removed.

    Raises:
        ValueError: Any other folder; nothing has been removed.
    """
    with suppress(OSError):
        filesystem, path = fs.FileSystem.from_uri(address)
        parts = path.rstrip("/").split("/")
        if SCRATCH not in parts[-3:-1] or parts[-1] in ("", ".", ".."):
            raise ValueError(f"{shown(address)} is not a folder of Ray below {SCRATCH}")
        filesystem.delete_dir(path)
