"""Groups of processes that pytest starts: a test file run as a program, once on every rank."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def run_groups(program: str, outs: Mapping[int, Path], *arguments: str) -> None:
    """Runs ``program OUT ARGUMENTS`` in one group for each world size, all at the same time.

    Args:
        outs: world size -> a folder of that group; its output goes to ``log`` there.

    Raises:
        AssertionError: a rank failed; with the end of its group's log.
    """
    groups = {world: _start(program, world, out, arguments) for world, out in outs.items()}
    try:
        for world, ranks in groups.items():
            codes = [rank.wait(timeout=400) for rank in ranks]
            assert not any(codes), (outs[world] / "log").read_text()[-4000:]
    finally:
        for rank in itertools.chain(*groups.values()):
            rank.kill()


def _start(
    program: str, world: int, out: Path, arguments: tuple[str, ...]
) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "TORCH_EXTENSIONS_DIR": str(out / "compiled"),
    }
    environment.pop("DS_ACCELERATOR", None)
    with (out / "log").open("wb") as log:
        return [
            subprocess.Popen(
                [sys.executable, program, str(out), *arguments],
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for rank in range(world)
        ]
