"""Schedules: a seed becomes a store, faults, and processes that work on it, and all is checked.

Each process does what a driver does (``running.runner``): claim, look again, compute, commit,
discard checkpoints, release. Others read, set aside what is damaged, and remove leftovers. A killed
one is started again, and at last, after two quiet days, one without faults finishes the study.
"""

import gc
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from tests.testing.simulation.bucket import Bucket, SimulatedFileSystem
from tests.testing.simulation.checks import Checks
from tests.testing.simulation.disk import Disk
from tests.testing.simulation.models import OBJECTS, Model
from tests.testing.simulation.scheduler import Faults, Process, Scheduler, Violation
from tests.testing.simulation.system import SimulatedSystem
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import Backend
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.leftovers import remove_leftovers
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.names import CHECKPOINTS, CLAIMS, RECORD, artifact_folder, key_of
from w2s_ray.store.object_store import ObjectStoreBackend
from w2s_ray.store.records import (
    damage_of_content,
    is_record,
    parse_record,
    record_bytes,
    recorded_files,
)

KIND = "student"
SLUG = "hh"
BUCKET = "b"
KEYS = ("k0", "k1")
ROOT = "/s"
TWO_DAYS = 2 * 86_400.0
NO_FAULTS = Faults(switch=0.0)


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
            duplicates=random.choice((0.0, 0.0, 0.02)) if model == OBJECTS else 0.0,
            lag=model.lag,
        )
        self.processes: dict[str, Process] = {}
        self.checks = Checks(
            scheduler,
            same_machine_is_seen=not model.on_objects,
            can_be_overruled=model.on_objects or self.machines > 1,
            is_exact=model.is_exact,
            tears=model.torn,
        )
        self.restarts = 2
        self.rots = random.random() < 0.1
        self.with_checkpoints = random.random() < 0.15
        self.keys = KEYS[: random.choice((1, 1, 1, 2))]
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
        if self.rots or random.random() < 0.2:
            self._start(random.randrange(self.machines), self._read)
        if self.rots:
            self._start(0, self._damage)
        self.scheduler.faults = Faults(
            switch=random.choice((0.03, 0.1, 0.3)),
            delay=random.choice((0.0, 0.0, 0.02)),
            stop=random.choice((0.0, 0.0, 0.01)),
            kill=random.choice((0.0, 0.0, 0.005, 0.03)),
            power_cut=random.choice((0.0, 0.002)) if self.shares_disk else 0.0,
        )
        self.scheduler.run()
        self.scheduler.faults = NO_FAULTS
        self.scheduler.now += TWO_DAYS
        self.restarts = 0
        if not self.model.is_exact:
            self.checks.checkpoints.clear()
        self.bucket.lag, self.checks.is_exact = 0.0, True
        self.scheduler.run_alone(0, self._finish)

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
            self.scheduler,
            process,
            disk,
            self.processes,
            self.clock_errors[machine],
            self._removed,
        )
        if not self.model.on_objects:
            return system, LocalBackend(Path(ROOT), system)
        filesystem = cast(Any, SimulatedFileSystem(self.bucket, self.scheduler, process))
        return system, ObjectStoreBackend(filesystem, BUCKET, cache=Path("/cache"), system=system)

    def _removed(self, process: Process, path: str, content: bytes) -> None:
        """A claim that another machine's process removes is no claim on its own machine any more,
        where a process is otherwise seen to live however long it is silent."""
        folder, _, name = path.rpartition("/")
        if folder == f"{ROOT}/{CLAIMS}":
            with suppress(ValueError, KeyError):  # it was never whole
                owner = self.processes[json.loads(content)["owner"]]
                if owner.machine != process.machine:
                    self.checks.claim_removed(name.partition(".")[0], owner)

    def _work(self, process: Process) -> None:
        """A driver, as ``study`` and ``running.runner.execute_group``."""
        system, backend = self._open(process)
        store = Store(backend)
        if self.scheduler.faults is not NO_FAULTS and self.random.random() < 0.05:
            remove_leftovers(store)
        pending = set(self.keys)
        while pending:
            process.claiming = True
            with store.claims(sorted(pending)) as held:
                process.claiming = False
                self.checks.entered(process, held)
                must = dict(self.checks.records)
                finished = self._finished(backend, must)
                for key in sorted(held & finished.keys()):
                    self.checks.checkpoints.pop(key, None)
                    Checkpoints(store, key).discard()
                own = sorted(held & pending - finished.keys())
                for key in list(own):
                    self.checks.computing(key, must)
                    try:
                        self._compute(process, system, store, key)
                    except FileNotFoundError:  # who has overruled this process has finished
                        if key not in self.checks.overruled:
                            raise
                        own.remove(key)
                self.checks.left(process, held)
            pending -= {*own, *finished}
            if pending and not own:
                system.sleep(self.random.choice((0.5, 20.0, 60.0)))

    def _compute(self, process: Process, system: SimulatedSystem, store: Store, key: str) -> None:
        kept = Checkpoints(store, key)
        path = artifact_folder(KIND, SLUG, key)
        workspace = store.backend.workspace(KIND, key)
        try:
            if self.with_checkpoints:
                self._train(system, kept, key)
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
            store.backend.commit(workspace, path, record)
        finally:
            system.remove_tree(workspace)
        self.checks.checkpoints.pop(key, None)
        (there,) = store.backend.read([f"{path}/{RECORD}"])
        if there is not None and is_record(there, path):
            self.checks.committed(key, there)
        elif self.model.is_exact and not self.rots and key not in self.checks.overruled:
            raise Violation(f"{path} has no whole record after its commit")
        kept.discard()

    def _train(self, system: SimulatedSystem, kept: Checkpoints, key: str) -> None:
        """Two checkpoints, from the one that is there."""
        found = kept.latest()
        self.checks.resumed(key, found.update if found else 0)
        if found:
            with kept.open_file(found.update, "w") as file:
                if file.read() != f"{key} {found.update}".encode():
                    raise Violation(f"the checkpoint {found.update} of {key} is half there")
        for update in range(found.update + 1 if found else 1, 3):
            content = f"{key} {update}".encode()
            with kept.writing(update, "w") as target:
                system.write(target, content)
            kept.complete(update, {}, {"w": (len(content), sha256(content).hexdigest())})
            self.checks.checkpoints[key] = update

    def _read(self, process: Process) -> None:
        """Another study, that reads what is finished and sets aside what is damaged."""
        system, backend = self._open(process)
        for _ in range(3):
            self._mend(system, backend, self._finished(backend, dict(self.checks.records)))
            system.sleep(self.random.choice((0.1, 3.0)))

    def _mend(
        self, system: SimulatedSystem, backend: Backend, finished: Mapping[str, bytes]
    ) -> bool:
        """Checks what is finished, sets aside what is damaged, and returns whether any was."""
        damaged = False
        for key, record in finished.items():
            path = artifact_folder(KIND, SLUG, key)
            if problem := self._problem(backend, path, record):
                if record not in self.checks.rotten and not self._is_replaced(backend, key, record):
                    raise Violation(f"{path} is half there: {problem}")
                self._set_aside(system, backend, key, record)
                damaged = True
        return damaged

    def _is_replaced(self, backend: Backend, key: str, record: bytes) -> bool:
        """Whether the artifact was damaged and set aside while it was read."""
        return record in self.checks.rotten or (
            key in self.checks.overruled and not self.model.on_objects
        )

    def _set_aside(
        self, system: SimulatedSystem, backend: Backend, key: str, record: bytes
    ) -> None:
        """As ``Store.set_aside``."""
        path = artifact_folder(KIND, SLUG, key)
        for _ in range(100):
            if backend.read([f"{path}/{RECORD}"]) != [record]:
                return
            with backend.claims([key]) as held, suppress(FileNotFoundError):
                if held:
                    target = backend.set_aside(path, record)
                    self.checks.set_aside(key, backend.read([f"{target}/{RECORD}"])[0])
                    return
            if not held:
                system.sleep(5.0)

    def _damage(self, process: Process) -> None:
        """A bit flips, now and then, in something that is finished."""
        system, _ = self._open(process)
        for _ in range(2):
            system.sleep(self.random.choice((1.0, 10.0, 30.0)))
            key = self.random.choice(self.keys)
            path = artifact_folder(KIND, SLUG, key)
            record = self.checks.records.get(key)
            if record is None or not self._is_there(path, record):
                continue
            self.checks.damaged(key)
            name = self.random.choice(("a", RECORD))
            if self.model.on_objects:
                name = name if name == RECORD else f"files-{sha256(record).hexdigest()[:16]}/{name}"
                content = self.bucket.objects[f"{BUCKET}/{path}/{name}"]
                self.bucket.objects[f"{BUCKET}/{path}/{name}"] = flipped(content)
            else:
                file = self.disks[0].file(f"{ROOT}/{path}/{name}")
                file.content = file.durable = flipped(file.content)

    def _is_there(self, path: str, record: bytes) -> bool:
        if self.model.on_objects:
            return self.bucket.objects.get(f"{BUCKET}/{path}/{RECORD}") == record
        full = f"{ROOT}/{path}/{RECORD}"
        return self.disks[0].exists(full) and self.disks[0].file(full).content == record

    def _finish(self, process: Process) -> None:
        """The end: a driver without faults leaves everything there, whole, and nothing else."""
        system, backend = self._open(process)
        finished: dict[str, bytes] = {}
        for _ in range(3):
            self._work(process)
            finished = self._finished(backend, dict(self.checks.records))
            if not self._mend(system, backend, finished):
                break
        if finished.keys() != set(self.keys):
            raise Violation(f"finished: {sorted(finished)}, expected {self.keys}")
        if self.random.random() < 0.7:
            return
        remove_leftovers(Store(backend))
        left = [path for path in self._paths() if is_leftover(path)]
        if left and not (self.bucket.duplicates or self.model.lag):
            raise Violation(f"left: {left}")

    def _paths(self) -> list[str]:
        if self.model.on_objects:
            return list(self.bucket.objects)
        return list(self.disks[0].below(ROOT))

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

    def _problem(self, backend: Backend, path: str, record: bytes) -> str | None:
        """What is wrong with the files of a committed folder."""
        for name, expected in recorded_files(parse_record(record, path)).items():
            (content,) = backend.read([backend.file_in(path, record, name)])
            if content is None:
                return f"no {name}"
            if problem := damage_of_content(name, content, expected):
                return problem
        return None

    # The world

    def _prepare(self) -> None:
        """What an earlier life of the store has left."""
        for disk in self.disks:
            disk.make_folder(ROOT, 0.0)
            disk.flush("/")
        if self.random.random() < 0.2:  # a copy that was interrupted, or a record that was cut
            path = artifact_folder(KIND, SLUG, self.random.choice(self.keys))
            self._put(f"{path}/{self.random.choice(('a', RECORD))}", b'{"kind": "stu')

    def _put(self, path: str, content: bytes) -> None:
        if self.model.on_objects:
            self.bucket.objects[f"{BUCKET}/{path}"] = content
            return
        disk, folder = self.disks[0], ROOT
        for name in path.split("/")[:-1]:
            folder = f"{folder}/{name}"
            disk.make_folder(folder, 0.0)
        disk.open_for_writing(f"{ROOT}/{path}", 0.0).content = content

    def _lose_power(self) -> None:
        for disk in self.disks:
            disk.lose_power(self.random)
        self.checks.power_lost()


def flipped(content: bytes) -> bytes:
    """The content with one bit changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def is_leftover(path: str) -> bool:
    """Whether a finished store must not have this file."""
    parts = path.split("/")
    return any(p.startswith(".tmp-") or p in (CLAIMS, CHECKPOINTS) for p in parts[2:-1]) or (
        parts[-1].startswith(".tmp-")
    )


def check(model: Model, seeds: Iterable[int]) -> None:
    """Runs the schedules of these seeds.

    Raises:
        Violation: with the model and the seed.
    """
    gc.freeze()  # what was imported; collecting it takes a tenth of the time
    for seed in seeds:
        try:
            Schedule(model, seed).run()
        except Violation as violation:
            raise Violation(f"{model.name}, seed {seed}: {violation}") from None


def trace(model: Model, seed: int) -> list[str]:
    """The operations of one schedule: time, machine and process, operation, path."""
    schedule = Schedule(model, seed)
    operations: list[str] = []
    schedule.scheduler.trace = operations
    with suppress(Violation):
        schedule.run()
    return operations
