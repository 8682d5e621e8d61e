"""Processes in lockstep: one runs at a time; a seeded scheduler says which, and what befalls it.

A simulated process is a thread that runs real code of the store. Before each primitive operation it
calls ``Scheduler.step``, where it may be delayed, stopped (as by SIGSTOP), or killed, and where the
baton may go to another process. Between two steps nothing else runs, so an operation is atomic and
a seed gives the same schedule each time. Time is virtual: it moves when all processes wait.

A killed process gets ``Killed``, from every operation that it tries from then on: what its
``finally`` blocks would do has no effect, as after ``kill -9``.
"""

import traceback
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import NamedTuple

from w2s_ray.store.heartbeat import HEARTBEAT_SECONDS

TICK_SECONDS = 1e-4  # of an operation
MOST_OPERATIONS = 50_000  # of one schedule; more is a run that never ends
DELAYS = (0.01, 0.1, 0.3, 0.3, 2.0, 2.0, 20.0, 80.0)  # seconds; the last outlasts a lease
STOPS = (1.0, 50.0, 70.0, 150.0)


class Killed(BaseException):
    """The process is dead."""


class Violation(AssertionError):
    """A promise is broken."""


class Faults(NamedTuple):
    """Probabilities, per operation."""

    switch: float = 0.3
    delay: float = 0.0
    stop: float = 0.0
    kill: float = 0.0
    power_cut: float = 0.0


class Process:
    """A simulated process."""

    def __init__(self, pid: int, machine: int, program: Callable[["Process"], None]) -> None:
        self.pid, self.machine, self.program = pid, machine, program
        self.dead = False  # killed; it may not have noticed yet
        self.ended = False
        self.wake = 0.0  # when its main thread goes on
        self.stopped = False  # until then, its heart too
        self.beats: dict[str, Callable[[], object]] = {}
        self.beating = False
        self.next_beat = 0.0
        self.last_beat = 0.0
        self.longest_silence = 0.0  # seconds for which it showed no sign of life, so far
        self.claiming = False  # it holds claims, perhaps, that do not beat yet
        self.slow = 0  # long delays of its main thread or its heart so far
        self.worker = _worker()

    @property
    def next_event(self) -> float:
        if self.beats and not self.stopped and not self.beating and self.next_beat < self.wake:
            return self.next_beat
        return self.wake


