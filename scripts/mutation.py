"""A mutation run over one room of the package: which changes of its code no test sees.

    python scripts/mutation.py objectives              all mutants of the room
    python scripts/mutation.py data 'w2s_ray.data.batches*'    of one file
    python scripts/mutation.py store --sample 1000             so many, drawn at random
    python scripts/mutation.py store --sample 1000 --apart     those that are left, each by itself
    python scripts/mutation.py --table objectives data         counts of earlier runs

mutmut changes the code (``docs/mutation.md`` has its version, the results and the survivors). It
needs a quarter of an hour to an hour a room and is no part of CI. The run happens on a copy of the
working tree in ``--folder``, which is kept, so that a second run only tries what has changed; the
survivors' changes are written to ``survivors.diff`` there.

mutmut tries a mutant in a fork of one process. Where the tests of that process have started threads
(pyarrow's, for Parquet) the fork may hang for ever; stop the run then, and let ``--apart`` try what
is left in a process of its own.
"""

import argparse
import configparser
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import gettempdir

ROOT = Path(__file__).parents[1]
COPIED = ("w2s_ray", "tests", "study_specs", "benchmarks", "docs", "pyproject.toml", "README.md")
ALSO_COPIED = ("study_specs", "benchmarks", "docs", "README.md")  # that tests read

GOLDEN = ("tests/golden/test_functions.py", "tests/golden/test_keys.py")
COUNTED = (  # calls of the whole, of which mutmut makes more
    "test_canonical.py::test_a_key_takes_few_calls",
    "test_artifacts.py::test_listing_artifacts_takes_few_calls_for_each",
)
# The fast tests of each room. Those that start processes, or read the data beside the project,
# are left out: a mutant does not reach them, or they take too long.
TESTS = {
    "objectives": ("tests/objectives", *GOLDEN),
    "data": ("tests/data", *GOLDEN, "--ignore=tests/data/test_shared.py"),
    "store": (
        "tests/store",
        "--ignore=tests/store/test_processes.py",
        *(f"--deselect=tests/store/{name}" for name in COUNTED),
        # An object store in memory waits as a real one; it is tried for its own file alone.
        "-k=not objects and not fsspec and not object_store and not nobody_serves",
    ),
    "plan": (
        "tests/plan",
        "tests/golden/test_keys.py",
        "tests/invariants/test_identity.py",
        "tests/capacity/test_fit_gpus.py",
        "tests/console/test_plan_view.py",
    ),
}

# Exit codes of mutmut's workers.
OUTCOMES = {
    0: "survived",
    1: "killed",
    3: "killed",
    5: "not covered",
    33: "not covered",
    None: "not tried",
}
TIMED_OUT = 36
SECONDS = 300.0  # of the tests of one mutant
ENVIRONMENT = {**os.environ, "CI": "1", "OMP_NUM_THREADS": "1"}  # CI: Hypothesis draws no dice
COLUMNS = ("killed", "timed out", "survived", "not covered", "not tried")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.table:
        print(table(options.folder, [options.room, *options.names]))
        return 0
    folder = options.folder / options.room
    if options.apart:
        apart(folder, chosen(folder, options.sample), options.jobs)
        print(table(options.folder, [options.room]))
        return 0
    prepare(folder, options.room)
    names = options.names or drawn(folder, options.mutmut, options.sample)
    command = [options.mutmut, "run", "--max-children", str(options.jobs), *names]
    code = subprocess.run(command, cwd=folder, env=ENVIRONMENT).returncode
    if code == 0:
        write_survivors(folder, options.mutmut)
        print(table(options.folder, [options.room]))
    return code


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Mutate the code of one room and run its tests.")
    made.add_argument("room", choices=TESTS)
    made.add_argument("names", nargs="*", help="mutants, or with --table further rooms")
    made.add_argument("--folder", type=Path, default=Path(gettempdir()) / "w2s-ray-mutation")
    made.add_argument("--mutmut", default=shutil.which("mutmut") or "mutmut", help="the command")
    made.add_argument("--jobs", type=int, default=1, help="mutants tried at a time")
    made.add_argument("--sample", type=int, help="mutants to draw at random; default: all")
    made.add_argument("--apart", action="store_true", help="a process for each that is left")
    made.add_argument("--table", action="store_true", help="only count the results of earlier runs")
    return made


