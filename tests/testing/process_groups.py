"""Process groups that the tests of a session share: ranks that wait for functions to call.

A process takes ten seconds of processor time to import torch, transformers and DeepSpeed. So it is
done once, in the *origin*, of which ranks are forks; each group is started when a test first asks
for its world size, and is handed one function after the other. A function is pickled by its name,
so it stands at the top of a module that the ranks can import; it takes ``rank, world`` and further
arguments.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_SECONDS = 400
IMPORTED = ("w2s_ray.training.fit", "w2s_ray.training.deepspeed_engine")


class Birth(NamedTuple):
    """A rank that the origin is asked for.

    Attributes:
        environment: variables of its own.
        log: file to which it prints.
        address: where it connects to and says its process number.
    """

    environment: dict[str, str]
    log: Path
    address: str


class Origin:
    """The process that has imported everything; the ranks are its forks.

    Attributes:
        log: what it has printed.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "origin"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("DS_ACCELERATOR", None)  # the engine sets it
        self._connection, theirs = Pipe()
        with theirs, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def rank(self, environment: dict[str, str], log: Path) -> tuple[int, Connection]:
        """A new rank: the number of its process, and the connection to it."""
        with Listener(family="AF_UNIX") as listener:
            assert isinstance(listener.address, str)
            self._connection.send(Birth(environment, log, listener.address))
            connection = listener.accept()
        return connection.recv(), connection

    def end(self) -> None:
        self._connection.close()
        self._process.wait(60)


class ProcessGroup:
    """The ranks of one world size.

    Attributes:
        compiled: the folder for whatever DeepSpeed compiles.
    """

    def __init__(self, world: int, folder: Path, origin: Origin) -> None:
        self.world, self.compiled = world, folder / "compiled"
        self._log, self._origin = folder / "log", origin.log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(world),
            "TORCH_EXTENSIONS_DIR": str(self.compiled),
        }
        self._ranks = [
            origin.rank({**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}, self._log)
            for rank in range(world)
        ]

    @property
    def output(self) -> str:
        """All that the ranks have printed, and what was printed when modules were imported."""
        return self._origin.read_text() + self._log.read_text()

    def send(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        for _, connection in self._ranks:
            connection.send_bytes(pickle.dumps((function, arguments)))

    def receive(self) -> list[Any]:
        """What the function returned, by rank.

        Raises:
            AssertionError: a rank failed or takes too long; with the end of the group's log.
        """
        results = []
        for _, connection in self._ranks:
            answered = connection.poll(TIMEOUT_SECONDS)
            assert answered, f"no answer in {TIMEOUT_SECONDS} s:\n{self.output[-4000:]}"
            try:
                results.append(pickle.loads(connection.recv_bytes()))
            except EOFError:
                raise AssertionError(self.output[-4000:]) from None
        return results

    def end(self) -> None:
        for process, connection in self._ranks:
            connection.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


class ProcessGroups:
    """Groups by world size, each started at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._groups: dict[int, ProcessGroup] = {}
        self._origin: Origin | None = None

    def __getitem__(self, world: int) -> ProcessGroup:
        if world not in self._groups:
            folder = self._folder / f"world{world}"
            folder.mkdir(exist_ok=True)
            self._origin = self._origin or Origin(self._folder)
            self._groups[world] = ProcessGroup(world, folder, self._origin)
        return self._groups[world]

    def run(
        self, function: Callable[..., Any], arguments: Mapping[int, tuple[Any, ...]]
    ) -> dict[int, list[Any]]:
        """Calls ``function`` on every rank of several groups at the same time.

        Args:
            arguments: world size -> the further arguments in that group.

        Returns:
            World size -> what the function returned, by rank.
        """
        try:
            for world, values in arguments.items():
                self[world].send(function, values)
            return {world: self[world].receive() for world in arguments}
        except BaseException:  # a rank that failed leaves the others waiting for it
            self.end()
            raise

    def end(self) -> None:
        for group in self._groups.values():
            group.end()
        self._groups.clear()
        if self._origin is not None:
            self._origin.end()
        self._origin = None


def _give_birth(connection: Connection) -> None:
    """What the origin does: imports, and forks a rank for each ``Birth`` that it is sent."""
    for module in IMPORTED:
        import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for ranks
    while True:
        try:
            birth = connection.recv()
        except EOFError:
            return
        if not os.fork():
            connection.close()
            return _serve(birth)


def _serve(birth: Birth) -> None:
    """What a rank does: calls what it is sent, until the other end closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(birth.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ |= birth.environment
    connection = Client(birth.address)
    connection.send(os.getpid())
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world == 2:
        dist.init_process_group("gloo")  # as Ray Train would; others leave it to the engine
    while True:
        try:
            function, arguments = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(pickle.dumps(function(rank, world, *arguments)))


if __name__ == "__main__":
    _give_birth(Connection(int(sys.argv[1])))
