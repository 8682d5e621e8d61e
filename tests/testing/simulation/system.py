"""The operating system of one simulated process: ``w2s_ray.store.system`` in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa

from tests.testing.simulation.disk import Disk, Entry, Folder
from tests.testing.simulation.scheduler import Killed, Process, Scheduler
from w2s_ray.store.heartbeat import HEARTBEAT_SECONDS
from w2s_ray.store.system import AnyPath, System

T = TypeVar("T")
PROBES = 0.2  # part of the questions for existence, by far the most, between which others may act


@dataclass(frozen=True)
class SimulatedOwner:
    """As ``Owner``, among simulated processes."""

    process: Process
    seen_from: int

    @property
    def token(self) -> str:
        return f"m{self.process.machine}.{self.process.pid}.1"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_on_this_machine(self) -> bool:
        return self.process.machine == self.seen_from

    @property
    def is_dead(self) -> bool:
        return self.is_on_this_machine and (self.process.dead or self.process.ended)


class SimulatedSystem(System):
    """Of one process: its machine's clock, and a disk that it may share with other machines.

    Args:
        on_remove: called with the process, path and content of each file that is removed.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        process: Process,
        disk: Disk,
        processes: dict[str, Process],
        clock_error: float,
        on_remove: Callable[[Process, str, bytes], None],
    ) -> None:
        self._scheduler, self._process, self._disk = scheduler, process, disk
        self._on_remove = on_remove
        self._processes, self._clock_error = processes, clock_error
        self._owner: Any = SimulatedOwner(process, process.machine)
        processes[self._owner.token] = process

    def _step(self, name: str, path: AnyPath) -> str:
        path = str(path)
        if self._scheduler.trace is not None:
            name = f"{name} {path}"
        self._scheduler.step(self._process, name)
        return path

    @property
    def _now(self) -> float:
        return self._scheduler.now

    def entries(self, folder: AnyPath) -> list[Entry]:  # type: ignore[override]
        return self._disk.entries(self._step("entries", folder))

    def exists(self, path: AnyPath) -> bool:
        if self._process.dead or self._scheduler.random.random() < PROBES:
            self._step("exists", path)
        return self._disk.exists(str(path))

    def read(self, path: AnyPath) -> bytes:
        return self._disk.file(self._step("read", path)).content

    def read_end(self, path: AnyPath, size: int) -> bytes:
        return self.read(path)[-size:]

    def open_stream(self, path: AnyPath) -> BinaryIO:
        return BytesIO(self.read(path))

    def open_file(self, path: AnyPath) -> pa.NativeFile:
        return pa.BufferReader(self.read(path))

    def create(self, path: AnyPath, content: bytes) -> None:
        self._write(path, content, exclusive=True)

    def write(self, path: AnyPath, content: bytes) -> None:
        self._write(path, content, exclusive=False)

    def _write(self, path: AnyPath, content: bytes, *, exclusive: bool) -> None:
        name = self._step("open", path)
        file = self._disk.open_for_writing(name, self._now, exclusive=exclusive)
        if not exclusive:
            self._step("write half of", path)
            file.content = content[: len(content) // 2]
        self._step("write", path)
        file.content, file.changed = content, self._now

    def touch(self, path: AnyPath) -> None:
        self._disk.find(self._step("touch", path)).changed = self._now

    def changed(self, path: AnyPath) -> float:
        return self._disk.find(self._step("stat", path)).changed

    def age(self, path: AnyPath) -> float:
        self._step("probe", path)
        probed = self._now
        return probed - self.changed(path)

    def make_folder(self, path: AnyPath) -> None:
        self._disk.make_folder(self._step("mkdir", path), self._now)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        source = self._step("rename", source)
        self._disk.rename(source, str(target), self._now)

    def exchange(self, one: AnyPath, other: AnyPath) -> bool:
        self._disk.exchange(self._step("exchange", one), str(other), self._now)
        return True

    def remove(self, path: AnyPath) -> None:
        content = self._disk.file(self._step("unlink", path)).content
        self._disk.remove_entry(str(path), self._now)
        self._on_remove(self._process, str(path), content)

    def remove_tree(self, path: AnyPath) -> None:
        path = self._step("remove", path)
        try:
            for entry in self._disk.entries(path):
                if isinstance(entry.node, Folder):
                    self.remove_tree(entry.path)
                else:
                    self.remove(entry.path)
            self._step("rmdir", path)
            if not self._disk.folder(path).entries:
                self._disk.remove_entry(path, self._now)
        except OSError:
            return

    def flush(self, path: AnyPath) -> None:
        self._disk.flush(self._step("flush", path))

    def time(self) -> float:
        return self._now + self._clock_error

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._scheduler.sleep(self._process, seconds)

    @property
    def host(self) -> str:
        return f"host{self._process.machine}"

    def this_process(self) -> Any:
        return self._owner

    def owner(self, token: str) -> Any:
        process = self._processes.get(token)
        return None if process is None else SimulatedOwner(process, self._process.machine)

    def unique(self) -> str:
        return f"{self._scheduler.random.getrandbits(128):032x}"

    def start_beating(self, name: str, beat: Callable[[], object]) -> None:
        process = self._process
        if not process.beats:
            process.last_beat, process.next_beat = self._now, self._now + HEARTBEAT_SECONDS
        process.beats[name] = beat

    def stop_beating(self, name: str) -> None:
        self._process.beats.pop(name, None)
        if self._process.dead:
            raise Killed

    def at_once(self, calls: Sequence[Callable[[], T]], threads: int) -> list[T]:
        """One after the other, in some order."""
        results: dict[int, T] = {}
        order = list(range(len(calls)))
        if len(order) > 1:
            self._scheduler.random.shuffle(order)
        for number in order:
            results[number] = calls[number]()
        return [results[number] for number in range(len(calls))]