class Scheduler:
    """Runs processes until all have ended.

    Attributes:
        now: virtual seconds.
        faults: what happens to every operation; may be replaced at any time.
        on_power_cut: called when the power fails, after all processes were killed.
        on_death: called when a process was killed, in its thread, after its last operation.
    """

    def __init__(self, seed: int, faults: Faults) -> None:
        self.random = Random(seed)
        self._draw = self.random.random
        self.faults = faults
        self.now = 1_000.0
        self.operations = 0
        self.kills = 0
        self.on_power_cut: Callable[[], None] = lambda: None
        self.on_death: Callable[[Process], None] = lambda process: None
        self.error: BaseException | None = None
        self.trace: list[str] | None = None
        self._running: list[Process] = []
        self._done = allocate_lock()
        self._pids = 100

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults, self._eventful = faults, sum(faults)

    def start(
        self, machine: int, program: Callable[[Process], None], *, after: float = 0.0
    ) -> Process:
        """A new process, which begins ``after`` seconds from now."""
        self._pids += 1
        process = Process(self._pids, machine, program)
        process.wake = self.now + after
        self._running.append(process)
        return process

    def run(self) -> None:
        """Runs until no process is left.

        Raises:
            Violation: of the first process that found one.
        """
        if not self._running:
            return
        self._done.acquire()
        self._hand_over(self._choice())
        self._done.acquire()
        self._done.release()
        if self.error is not None:
            raise self.error

    def run_alone(self, machine: int, program: Callable[[Process], None]) -> None:
        """Runs one process in the calling thread, while there is no other.

        Raises:
            Violation: of the process.
        """
        process = self.start(machine, program)
        try:
            program(process)
        except Violation:
            raise
        except Exception as error:
            raise Violation("".join(traceback.format_exception(error))) from None
        finally:
            process.ended = True
            self._running.remove(process)
            _IDLE.append(process.worker)

    def kill(self, process: Process) -> None:
        """From now on no operation of the process has an effect."""
        if not process.dead:
            self.kills += 1
        process.dead, process.wake, process.stopped = True, 0.0, False

    def step(self, process: Process, name: str) -> None:
        """What happens before an operation of ``process``.

        Raises:
            Killed: the process must not act any more.
        """
        if process.dead:
            raise Killed
        self.operations += 1
        self.now += TICK_SECONDS
        if self.trace is not None:
            self.trace.append(f"{self.now:10.4f} {process.machine}.{process.pid} {name}")
        drawn = self._draw()
        if drawn < self._eventful:
            self._befall(process, drawn)
        elif process.beats and process.next_beat <= self.now and not process.beating:
            self._beat(process)

    def _befall(self, process: Process, drawn: float) -> None:
        """What ``drawn``, between 0 and the sum of all probabilities, stands for."""
        if self.operations > MOST_OPERATIONS:
            raise Violation("the schedule does not end")
        faults = self._faults
        if drawn < faults.switch:
            self._wait(process, self.now)
            return
        drawn -= faults.switch
        if drawn < faults.delay:
            self._delay(process, self.random.choice(DELAYS), stopped=False)
            return
        drawn -= faults.delay
        if drawn < faults.stop:
            self._delay(process, self.random.choice(STOPS), stopped=True)
            return
        drawn -= faults.stop
        if drawn < faults.kill:
            self.kill(process)
            raise Killed
        for other in self._running:
            self.kill(other)
        self.on_power_cut()
        raise Killed

    def sleep(self, process: Process, seconds: float) -> None:
        """Until the time has come, other processes run."""
        self.step(process, "sleep")
        self._wait(process, self.now + seconds)

    def _delay(self, process: Process, seconds: float, *, stopped: bool) -> None:
        process.stopped = stopped
        process.slow += seconds >= 0.1
        if stopped or process.beating or process.claiming or not process.beats:
            process.longest_silence = max(process.longest_silence, seconds)
        self._wait(process, self.now + seconds)

    def _wait(self, process: Process, until: float) -> None:
        """Give the baton away until it comes back at ``until`` or later; beat meanwhile."""
        while True:
            process.wake = until
            chosen = self._choice()
            if chosen is not process:
                self._hand_over(chosen)
                process.worker.lock.acquire()
            if process.dead:
                raise Killed
            if process.wake <= self.now:
                process.stopped = False
            if process.beats and not process.beating and process.next_beat <= self.now:
                self._beat(process)
            if until <= self.now:
                return

    def _beat(self, process: Process) -> None:
        process.beating = True
        for name in list(process.beats):
            with suppress(OSError):
                process.beats[name]()
        process.beating = False
        process.last_beat, process.next_beat = self.now, self.now + HEARTBEAT_SECONDS

    def _choice(self) -> Process:
        """One of the processes that can go on; if there is none, time moves until there is one."""
        if len(self._running) == 1:
            (process,) = self._running
            self.now = max(self.now, process.next_event)
            return process
        ready = [process for process in self._running if process.next_event <= self.now]
        if not ready:
            self.now = min(process.next_event for process in self._running)
            ready = [process for process in self._running if process.next_event <= self.now]
        if len(ready) == 1:
            return ready[0]
        return ready[int(self._draw() * len(ready))]

    def _hand_over(self, process: Process) -> None:
        worker = process.worker
        if worker.job is None:
            worker.job = lambda: self._run(process)
        worker.lock.release()

    def _run(self, process: Process) -> None:
        """The life of a process, in a thread of its own."""
        try:
            if not process.dead:
                process.program(process)
        except Killed:
            pass
        except BaseException as error:
            if self.error is None:
                self.error = error
                if not isinstance(error, Violation):
                    self.error = Violation("".join(traceback.format_exception(error)))
            for other in self._running:
                self.kill(other)
        if process.dead and self.error is None:
            self.on_death(process)
        process.ended = True
        self._running.remove(process)
        worker = process.worker
        worker.job = None
        _IDLE.append(worker)
        if self._running:
            self._hand_over(self._choice())
        else:
            self._done.release()


class _Worker:
    """A thread that runs one process after the other; to start a thread takes longer than one."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.lock.acquire()
        self.job: Callable[[], None] | None = None
        start_new_thread(self._run, ())

    def _run(self) -> None:
        while True:
            self.lock.acquire()
            assert self.job is not None
            self.job()


_IDLE: list[_Worker] = []


def _worker() -> _Worker:
    return _IDLE.pop() if _IDLE else _Worker()
