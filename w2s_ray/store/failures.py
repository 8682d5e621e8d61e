"""What the store notes of a step that failed: one line for tables, the traceback for people."""

import traceback
from datetime import UTC, datetime


def note_of(error: BaseException | str) -> dict[str, str]:
    """{error (one line), traceback ("" for a text), time (ISO 8601, UTC)}."""
    message, trace = str(error), ""
    if isinstance(error, BaseException):
        message = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
    return {
        "error": " ".join(message.split()),
        "traceback": trace,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
