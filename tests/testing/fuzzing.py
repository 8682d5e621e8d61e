"""``python -m tests.testing.fuzzing --minutes 10``: each reader of foreign input, for so long.

The tests are those of the usual run with more examples and other seeds. A fault is shown as pytest
shows it, and the seed repeats it; the next target goes on.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping

from hypothesis import HealthCheck, settings

_EXAMPLES = "W2S_FUZZ_EXAMPLES"

TARGETS: Mapping[str, str] = {
    "spec": "tests/spec/test_fuzz.py -k any",
    "data": "tests/corpora/test_mutations.py -k data",
    "model-folder": "tests/corpora/test_mutations.py -k folders",
    "gguf": "tests/corpora/test_mutations.py -k gguf",
    "store": "tests/corpora/test_store_names.py",
    "report": "tests/report/test_any_text.py",
}


def fuzzed(examples: int) -> settings:
    """Settings of a fuzzed test: so many examples, or as many as ``make fuzz`` asks for."""
    return settings(
        max_examples=int(os.environ.get(_EXAMPLES, examples)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def main() -> int:
    """Runs the targets; 1 if one of them shows a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.testing.fuzzing")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each target")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--examples", type=int, default=500, help="of a test, for each seed")
    parser.add_argument("--only", choices=TARGETS, action="append", help="default: all")
    options = parser.parse_args()
    faults = [name for name in options.only or TARGETS if not _is_clean(name, options)]
    return 1 if faults else 0


def _is_clean(name: str, options: argparse.Namespace) -> bool:
    """Runs a target seed by seed until its time is over or a fault is found; whether none was."""
    seed, began = options.seed, time.monotonic()
    while time.monotonic() - began < 60 * options.minutes:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command += [*TARGETS[name].split(), f"--hypothesis-seed={seed}"]
        environment = os.environ | {_EXAMPLES: str(options.examples)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            print(run.stdout, run.stderr, f"{name}: seed {seed} shows a fault", sep="\n")
            return False
        seed += 1
    seeds, minutes = seed - options.seed, (time.monotonic() - began) / 60
    each = f"{options.examples} examples of each test"
    print(f"{name}: {seeds} seeds, {each}, {minutes:.1f} minutes, no fault", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
