"""Where the files are that studies were measured on: in W2S_MEASURED, else beside the project."""

import os
from pathlib import Path

MEASURED = "W2S_MEASURED"
_BESIDE = Path(__file__).parents[3] / "shared" / "data"
if _BESIDE.is_dir():
    os.environ.setdefault(MEASURED, str(_BESIDE))


def measured_files() -> Path | None:
    """The folder of the files; None where there is none, and tests that read them are skipped."""
    return Path(os.environ[MEASURED]) if MEASURED in os.environ else None
