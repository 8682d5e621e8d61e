"""A command from its first line to its exit code."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NoReturn

from w2s_ray.ending import outputs, signals
from w2s_ray.ending.codes import ExitCode
from w2s_ray.errors import InputError, SystemFault, line_of
from w2s_ray.masking import masked


def start() -> None:
    """To be called first of all, before modules that take long to import."""
    outputs.open_standard_files()
    if not os.isatty(2):  # progress bars of libraries would fill a log file
        os.environ.setdefault("TQDM_DISABLE", "1")
    signals.watch()


def code_of(work: Callable[[], int]) -> int:
    """The exit code of ``work()``. A mistake, a refusal of the system or a signal is one line.

    Any other exception is an error of our own and is raised.
    """
    try:
        return work()
    except SystemFault as error:
        return _said(f"{error}. {signals.RESUME}", ExitCode.SYSTEM)
    except InputError as error:
        print(error, file=sys.stderr)  # a line for each mistake
        return ExitCode.INPUT
    except KeyboardInterrupt:
        return _said(signals.line(), signals.code())
    except (OSError, MemoryError) as error:
        return _said(f"{_reason(error)}. {signals.RESUME}", ExitCode.SYSTEM)


def run(main: Callable[[], int]) -> NoReturn:
    """Runs the whole command in this process and exits. ``main`` is guarded by ``code_of``."""
    output = outputs.guard()
    signals.begin()
    try:
        code = main()
    except SystemExit as end:  # of argparse, for --help and what it refuses
        code = end.code if isinstance(end.code, int) else ExitCode.DONE
    except KeyboardInterrupt:  # between two lines of the guard itself
        code = _said(signals.line(), signals.code())
    except Exception as error:
        code = _said(_own_error(error), ExitCode.INTERNAL)
    signals.end()
    sys.stdout.flush()
    if output.problem:
        said = f"standard output could not be written: {output.problem}; what was computed is kept"
        code = _said(said, code or ExitCode.SYSTEM)
    sys.stderr.flush()
    if code > 128:  # threads that still run a step must not delay the end
        os._exit(code)
    sys.exit(code)


def _said(line: str, code: int) -> int:
    print(masked(" ".join(line.split())), file=sys.stderr)
    return code


def _reason(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory: {error}".rstrip(": ")
    return line_of(error)


def _own_error(error: Exception) -> str:
    """One line about an error of our own, with the file that holds the traceback."""
    lines = masked("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="w2s_ray-", suffix=".txt", delete=False, errors="backslashreplace"
        ) as file:
            file.write(lines)
    except OSError:
        print(lines, file=sys.stderr)
        return f"an error of w2s_ray itself: {line_of(error)}. {signals.RESUME}"
    return (
        f"an error of w2s_ray itself: {line_of(error)} (traceback: {file.name}). {signals.RESUME}"
    )
