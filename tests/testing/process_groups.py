"""Process groups that the tests of a session share: ranks that wait for functions to call.

A rank spends seconds on importing torch, transformers and DeepSpeed. So each group is started
once, when a test first asks for its world size, and is handed one function after the other. A
function is pickled by its name, so it stands at the top of a module that the ranks can import; it
takes ``rank, world`` and further arguments.
"""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_SECONDS = 400


class ProcessGroup:
    """The ranks of one world size.

    Attributes:
        compiled: the folder for whatever DeepSpeed compiles.
    """

    def __init__(self, world: int, folder: Path) -> None:
        self.world, self.compiled, self._log = world, folder / "compiled", folder / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(world),
            "OMP_NUM_THREADS": "1",
            "TORCH_EXTENSIONS_DIR": str(self.compiled),
        }
        environment.pop("DS_ACCELERATOR", None)  # the engine sets it
        self._ranks: list[tuple[subprocess.Popen[bytes], Connection]] = []
        for rank in range(world):
            ours, theirs = Pipe()
            with theirs, self._log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, __file__, str(theirs.fileno())],
                    env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    pass_fds=[theirs.fileno()],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self._ranks.append((process, ours))

    @property
    def output(self) -> str:
        """All that the ranks have printed."""
        return self._log.read_text()

    def send(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        for _, connection in self._ranks:
            connection.send_bytes(pickle.dumps((function, arguments)))

    def receive(self) -> list[Any]:
        """What the function returned, by rank.

        Raises:
            AssertionError: a rank failed or takes too long; with the end of the group's log.
        """
        results = []
        for process, connection in self._ranks:
            answered = connection.poll(TIMEOUT_SECONDS)
            assert answered, f"no answer in {TIMEOUT_SECONDS} s:\n{self.output[-4000:]}"
            try:
                results.append(pickle.loads(connection.recv_bytes()))
            except EOFError:
                process.wait()
                raise AssertionError(self.output[-4000:]) from None
        return results

    def end(self) -> None:
        for process, connection in self._ranks:
            connection.close()
            process.kill()
            process.wait()


class ProcessGroups:
    """Groups by world size, each started at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._groups: dict[int, ProcessGroup] = {}

    def __getitem__(self, world: int) -> ProcessGroup:
        if world not in self._groups:
            folder = self._folder / f"world{world}"
            folder.mkdir(exist_ok=True)
            self._groups[world] = ProcessGroup(world, folder)
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


def _serve(connection: Connection) -> None:
    """What a rank does: calls what it is sent, until the other end closes."""
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
    _serve(Connection(int(sys.argv[1])))
