"""What must hold in every schedule: exactly once, never half, never lost.

* *Exactly once*: of two processes that hold one key at the same time, the first has given its lease
  up: it showed no sign of life for ``STALE_SECONDS`` (and runs on another machine, on a file
  system). A step that is finished is not computed again.
* *Never half*: what has a whole record has all files that it names, as they were written.
* *Never lost*: what was committed, or was seen, is seen from then on, and is the same, until it is
  damaged. (What was seen before its commit returned may go with a power cut.)
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.testing.simulation.scheduler import Process, Scheduler, Violation
from w2s_ray.store.claims import STALE_SECONDS

MARGIN_SECONDS = 12.0  # two heartbeats, and clocks that differ


class Checks:
    """What the processes of a schedule have seen and done.

    Args:
        same_machine_is_seen: whether a live process is never overruled by one of its machine.
        can_be_overruled: whether there are processes that only a lease shows to be alive.
        is_exact: whether all must hold; else what was seen may be gone for a moment, and two live
            processes may hold one key.
        tears: whether a process that is killed while it writes a record leaves half of it: one that
            was taken for dead may do so to a record that another has written since.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        same_machine_is_seen: bool,
        can_be_overruled: bool,
        is_exact: bool,
        tears: bool = False,
    ) -> None:
        self._scheduler = scheduler
        self._same_machine_is_seen = same_machine_is_seen
        self._can_be_overruled = can_be_overruled
        self.is_exact, self.tears = is_exact, tears
        self._holders: dict[str, list[Process]] = defaultdict(list)
        self.records: dict[str, bytes] = {}  # key -> record, of what must be seen
        self.durable: set[str] = set()  # keys of which a commit has returned
        self.rotten: set[bytes] = set()  # records of artifacts that were damaged
        self.checkpoints: dict[str, int] = {}  # key -> update that must be resumed at least
        self.overruled: set[str] = set()  # keys of which a live holder was taken for dead
        self.computed = 0
        self.takeovers = 0

    def entered(self, process: Process, keys: Iterable[str]) -> None:
        """``process`` holds the keys from now on."""
        for key in keys:
            if self._can_be_overruled and self.was_silent(process):
                self.overruled.add(key)  # perhaps before it came to this
            holders = [other for other in self._holders[key] if not (other.dead or other.ended)]
            for other in holders:
                self._check_overruled(key, other, process)
            self._holders[key] = [*holders, process]

    def claim_removed(self, key: str, owner: Process) -> None:
        """A process of another machine has removed a claim, as it does with stale ones."""
        if not (owner.dead or owner.ended) and self.was_silent(owner):
            self.overruled.add(key)

    def left(self, process: Process, keys: Iterable[str]) -> None:
        """``process`` is about to release the keys."""
        for key in keys:
            self._holders[key].remove(process)

    def _check_overruled(self, key: str, other: Process, process: Process) -> None:
        seen = self._same_machine_is_seen and other.machine == process.machine
        assert self._can_be_overruled or seen
        if seen and key not in self.overruled:
            allowed = False
        else:
            allowed = (
                not self.is_exact
                or key in self.overruled
                or (self.was_silent(other) or self.was_silent(process))
            )
        if allowed:
            self.overruled.add(key)
            self.takeovers += 1
            return
        raise Violation(
            f"{key} is held by {process.machine}.{process.pid} and, alive, by "
            f"{other.machine}.{other.pid}"
        )

    def was_silent(self, process: Process) -> bool:
        """Whether the lease of a process may have run out, now or earlier in this schedule."""
        return process.longest_silence > STALE_SECONDS - MARGIN_SECONDS

    def computing(self, key: str, finished_before: Mapping[str, bytes]) -> None:
        """A process begins to compute a step.

        Args:
            finished_before: what had to be seen when it last looked, under its claim.
        """
        self.computed += 1
        if (
            self.is_exact
            and key in finished_before
            and self.records.get(key) is finished_before[key]
        ):
            raise Violation(f"{key} is computed again, though it was finished")

    def seen(self, must: Mapping[str, bytes], records: Mapping[str, bytes]) -> None:
        """A process has read these records, of what had to be there before it began to read."""
        for key, record in must.items() if self.is_exact else ():
            if self.records.get(key) is not record:  # damaged meanwhile, or made again
                continue
            if key not in records and self.tears and key in self.overruled:
                del self.records[key]
                self.durable.discard(key)
                continue
            if key not in records:
                raise Violation(f"{key} is lost")
            if records[key] != record and key not in self.overruled:
                raise Violation(f"{key} has changed")
        for key, record in records.items():
            if record not in self.rotten:
                self.records.setdefault(key, record)

    def committed(self, key: str, record: bytes) -> None:
        """A commit of the key has returned."""
        if record not in self.rotten:
            self.records.setdefault(key, record)
            self.durable.add(key)

    def damaged(self, key: str) -> None:
        """The artifact of the key has lost a bit; it may be made again."""
        self.rotten.add(self.records.pop(key))
        self.durable.discard(key)

    def set_aside(self, key: str, record: bytes | None) -> None:
        """An artifact with this record was moved away."""
        if (
            self.is_exact
            and record is not None
            and record == self.records.get(key)
            and key not in self.overruled
        ):
            raise Violation(f"{key} was whole, and was set aside")

    def resumed(self, key: str, update: int) -> None:
        """A step begins from its checkpoint of this update, 0 if there is none."""
        if self.is_exact and update < self.checkpoints.get(key, 0) and key not in self.overruled:
            raise Violation(f"{key} has lost its checkpoint")

    def power_lost(self) -> None:
        """What was seen, but not yet committed, may be gone."""
        self.records = {key: self.records[key] for key in self.durable & self.records.keys()}
