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
    if options.store == "s3" and moto_server() is None:
        print(f"no moto_server, neither on the path nor in {MOTO}; nothing was tried")
        return 0
    if options.store == "disk" and not can_mount():
        print("this process may not mount a tmpfs; nothing was tried")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    tried: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    began = time.monotonic()
    with ExitStack() as stack:
        harness = _harness(options.store, folder, stack)
        for episode in _episodes(options):
            faults = harness.run(episode)
            tried[episode.kind] += 1
            wrong[episode.kind] += bool(faults)
            if faults:
                print(f"{episode.name} ({episode.study}):", *faults, sep="\n  ", flush=True)
    for kind, count in tried.items():
        print(f"{options.store} {kind}: {count} episodes, {wrong[kind]} with faults")
    print(f"{time.monotonic() - began:.0f} s; stores with faults are in {folder}")
    return 1 if wrong.total() else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.testing.chaos", description=__doc__)
    parser.add_argument("--store", choices=list(KINDS), default="local")
    parser.add_argument("--episodes", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--kinds", help="of episodes, with commas; default: all")
    parser.add_argument("--only", metavar="NAME", help="one episode, by its name")
    options = parser.parse_args()
    if options.only:
        options.store = options.only.partition("-")[0]
    return options


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


def _episodes(options: argparse.Namespace) -> Iterator[Episode]:
    if options.only:
        store, kind, seed = options.only.split("-")
        yield draw(int(seed), kind, store)
        return
    kinds = options.kinds.split(",") if options.kinds else KINDS[options.store]
    for seed in range(options.seed, options.seed + options.episodes):
        yield draw(seed, kinds[seed % len(kinds)], options.store)


if __name__ == "__main__":
    sys.exit(main())
