"""Episodes: what is done to the drivers of a study, drawn from a seed.

An episode is a number of *rounds*, in each of which drivers start together; some are disturbed.
After the last one the command runs once undisturbed, and everything must be as if nothing had
happened (``stores.faults``).
"""

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.testing.specs import tiny_spec

KINDS = {
    "local": ("points", "moments", "signals", "race", "stop", "clock"),
    "ray": ("driver", "actors", "signals"),
    "disk": ("full", "inodes", "read_only"),
    "s3": ("requests", "moments", "race", "throttled", "outage"),
}
OUTAGE_SECONDS = 20.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

STUDIES: dict[str, dict[str, Any]] = {
    # Sixteen students and their scores: a bundle of each kind.
    "bundles": tiny_spec(
        grid__noise_ratio=[0.0, 0.1, 0.2, 0.3],
        grid__seed=[0, 1],
    ),
    # Heads in folders of their own beside models that are checkpointed at every other update.
    "models": tiny_spec(
        grid__loss=["forward_kl"],
        grid__trainable=["last_layer", "full"],
        execution={"checkpoint_steps": 2},
    ),
}


@dataclass(frozen=True)
class Driver:
    """What is done to one driver.

    Attributes:
        point: position among all points of an undisturbed run (0 to 1) at which it kills itself.
        moment: of a signal, as a part of the time of an undisturbed run.
        signal: that it gets at this moment.
        stopped: seconds after SIGSTOP at which it continues.
        machine: that it takes itself to be on; the real one where it is empty.
        clock: seconds by which its clock is wrong.
        request: position among all changes that an undisturbed run asks an object store for (0 to
            1) at which it is killed.
        answered: whether the object store has made that change by then.
        actors: moments at which a process of Ray that works for it is killed.
    """

    point: tuple[float, float] | None = None
    moment: float | None = None
    signal: int = signal.SIGKILL
    stopped: float = 0.0
    machine: str = ""
    clock: float = 0.0
    request: float | None = None
    answered: bool = False
    actors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Episode:
    """Rounds of drivers that start together.

    Attributes:
        lease: seconds; 0: as in production.
        failing: share of the requests that an object store refuses, but for the last run.
        outage: moment at which it is gone, as a part of the time of an undisturbed run, and seconds
            after which it is back.
        space, inodes: of the disk, as parts of what an undisturbed run needs; 0: enough.
        read_only: moment from which the disk cannot be written; None: it always can.
    """

    kind: str
    seed: int
    study: str
    rounds: Sequence[Sequence[Driver]]
    lease: float = 0.0
    store: str = "local"
    failing: float = 0.0
    outage: tuple[float, float] | None = None
    space: float = 0.0
    inodes: float = 0.0
    read_only: float | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the system may refuse what a driver asks for."""
        return bool(self.failing or self.outage or self.store == "disk")

    @property
    def name(self) -> str:
        return f"{self.store}-{self.kind}-{self.seed}"


def draw(seed: int, kind: str | None = None, store: str = "local") -> Episode:
    """The episode of a seed; of the given kind, or of one of ``KINDS`` by turns."""
    kind = kind or KINDS[store][seed % len(KINDS[store])]
    chance = random.Random(f"{store} {kind} {seed}")
    study = chance.choice(list(STUDIES))
    if store == "disk":
        amount = chance.uniform(0.1, 1.1)
        of_kind = {"full": "space", "inodes": "inodes", "read_only": "read_only"}[kind]
        fields: dict[str, Any] = {of_kind: amount}
        return Episode(kind, seed, study, [[Driver()]], store=store, **fields)
    if kind == "throttled":
        driver = Driver() if chance.random() < 0.5 else _at_request(chance)
        return Episode(kind, seed, study, [[driver]], store=store, failing=0.15)
    if kind == "outage":
        outage = chance.uniform(0, 1), chance.uniform(1, OUTAGE_SECONDS)
        return Episode(kind, seed, study, [[Driver()]], store=store, outage=outage)
    rounds, lease = _ROUNDS[kind](chance)
    return Episode(kind, seed, study, rounds, lease, store)


Rounds = tuple[Sequence[Sequence[Driver]], float]


def _points(chance: random.Random) -> Rounds:
    return [[_at_point(chance)] for _ in range(chance.randint(1, 3))], 0.0


def _requests(chance: random.Random) -> Rounds:
    return [[_at_request(chance)] for _ in range(chance.randint(1, 3))], 0.0


def _moments(chance: random.Random) -> Rounds:
    return [[_at_moment(chance)] for _ in range(chance.randint(1, 3))], 0.0


def _signals(chance: random.Random) -> Rounds:
    count = chance.randint(1, 3)
    return [[_at_moment(chance, chance.choice(SIGNALS))] for _ in range(count)], 0.0


def _driver(chance: random.Random) -> Rounds:
    return [[_at_moment(chance)] for _ in range(chance.randint(1, 2))], 0.0


def _actors(chance: random.Random) -> Rounds:
    moments = tuple(chance.uniform(0.2, 1.0) for _ in range(chance.randint(1, 2)))
    return [[Driver(actors=moments)]], 0.0


def _race(chance: random.Random) -> Rounds:
    """Two drivers, or eight, of which some are killed; one never is."""
    count = 8 if chance.random() < 0.15 else 2
    drivers = [Driver()]
    while len(drivers) < count:
        drivers.append(chance.choice([Driver(), _at_point(chance), _at_moment(chance)]))
    chance.shuffle(drivers)
    return [drivers], 0.0


def _stop(chance: random.Random) -> Rounds:
    """On two machines; one driver stands still for longer than its lease."""
    lease = 1.0
    stopped = Driver(
        moment=chance.uniform(0.2, 0.9),
        signal=signal.SIGSTOP,
        stopped=lease * chance.uniform(1.5, 4),
        machine="first",
    )
    return [[stopped, Driver(machine="second")]], lease


def _clock(chance: random.Random) -> Rounds:
    """Clocks that are wrong by hours, or jump between two runs."""
    clocks = [chance.uniform(-1, 1) * 10 ** chance.uniform(0, 6) for _ in range(2)]
    killed = _at_point(chance)
    first = Driver(point=killed.point, clock=clocks[0])
    return [[first], [Driver(clock=clocks[1]), Driver()]], 0.0


def _at_point(chance: random.Random) -> Driver:
    return Driver(point=(chance.random(), chance.random()))


def _at_request(chance: random.Random) -> Driver:
    return Driver(request=chance.random(), answered=chance.random() < 0.5)


def _at_moment(chance: random.Random, number: int = signal.SIGKILL) -> Driver:
    return Driver(moment=chance.uniform(0.0, 1.1), signal=number)


_ROUNDS = {
    "points": _points,
    "requests": _requests,
    "driver": _driver,
    "actors": _actors,
    "moments": _moments,
    "signals": _signals,
    "race": _race,
    "stop": _stop,
    "clock": _clock,
}
