"""Temporary files and folders of a store on a file system, and the removal of abandoned ones."""

import shutil
import time
from contextlib import suppress
from os import scandir
from pathlib import Path
from uuid import uuid4

from w2s_ray.store import claims
from w2s_ray.store.owners import Owner, this_process

PREFIX = ".tmp-"
ABANDONED_AFTER_SECONDS = 86_400.0  # untouched for so long, if made on another machine


def temporary_name(name: str) -> str:
    """A unique hidden name, from which ``remove_abandoned`` reads its owner and purpose."""
    return f"{PREFIX}{name}-{this_process().token}-{uuid4().hex[:8]}"


def remove_abandoned(folder: Path, claims_folder: Path) -> None:
    """Remove temporary files that no living process can still be writing.

    Files made on this machine are removed if the process that made them is dead. Files made on
    another machine are removed if they are a day old and no claim is held on what they are for.
    """
    with scandir(folder) as entries:
        temporary = [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX)]
    for path in temporary:
        name, _, random = path.name.removeprefix(PREFIX).rpartition("-")
        name, _, token = name.rpartition("-")
        owner = Owner.parse(token) if random else None
        if owner is not None and owner.is_on_this_machine:
            abandoned = owner.is_dead
        else:
            old = _seconds_since_change(path) > ABANDONED_AFTER_SECONDS
            abandoned = old and not claims.is_held(claims_folder, name)
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)


def _seconds_since_change(path: Path) -> float:
    """Seconds since the last change of a file, or of anything below a folder."""
    newest = 0.0
    for inner in (path, *path.rglob("*")):
        with suppress(OSError):
            newest = max(newest, inner.lstat().st_mtime)
    return time.time() - newest
