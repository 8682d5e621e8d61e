"""The backend behind an address: a path, or any URI that pyarrow can open."""

import os
import re
from hashlib import sha256
from pathlib import Path

from pyarrow import ArrowException, fs

from w2s_ray.errors import InputError
from w2s_ray.store.addresses import shown
from w2s_ray.store.backend import Backend
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.object_store import ObjectStoreBackend

# A slip that would make a folder named ``s3:bucket``.
_SCHEME_WITHOUT_SLASHES = re.compile(r"(s3|gs|gcs|abfss?|hdfs|viewfs|file|https?):(?!//)", re.I)


def open_backend(address: str, *, cache: Path | None = None) -> Backend:
    """The backend at a path, a ``file://`` URI, or any URI that pyarrow supports (``s3://…``).

    Nothing is created.

    Args:
        address: Path or URI.
        cache: Local folder for copies of remote artifacts; the default is one per URI below
            ``$XDG_CACHE_HOME/w2s_ray`` (``~/.cache/w2s_ray``). Unused on a local file system.

    Raises:
        InputError: An empty address, a URI without its slashes, or one that pyarrow does not
            support, or no such bucket.
    """
    if "\0" in address or not _is_text(address):
        raise InputError(f"store: {shown(address)!r}: expected characters that a path can have")
    if scheme := _SCHEME_WITHOUT_SLASHES.match(address):
        uri = f"{scheme[1].lower()}://{address[scheme.end() :].lstrip('/')}"
        if scheme[1].lower() == "file":
            uri = uri.replace("://", ":///")
        raise InputError(
            f"store: {shown(address)!r}: expected {shown(uri)!r} (or {'./' + shown(address)!r} for "
            "a folder of this name)"
        )
    if address and "://" not in address:
        return LocalBackend(Path(os.path.abspath(os.path.expanduser(address))))
    reason = "it names no folder or bucket"
    try:
        if address:
            filesystem, root = fs.FileSystem.from_uri(_with_single_puts(address))
            if root and isinstance(filesystem, fs.LocalFileSystem):
                return LocalBackend(Path(os.path.abspath(root)))
            if root:
                cache = cache or default_cache(address)
                return ObjectStoreBackend(filesystem, root, cache=cache, uri=address)
    except (ArrowException, ValueError, OSError) as error:
        reason = str(error).replace(address, shown(address))
    raise InputError(
        f"store: {shown(address)!r}: expected a path or a file://, s3:// or gs:// URI ({reason})"
    )


def _with_single_puts(address: str) -> str:
    """The address, with the option to upload a small file by one request in place of three.

    A file is then opened on S3 when it is closed here, so one that is half written never is there.
    """
    option = "allow_delayed_open"
    if not address.startswith("s3://") or option in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}{option}=true"


def _is_text(address: str) -> bool:
    """Whether it has no lone surrogates."""
    try:
        address.encode()
    except UnicodeEncodeError:
        return False
    return True


def default_cache(uri: str) -> Path:
    """The folder below the user's cache for copies from the store at ``uri``."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "w2s_ray" / sha256(uri.rstrip("/").encode()).hexdigest()[:16]
