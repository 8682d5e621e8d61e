"""Owners: which process wrote a file, and whether it is still alive.

Claims and temporary folders carry the name of the process that made them. On the same machine one
can check at once whether that process is dead; on another machine only a timeout can show it. "The
same machine" means the same boot of the same kernel and the same process-id namespace: two
containers that share a host name do not see each other's process ids, and must not declare each
other dead.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that writes to a store."""

    machine: str
    pid: int
    started: int  # clock ticks since boot, 0 if unknown; differs if a pid has been reused

    @property
    def token(self) -> str:
        """The owner as a part of file names: hex digits, decimal digits and dots."""
        return f"{self.machine}.{self.pid}.{self.started}"

    @classmethod
    def parse(cls, token: str) -> "Owner | None":
        """The owner with this ``token``; None if the text is something else."""
        machine, _, rest = token.partition(".")
        pid, _, started = rest.partition(".")
        if not (machine and pid.isdecimal() and started.isdecimal()):
            return None
        return cls(machine, int(pid), int(started))

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the running process can see it in the process table, if it is alive."""
        return self.machine == _machine()

    @property
    def is_dead(self) -> bool:
        """Whether it is certainly dead; False for live processes and those of other machines."""
        if not self.is_on_this_machine:
            return False
        state, started = _process(self.pid)
        return state in "ZX" or (self.started != 0 and started != self.started)


class Holder(NamedTuple):
    """Who holds a key.

    Attributes:
        host: its name.
        pid: of the process on that host.
        since: when it took the claim (Unix seconds, by the clock of who took it).
        silent_seconds: since its last sign of life.
    """

    host: str
    pid: int
    since: float
    silent_seconds: float


def this_process() -> Owner:
    """The owner that is the running process."""
    return _of(os.getpid())  # cached by process id: a fork is another process


@cache
def _of(pid: int) -> Owner:
    return Owner(_machine(), pid, _process(pid)[1])


@cache
def _machine() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return sha256("\n".join(parts).encode()).hexdigest()[:12]


def _process(pid: int) -> tuple[str, int]:
    """State letter ("X" if there is no such process), start time in clock ticks (0 if unknown)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return "X", 0
    else:
        return fields[0], int(fields[19])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "X", 0
    except PermissionError:
        pass
    return "R", 0
