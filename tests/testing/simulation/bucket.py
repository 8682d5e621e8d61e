"""A bucket in memory, as the pyarrow file system of one simulated process.

An object is replaced as a whole, at one moment between the request and its answer (unless ``torn``:
then a killed writer may leave half of it, as on a file system that pyarrow reaches another way). A
request may reach the store a second time, up to ``DUPLICATES_WITHIN`` seconds after its answer, as
when a client tries again while its first request is still under way. A listing is exact, or lags
behind by up to ``lag`` seconds.

Not modelled: the late second writing of a record, or the late second deletion of one that was set
aside, after the artifact was made again. Nothing that pyarrow offers guards against them.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from io import BytesIO
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
from pyarrow import fs

from tests.testing.simulation.scheduler import Killed, Process, Scheduler
from w2s_ray.store.names import RECORD

DUPLICATES_WITHIN = 20.0


class Bucket:
    """Objects by path, shared by all machines."""

    def __init__(self, scheduler: Scheduler, *, torn: bool, duplicates: float, lag: float) -> None:
        self.objects: dict[str, bytes] = {}
        self.torn, self.duplicates, self.lag = torn, duplicates, lag
        self._scheduler = scheduler
        self._appears: dict[str, float] = {}
        self._ghosts: dict[str, float] = {}
        self._late: list[tuple[float, Callable[[], None]]] = []
        self._puts: Counter[str] = Counter()

    def put(self, path: str, content: bytes) -> None:
        if path not in self.objects and self.lag:
            self._appears[path] = self._scheduler.now + self._scheduler.random.random() * self.lag
        self.objects[path] = content
        self._puts[path] += 1
        if self._scheduler.random.random() < self.duplicates:
            self._repeat(partial(self._put_late, path, content, self._puts[path]))

    def _put_late(self, path: str, content: bytes, puts: int) -> None:
        if self._puts[path] == puts or not path.endswith(f"/{RECORD}"):
            self.objects[path] = content

    def delete(self, path: str) -> None:
        del self.objects[path]
        if self.lag:
            self._ghosts[path] = self._scheduler.now + self._scheduler.random.random() * self.lag
        is_record = path.endswith(f"/{RECORD}")
        if self._scheduler.random.random() < self.duplicates and not is_record:
            self._repeat(partial(self._forget, path))

    def _forget(self, path: str) -> None:
        self.objects.pop(path, None)

    def _repeat(self, request: Callable[[], None]) -> None:
        when = self._scheduler.now + self._scheduler.random.random() * DUPLICATES_WITHIN
        self._late.append((when, request))

    def deliver(self) -> None:
        """Lets late requests have their effect."""
        if self._late:
            due = [request for when, request in self._late if when <= self._scheduler.now]
            self._late = [late for late in self._late if late[0] > self._scheduler.now]
            for request in due:
                request()

    def listed(self) -> list[str]:
        if not self.lag:
            return list(self.objects)
        now = self._scheduler.now
        there = [path for path in self.objects if self._appears.get(path, 0.0) <= now]
        return there + [p for p, end in self._ghosts.items() if end > now and p not in self.objects]


class Info(NamedTuple):
    """As ``fs.FileInfo``."""

    path: str
    base_name: str
    type: Any
    size: int

    @property
    def is_file(self) -> bool:
        return bool(self.type == fs.FileType.File)


class SimulatedFileSystem:
    """What ``ObjectStoreBackend`` asks of a pyarrow file system."""

    type_name = "s3"

    def __init__(self, bucket: Bucket, scheduler: Scheduler, process: Process) -> None:
        self._bucket, self._scheduler, self._process = bucket, scheduler, process

    def _step(self, name: str, path: str) -> None:
        self._scheduler.step(
            self._process, f"{name} {path}" if self._scheduler.trace is not None else name
        )
        self._bucket.deliver()

    def open_output_stream(self, path: str) -> "_Upload":
        return _Upload(self, path)

    def put(self, path: str, content: bytes) -> None:
        if self._bucket.torn:
            self._step("put half of", path)
            self._bucket.put(path, content[: len(content) // 2])
        self._step("put", path)
        self._bucket.put(path, content)
        self._step("answer to put", path)

    def open_input_stream(self, path: str) -> BytesIO:
        return BytesIO(self._get(path))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.BufferReader(self._get(path))

    def _get(self, path: str) -> bytes:
        self._step("get", path)
        try:
            return self._bucket.objects[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def get_file_info(self, selector: fs.FileSelector) -> list[Info]:
        prefix = f"{selector.base_dir}/"
        self._step("list", prefix)
        infos: dict[str, Info] = {}
        for path in self._bucket.listed():
            if path.startswith(prefix):
                name, _, rest = path[len(prefix) :].partition("/")
                if rest and not selector.recursive:
                    infos[name] = Info(prefix + name, name, fs.FileType.Directory, 0)
                else:
                    size = len(self._bucket.objects.get(path, b""))
                    infos[path] = Info(path, path.rpartition("/")[2], fs.FileType.File, size)
        return list(infos.values())

    def delete_dir(self, path: str) -> None:
        self._step("list", path)
        names = [name for name in self._bucket.listed() if name.startswith(f"{path}/")]
        if not names:
            raise FileNotFoundError(path)
        for name in names:
            self._step("delete", name)
            if name in self._bucket.objects:
                self._bucket.delete(name)

    def delete_file(self, path: str) -> None:
        self._step("delete", path)
        if path not in self._bucket.objects:
            raise FileNotFoundError(path)
        self._bucket.delete(path)


class _Upload:
    """A stream whose end is the put; its content counts even if the block raises."""

    def __init__(self, filesystem: SimulatedFileSystem, path: str) -> None:
        self._filesystem, self._path, self._content = filesystem, path, BytesIO()

    def __enter__(self) -> Self:
        return self

    def write(self, content: bytes) -> None:
        self._content.write(content)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Killed):
            self._filesystem.put(self._path, self._content.getvalue())
