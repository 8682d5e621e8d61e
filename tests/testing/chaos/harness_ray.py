"""Episodes on Ray: one Ray for all of them, which each driver joins."""

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

import psutil
import ray

from tests.testing.chaos import stores
from tests.testing.chaos.episodes import Driver, Episode
from tests.testing.chaos.forks import Forks
from tests.testing.chaos.harness import Harness, Straight
from w2s_ray.cluster.session import connect
from w2s_ray.store.artifacts import Store

CPUS = 2
ACTOR = "ray::StepActor"  # title of its process; the agents of a node have others, and end with it


@contextmanager
def ray_harness(folder: Path, forks: Forks) -> Iterator["RayHarness"]:
    """A harness whose drivers join a Ray that is started here."""
    with connect(num_cpus=CPUS):
        yield RayHarness(folder, forks, ray.get_runtime_context().gcs_address)


class RayHarness(Harness):
    """As ``Harness``, on Ray; the numbers must be those of one process.

    Args:
        address: of Ray, whose processes are descendants of this one.
    """

    def __init__(self, folder: Path, forks: Forks, address: str) -> None:
        super().__init__(folder, forks)
        self._address = address
        self._on_ray: dict[str, Straight] = {}

    def straight(self, study: str) -> Straight:
        """The tables of a run in one process, with the time of one on Ray."""
        if study not in self._on_ray:
            self._mode, self._environment = ["--local"], {}
            local = super().straight(study)
            of_ray = {name: os.environ[name] for name in os.environ if name.startswith("RAY_")}
            self._mode, self._environment = [], {**of_ray, "RAY_ADDRESS": self._address}
            root = str(self._folder / f"straight-ray-{study}")
            began = time.monotonic()
            code, output = self._run(study, root, Driver())
            assert code == 0, output
            seconds = time.monotonic() - began
            wrong = stores.faults(Store.open(root), "tiny", local.tables, {})
            assert not wrong, f"Ray differs from one process: {wrong}"
            self._on_ray[study] = local._replace(seconds=seconds)
        return self._on_ray[study]

    @contextmanager
    def _disturbed(
        self, episode: Episode, pids: Sequence[int], start: float, drivers: Sequence[Driver]
    ) -> Iterator[None]:
        chance = random.Random(episode.name)
        seconds, timers = self.straight(episode.study).seconds, []
        for driver in drivers:
            for moment in driver.actors:
                timers.append(Timer(moment * seconds, _kill_one, [chance]))
                timers[-1].start()
        with super()._disturbed(episode, pids, start, drivers):
            yield
        for timer in timers:
            timer.cancel()


def _kill_one(chance: random.Random) -> None:
    """Kills a process in which Ray runs an actor, idle or not."""
    with suppress(psutil.Error):
        actors = [
            process for process in psutil.Process().children(recursive=True) if _is_actor(process)
        ]
        if actors:
            chance.choice(actors).send_signal(signal.SIGKILL)


def _is_actor(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith(ACTOR)
    return False