def prepare(folder: Path, room: str) -> None:
    """Copies the working tree and says what to mutate and which tests to run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    chosen = [test for test in TESTS[room] if not test.startswith("-")]
    options = [test for test in TESTS[room] if test.startswith("-")]
    settings = {
        "source_paths": ["w2s_ray"],
        "only_mutate": [f"w2s_ray/{room}/*.py"],
        "also_copy": ALSO_COPIED,
        "pytest_add_cli_args_test_selection": chosen,
        "pytest_add_cli_args": ["-q", "-p", "no:cacheprovider", *options],
    }
    lines = ["[mutmut]"]
    for name, values in settings.items():
        lines += [f"{name}=", *(f"  {value}" for value in values)]
    (folder / "setup.cfg").write_text("\n".join(lines) + "\n")


def drawn(folder: Path, mutmut: str, count: int | None) -> list[str]:
    """Names of mutants that are drawn at random, the same in each run; none where all are tried."""
    if count is None:
        return []
    # A run of no mutant makes them all.
    subprocess.run([mutmut, "run", "no.such.mutant"], cwd=folder, capture_output=True)
    return chosen(folder, count)


def chosen(folder: Path, count: int | None) -> list[str]:
    """So many of the mutants that were made; None: all."""
    names = sorted(name for outcomes in results(folder).values() for name in outcomes)
    if count is None:
        return names
    return sorted(random.Random(count).sample(names, min(count, len(names))))


def apart(folder: Path, names: Sequence[str], jobs: int) -> None:
    """Tries those of the mutants that mutmut has not, or not to their end, each in a process of its
    own."""
    mutants = folder / "mutants"
    stats = json.loads((mutants / "mutmut-stats.json").read_text())
    settings = configparser.ConfigParser()
    settings.read(folder / "setup.cfg")
    options = settings["mutmut"]["pytest_add_cli_args"].split("\n")[1:]
    left = [
        (meta, name)
        for meta in sorted((mutants / "w2s_ray").rglob("*.py.meta"))
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()
        if name in names and OUTCOMES.get(code, "timed out") in ("not tried", "timed out")
    ]

    def code_of(name: str) -> int:
        tests = stats["tests_by_mangled_function_name"].get(name.partition("__mutmut_")[0], [])
        command = [sys.executable, "-m", "pytest", "-x", *options, *tests]
        environment = ENVIRONMENT | {"MUTANT_UNDER_TEST": name}
        try:
            run = subprocess.run(
                command, cwd=mutants, env=environment, capture_output=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        return run.returncode if tests else 33

    with ThreadPoolExecutor(jobs) as pool:
        for (meta, name), code in zip(left, pool.map(code_of, [n for _, n in left]), strict=True):
            content = json.loads(meta.read_text())
            content["exit_code_by_key"][name] = code
            meta.write_text(json.dumps(content, indent=4))
            print(name, OUTCOMES.get(code, "timed out"), flush=True)


def results(folder: Path) -> dict[str, dict[str, str]]:
    """Outcome of each mutant by file and name."""
    found: dict[str, dict[str, str]] = {}
    for meta in sorted((folder / "mutants" / "w2s_ray").rglob("*.py.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        outcomes = {name: OUTCOMES.get(code, "timed out") for name, code in codes.items()}
        if outcomes:
            found[meta.name.removesuffix(".meta")] = outcomes
    return found


def table(folder: Path, rooms: Sequence[str]) -> str:
    """Markdown: mutants by outcome, a row a file."""
    rows = [("room", "file", "mutants", *COLUMNS)]
    for room in rooms:
        for file, outcomes in results(folder / room).items():
            counts = Counter(outcomes.values())
            numbers = (len(outcomes), *(counts[column] for column in COLUMNS))
            rows.append((room, file, *map(str, numbers)))
    rows.insert(1, ("---",) * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_survivors(folder: Path, mutmut: str) -> None:
    """The change of each mutant that no test saw, one after the other."""
    names = [
        name
        for outcomes in results(folder).values()
        for name, outcome in outcomes.items()
        if outcome == "survived"
    ]
    with (folder / "survivors.diff").open("w") as file:
        for name in names:
            shown = subprocess.run(
                [mutmut, "show", name], cwd=folder, capture_output=True, text=True
            ).stdout
            changed = [
                line for line in shown.splitlines()
                if line[:1] in "+-" and line[:3] not in ("+++", "---")
            ]  # fmt: skip
            print(f"# {name}", *changed, sep="\n", file=file)


if __name__ == "__main__":
    sys.exit(main())
