"""Provenance of a result: code, versions, host, time. Recorded with each artifact, never hashed.

A commit hash does not identify the code if the working tree is dirty, and there is none where the
code was shipped without its repository (a Ray worker). A digest of the package's source is recorded
with it.
"""

import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import w2s_ray
from w2s_ray.store.canonical import DIGEST_LENGTH

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "deepspeed",
    "ray",
    "peft",
    "safetensors",
    "numpy",
    "pyarrow",
    "pydantic",
)
_SOURCE = Path(w2s_ray.__file__).resolve().parent


def provenance(started: datetime, finished: datetime) -> dict[str, Any]:
    """The provenance of work that this process did between two times (timezone-aware).

    Returns:
        JSON values: code {version, commit, dirty, digest}, python, platform, packages {name:
        version}, host, pid, started and finished (ISO 8601, UTC), seconds (wall clock).
    """
    return {
        **_static(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": started.astimezone(UTC).isoformat(timespec="microseconds"),
        "finished": finished.astimezone(UTC).isoformat(timespec="microseconds"),
        "seconds": (finished - started).total_seconds(),
    }


@cache
def _static() -> dict[str, Any]:
    return {
        "code": {"version": w2s_ray.__version__, **git_state(_SOURCE), "digest": _digest(_SOURCE)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: number for name in PACKAGES if (number := _version(name))},
    }


def code_digest() -> str:
    """The digest of the source of this package."""
    digest: str = _static()["code"]["digest"]
    return digest


def git_state(folder: Path) -> dict[str, Any]:
    """{commit, dirty} of the code in ``folder``; both None unless git tracks that code.

    A package that is installed inside another repository (in a virtual environment, say) is not
    that repository's code. ``dirty`` counts changed and new files inside the folder only.
    """
    unknown = {"commit": None, "dirty": None}
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return unknown
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", ".")
    if commit is None or changes is None:
        return unknown
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command; None if it fails."""
    try:
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout


def _digest(folder: Path) -> str:
    """Digest of the names and contents of all Python files below ``folder``."""
    content = sha256()
    for path in sorted(folder.rglob("*.py")):
        content.update(path.relative_to(folder).as_posix().encode() + b"\0")
        content.update(path.read_bytes() + b"\0")
    return content.hexdigest()[:DIGEST_LENGTH]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
