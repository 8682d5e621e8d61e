"""Notes on failed steps: one line for tables, the traceback for people.

They lie in ``failures/<key>.json``, and a later commit of the same step removes its note. They hold
no secrets (``masking``) and nothing that controls a terminal (``printable``).
"""

import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from w2s_ray.errors import line_of, one_line
from w2s_ray.masking import masked, masked_value
from w2s_ray.printable import printable
from w2s_ray.store.files import StoreFiles
from w2s_ray.store.names import FAILURES


def note_of(error: BaseException | str) -> dict[str, str]:
    """{error (one line), traceback ("" if ``error`` is a text), time (ISO 8601, UTC)}."""
    message, trace = one_line(str(error)), ""
    if isinstance(error, BaseException):
        message = line_of(error)
        trace = "".join(traceback.format_exception(error))
    return {
        "error": message,
        "traceback": _for_people(trace),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_notes(files: StoreFiles) -> dict[str, dict[str, Any]]:
    """key -> note of every failure; damaged notes are ignored."""
    notes: dict[str, dict[str, Any]] = {}
    for name in files.listing(FAILURES):
        with suppress(FileNotFoundError, ValueError):  # removed since the listing, or damaged
            note = files.read_json(f"{FAILURES}/{name}")
            if isinstance(note, dict) and note.keys() >= {"key", "error"}:
                notes[note["key"]] = masked_value(note, _for_people)  # of earlier versions
    return notes


def _for_people(text: str) -> str:
    return printable(masked(text))
