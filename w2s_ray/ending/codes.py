"""Exit codes of the commands; ``docs/ending.md`` has them as a table."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a caller can learn from a command's end without reading its output.

    Those above 2 follow conventions: ``sysexits.h``, and 128 plus the number of a signal.
    """

    DONE = 0
    INCOMPLETE = 1
    INPUT = 2
    INTERNAL = 70
    SYSTEM = 74
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    ExitCode.DONE: "every cell is complete",
    ExitCode.INCOMPLETE: "some cells are incomplete; the results say which and why",
    ExitCode.INPUT: "bad input, or a store that cannot be used; nothing was computed in vain",
    ExitCode.INTERNAL: "an error of w2s_ray itself; the line names a file with the traceback",
    ExitCode.SYSTEM: "the system refused: a full disk, no permission, no network, no memory",
    ExitCode.HANGUP: "SIGHUP: the terminal was closed",
    ExitCode.INTERRUPTED: "SIGINT: Ctrl-C",
    ExitCode.TERMINATED: "SIGTERM",
}
