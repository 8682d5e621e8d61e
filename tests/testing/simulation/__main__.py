"""``python -m tests.testing.simulation``: many schedules, or the operations of one.

``make simulate N=1000000`` runs that many of each model; ``SEED`` is the first. Where a promise is
broken the seed is printed, and ``--trace SEED`` shows what happened.
"""

import argparse
import sys
import time

from tests.testing.simulation.models import MODELS
from tests.testing.simulation.scheduler import Violation
from tests.testing.simulation.schedules import Schedule, check, trace

AT_ONCE = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.testing.simulation")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: all")
    parser.add_argument("-n", type=int, default=10_000, help="schedules of each model")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--trace", type=int, metavar="SEED", help="show one schedule")
    options = parser.parse_args()
    for name in options.model or MODELS:
        model = MODELS[name]
        if options.trace is not None:
            print(*trace(model, options.trace), sep="\n")
            try:
                Schedule(model, options.trace).run()
            except Violation as violation:
                print(violation)
            continue
        began, end = time.monotonic(), options.seed + options.n
        for first in range(options.seed, end, AT_ONCE):
            try:
                check(model, range(first, min(first + AT_ONCE, end)))
            except Violation as violation:
                print(violation)
                return 1
            done = min(first + AT_ONCE, end) - options.seed
            print(f"{name}: {done:,} schedules, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
