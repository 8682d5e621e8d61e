"""Temporary files and folders of a store on a file system, and the removal of abandoned ones."""

from collections.abc import Iterator
from contextlib import suppress

from w2s_ray.store import claims
from w2s_ray.store.system import SYSTEM, AnyPath, System

PREFIX = ".tmp-"
ABANDONED_AFTER_SECONDS = 86_400.0  # untouched for so long, if made on another machine


def temporary_name(name: str, system: System = SYSTEM) -> str:
    """A unique hidden name, from which ``remove_abandoned`` reads its owner and purpose."""
    return f"{PREFIX}{name}-{system.this_process().token}-{system.unique()[:8]}"


def remove_abandoned(folder: AnyPath, claims_folder: AnyPath, system: System = SYSTEM) -> None:
    """Remove temporary files that no living process can still be writing.

    Files made on this machine are removed if the process that made them is dead. Files made on
    another machine are removed if they are a day old and no claim is held on what they are for.
    """
    temporary = [entry for entry in system.entries(folder) if entry.name.startswith(PREFIX)]
    for entry in temporary:
        name, _, random = entry.name.removeprefix(PREFIX).rpartition("-")
        name, _, token = name.rpartition("-")
        owner = system.owner(token) if random else None
        if owner is not None and owner.is_on_this_machine:
            abandoned = owner.is_dead
        else:
            old = _seconds_since_change(entry.path, system) > ABANDONED_AFTER_SECONDS
            abandoned = old and not claims.is_held(claims_folder, name, system)
        if abandoned:
            system.remove_tree(entry.path)


def _seconds_since_change(path: str, system: System) -> float:
    """Seconds since the last change of a file, or of anything below a folder."""
    newest = 0.0
    for inner in (path, *_below(path, system)):
        with suppress(OSError):
            newest = max(newest, system.changed(inner))
    return system.time() - newest


def _below(folder: str, system: System) -> Iterator[str]:
    """The paths of everything below a folder; none if it is a file, or gone."""
    with suppress(OSError):
        for entry in system.entries(folder):
            yield entry.path
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, system)
