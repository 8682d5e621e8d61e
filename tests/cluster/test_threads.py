"""Threads follow what runs on the machine, and what is learned does not depend on when it ran."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.testing.steps import a_step
from w2s_ray.cluster.environment import fixed_threads
from w2s_ray.cluster.threads import Share, count_running, running
from w2s_ray.spec.execution import Execution

NEIGHBOUR = """
import sys
from pathlib import Path
from w2s_ray.cluster.threads import running
with running(Path(sys.argv[1])):
    print("runs", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a process that runs a step."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", NEIGHBOUR, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def in_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a thread of its own, where steps run."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.usefixtures("threads")
def test_a_lone_step_has_all_cpus_and_shares_them_with_what_comes(
    tmp_path: Path, neighbour: Callable[[], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``features`` follows what runs beside it, a step that trains keeps its share."""
    monkeypatch.setattr("w2s_ray.cluster.threads.FOLLOWED_SECONDS", 0.0)
    share, seen = Share(8, tmp_path), list[Any]()

    def compute() -> list[int]:
        counts = []
        with share.held(a_step("features", "a", "x"), 8, seen.append) as progress:
            counts.append(torch.get_num_threads())
            other = neighbour()
            progress({"step": 1})
            counts.append(torch.get_num_threads())
            os.kill(other.pid, signal.SIGKILL)  # the kernel unlocks what it held
            other.wait()
            progress({"step": 2})
            counts.append(torch.get_num_threads())
        return counts

    assert in_thread(compute) == [8, 4, 8]
    assert seen == [{"step": 1}, {"step": 2}]
    assert list(tmp_path.iterdir()) == []

    def train() -> list[int]:
        neighbour()
        with share.held(a_step("student", "b", "x"), 3, seen.append) as progress:
            counts = [torch.get_num_threads()]
            neighbour()
            progress({"step": 3})
            return [*counts, torch.get_num_threads()]

    assert in_thread(train) == [3, 3]  # 3 of its half, since others are about to start


@pytest.mark.usefixtures("threads")
def test_fixed_threads_are_left_alone_but_counted(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    with Share(None, tmp_path).held(a_step("features", "a", "x"), 8, lambda numbers: None):
        assert torch.get_num_threads() == 2
        assert count_running(tmp_path) == 1


def test_many_threads_come_and_go(tmp_path: Path) -> None:
    """Nobody takes the file of a thread that starts for that of a dead process."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            count_running(tmp_path)

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(200):
        with running(tmp_path):
            assert count_running(tmp_path) == 1
    stop.set()
    watcher.join()
    assert count_running(tmp_path) == 0


@pytest.mark.parametrize(
    ("environment", "cpus", "expected"),
    [("", None, None), ("3", None, 3), ("4,2", None, 4), ("", 2.5, 2), ("", 0.5, 1), ("3", 2.0, 3)],
)
def test_what_the_user_fixes(
    environment: str, cpus: float | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", environment)
    written = Execution() if cpus is None else Execution(cpus_per_worker=cpus)
    assert fixed_threads(written) == expected
