"""Many episodes: ``python -m tests.testing.chaos --episodes 200 --seed 0``.

Each fault is a line below the episode that shows it; ``--only local-points-17`` runs that one
again.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.testing.chaos.episodes import KINDS, Episode, draw
from tests.testing.chaos.forks import Forks
from tests.testing.chaos.harness import Harness
from tests.testing.chaos.harness_disk import DiskHarness, can_mount
from tests.testing.chaos.harness_ray import ray_harness
from tests.testing.chaos.harness_s3 import S3Harness
from tests.testing.chaos.s3 import MOTO, moto_server, serving


def main() -> int:
    """Runs the episodes; 1 if one of them shows a fault."""
    options = _options()
    wrong = 0
    for store in options.stores.split(","):
        if reason := _missing(store):
            print(f"{store}: nothing was tried: {reason}")
        else:
            wrong += _try(store, options)
    return 1 if wrong else 0


def _try(store: str, options: argparse.Namespace) -> int:
    """Runs the episodes on one kind of store; how many show a fault."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{store}-"))
    tried: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    began = time.monotonic()
    with ExitStack() as stack:
        harness = _harness(store, folder, stack)
        for episode in _episodes(store, options):
            faults = harness.run(episode)
            tried[episode.kind] += 1
            wrong[episode.kind] += bool(faults)
            if faults:
                print(f"{episode.name} ({episode.study}):", *faults, sep="\n  ", flush=True)
            elif options.verbose:
                print(episode.name, flush=True)
    for kind, count in tried.items():
        print(f"{store} {kind}: {count} episodes, {wrong[kind]} with faults")
    print(f"{store}: {time.monotonic() - began:.0f} s; stores with faults are in {folder}")
    return wrong.total()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.testing.chaos", description=__doc__)
    parser.add_argument("--stores", default="local", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--episodes", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--kinds", help="of episodes, with commas; default: all")
    parser.add_argument("--only", metavar="NAME", help="one episode, by its name")
    parser.add_argument("--verbose", action="store_true", help="name every episode")
    options = parser.parse_args()
    if options.only:
        options.stores = options.only.partition("-")[0]
    return options


def _missing(store: str) -> str | None:
    """Why episodes on such a store cannot be run here."""
    if store == "s3" and moto_server() is None:
        return f"there is no moto_server, see {MOTO}"
    if store == "disk" and not can_mount():
        return "mounting a tmpfs takes root"
    return None


def _harness(store: str, folder: Path, stack: ExitStack) -> Harness:
    forks = Forks()
    stack.callback(forks.end)
    if store == "local":
        return Harness(folder, forks)
    if store == "ray":
        return stack.enter_context(ray_harness(folder, forks))
    if store == "disk":
        return DiskHarness(folder, forks)
    return S3Harness(folder, forks, stack.enter_context(serving()))


def _episodes(store: str, options: argparse.Namespace) -> Iterator[Episode]:
    if options.only:
        _, kind, seed = options.only.split("-")
        yield draw(int(seed), kind, store)
        return
    kinds = options.kinds.split(",") if options.kinds else KINDS[store]
    for seed in range(options.seed, options.seed + options.episodes):
        yield draw(seed, kinds[seed % len(kinds)], store)


if __name__ == "__main__":
    sys.exit(main())
