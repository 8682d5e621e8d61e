"""Schedules: a seed becomes a store, faults, and processes that work on it, and all is checked.

Each process does what a driver does (``running.runner``): claim, look again, compute, commit,
discard checkpoints, release. Others read, set aside what is damaged, and remove leftovers. A killed
one is started again, and at last, after two quiet days, one without faults finishes the study.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

from tests.testing.simulation.bucket import Bucket, SimulatedFileSystem
from tests.testing.simulation.checks import Checks
from tests.testing.simulation.disk import Disk
from tests.testing.simulation.scheduler import Faults, Process, Scheduler, Violation
from tests.testing.simulation.system import SimulatedSystem
from w2s_ray.store.backend import Backend
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.files import StoreFiles
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.names import RECORD, artifact_folder, key_of
from w2s_ray.store.object_store import ObjectStoreBackend
from w2s_ray.store.records import (
    damage_of_content,
    is_record,
    parse_record,
    record_bytes,
    recorded_files,
)

KIND = "student"
KEYS = ("k0", "k1")
ROOT = "/s"
TWO_DAYS = 2 * 86_400.0
NO_FAULTS = Faults(switch=0.0)


class Model(NamedTuple):
    """What a schedule may contain.

    Attributes:
        on_objects: an object store, not a file system.
        lag: seconds by which listings of the object store may be late.
        torn: objects may be left half written.
    """

    on_objects: bool
    lag: float = 0.0
    torn: bool = False


DISK = Model(on_objects=False)
OBJECTS = Model(on_objects=True)
WEAK_OBJECTS = Model(on_objects=True, lag=3.0, torn=True)


class Schedule:
    """One schedule, from a seed."""

    def __init__(self, model: Model, seed: int) -> None:
        self.model = model
        self.scheduler = scheduler = Scheduler(seed, NO_FAULTS)
        self.random = random = scheduler.random
        self.shares_disk = not model.on_objects
        self.machines = random.choice((1, 1, 2, 3))
        self.disks = [Disk() for _ in range(1 if self.shares_disk else self.machines)]
        self.clock_errors = [random.uniform(-2.0, 2.0) for _ in range(self.machines)]
        self.bucket = Bucket(
            scheduler,
            torn=model.torn,
            duplicates=random.choice((0.0, 0.0, 0.02)) if model.on_objects else 0.0,
            lag=model.lag,
        )
        self.processes: dict[str, Process] = {}
        self.checks = Checks(
            scheduler,
            same_machine_is_seen=not model.on_objects,
            leases_hold=not (model.lag or model.torn),
        )
        self.restarts = 2
        self.keys = KEYS[: random.choice((1, 1, 2))]
        scheduler.on_power_cut = self._lose_power
        scheduler.on_death = self._restart
        self._prepare()

    def run(self) -> None:
        """Runs the schedule to its end.

        Raises:
            Violation: a promise is broken.
        """
        random = self.random
        for _ in range(random.choice((1, 2, 2, 3))):
            self._start(random.randrange(self.machines), self._work)
        if random.random() < 0.3:
            self._start(random.randrange(self.machines), self._read)
        kill = random.choice((0.0, 0.0, 0.005, 0.03))
        self.scheduler.faults = Faults(
            switch=random.choice((0.05, 0.2, 0.4)),
            delay=random.choice((0.0, 0.0, 0.02)),
            stop=random.choice((0.0, 0.0, 0.01)),
            kill=kill,
            power_cut=random.choice((0.0, 0.002)) if not self.model.on_objects else 0.0,
        )
        self.scheduler.run()
        self.scheduler.faults = NO_FAULTS
        self.scheduler.now += TWO_DAYS
        self.restarts = 0
        self._start(0, self._work)
        self.scheduler.run()
        self._start(0, self._finish)
        self.scheduler.run()

    # Processes

    def _start(self, machine: int, program: Any, after: float = 0.0) -> None:
        self.scheduler.start(machine, program, after=after)

    def _restart(self, process: Process) -> None:
        if self.restarts > 0 and process.program == self._work:
            self.restarts -= 1
            machine = self.random.randrange(self.machines)
            self._start(machine, self._work, after=self.random.choice((0.0, 0.0, 1.0, 100.0)))

    def _open(self, process: Process) -> tuple[SimulatedSystem, Backend]:
        machine = process.machine
        disk = self.disks[0] if self.shares_disk else self.disks[machine]
        system = SimulatedSystem(
            self.scheduler, process, disk, self.processes, self.clock_errors[machine]
        )
        if not self.model.on_objects:
            return system, LocalBackend(Path(ROOT), system)
        filesystem = cast(Any, SimulatedFileSystem(self.bucket, self.scheduler, process))
        return system, ObjectStoreBackend(filesystem, "b", cache=Path("/cache"), system=system)

    def _work(self, process: Process) -> None:
        """A driver, as ``running.runner.execute_group``."""
        system, backend = self._open(process)
        store = StoreFiles(backend)
        pending = set(self.keys)
        while pending:
            process.claiming = True
            with store.claims(sorted(pending)) as held:
                process.claiming = False
                self.checks.entered(process, held)
                must = dict(self.checks.records)
                finished = self._finished(backend, must)
                for key in sorted(held & finished.keys()):
                    Checkpoints(store, key).discard()
                own = sorted(held & pending - finished.keys())
                for key in own:
                    self.checks.computing(process, key, must)
                    self._compute(process, system, backend, key)
                self.checks.left(process, held)
            pending -= {*own, *finished}
            if pending and not own:
                system.sleep(self.random.choice((0.5, 5.0, 30.0)))

    def _compute(
        self, process: Process, system: SimulatedSystem, backend: Backend, key: str
    ) -> None:
        checkpoints = Checkpoints(StoreFiles(backend), key)
        path = artifact_folder(KIND, "slug", key)
        workspace = backend.workspace(KIND, key)
        try:
            system.sleep(self.random.choice((0.01, 1.0, 12.0)))
            contents = {
                name: f"{name} {process.pid} {system.unique()}".encode() for name in ("a", "b")
            }
            for name, content in contents.items():
                system.write(f"{workspace}/{name}", content)
            record = record_bytes(
                {
                    "kind": KIND,
                    "key": key,
                    "files": {name: len(content) for name, content in contents.items()},
                    "digests": {n: sha256(content).hexdigest() for n, content in contents.items()},
                }
            )
            backend.commit(workspace, path, record)
        finally:
            system.remove_tree(workspace)
        must = self._read_record(backend, path)
        self.checks.committed(key, must)
        checkpoints.discard()

    def _read_record(self, backend: Backend, path: str) -> bytes:
        (record,) = backend.read([f"{path}/{RECORD}"])
        if record is None or not is_record(record, path):
            raise Violation(f"{path} has no whole record after its commit")
        return record

    def _read(self, process: Process) -> None:
        """Another study, that reads what is finished."""
        system, backend = self._open(process)
        for _ in range(4):
            finished = self._finished(backend, dict(self.checks.records))
            for key, record in finished.items():
                self._check_whole(backend, artifact_folder(KIND, "slug", key), record)
            system.sleep(self.random.choice((0.1, 3.0)))

    def _finish(self, process: Process) -> None:
        """The end: everything is there, whole, and nothing else."""
        _, backend = self._open(process)
        finished = self._finished(backend, dict(self.checks.records))
        if finished.keys() != set(self.keys):
            raise Violation(f"finished: {sorted(finished)}, expected {self.keys}")
        for key, record in finished.items():
            self._check_whole(backend, artifact_folder(KIND, "slug", key), record)

    def _finished(self, backend: Backend, must: Mapping[str, bytes]) -> dict[str, bytes]:
        """key -> record of the finished steps, as ``Store.records`` finds them."""
        paths = [path for path in backend.folders() if path.startswith(f"{KIND}/")]
        contents = backend.read([f"{path}/{RECORD}" for path in paths])
        records = {
            key_of(path): content
            for path, content in zip(paths, contents, strict=True)
            if content is not None and is_record(content, path)
        }
        self.checks.seen(must, records)
        return records

    def _check_whole(self, backend: Backend, path: str, record: bytes) -> None:
        for name, expected in recorded_files(parse_record(record, path)).items():
            (content,) = backend.read([backend.file_in(path, record, name)])
            if content is None:
                raise Violation(f"{path} is half there: no {name}")
            if problem := damage_of_content(name, content, expected):
                raise Violation(f"{path} is half there: {problem}")

    # The world

    def _prepare(self) -> None:
        """What an earlier life of the store has left."""
        for disk in self.disks:
            disk.make_folder(ROOT, 0.0)
            disk.flush("/")

    def _lose_power(self) -> None:
        for disk in self.disks:
            disk.lose_power(self.random)
        self.checks.power_lost()


def check(model: Model, seeds: Iterable[int]) -> None:
    """Runs the schedules of these seeds.

    Raises:
        Violation: with the model and the seed.
    """
    for seed in seeds:
        try:
            Schedule(model, seed).run()
        except Violation as violation:
            raise Violation(f"{model}, seed {seed}: {violation}") from None
