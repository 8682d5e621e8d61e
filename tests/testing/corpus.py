"""A corpus of specs read one after the other in a process of its own, with little memory.

    python -m tests.testing.corpus FOLDER

prints, as JSON, what ``study --plan`` makes of each ``*.yaml`` of the folder: name -> [exit code,
standard error, seconds of CPU]. An exception that leaves the command is its exit code.
"""

import io
import json
import resource
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ADDRESS_SPACE = 2 << 30  # bytes, of which the imported libraries take most


def outcome(spec: Path) -> tuple[int | str, str, float]:
    """Exit code (or exception), standard error, and seconds of CPU."""
    from w2s_ray.study import main

    errors, started = io.StringIO(), time.process_time()
    code: int | str
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        try:
            code = main([str(spec), "--plan"])
        except Exception as error:
            code = repr(error)[:300]
    return code, errors.getvalue(), time.process_time() - started


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    folder = Path(sys.argv[1])
    json.dump({path.stem: outcome(path) for path in sorted(folder.glob("*.yaml"))}, sys.stdout)


if __name__ == "__main__":
    main()
