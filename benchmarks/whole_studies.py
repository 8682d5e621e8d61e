"""Rows on whole studies as commands: the quickstart in an empty store, and its second run."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, alternate, share, stopwatch, times_faster
from benchmarks.options import Options
from benchmarks.sides import REPOSITORY, Side
from benchmarks.studies import emptied, quickstart


def quickstart_cold(options: Options) -> Iterator[Row]:
    """The whole quickstart in an empty store, in one process and on Ray, against cell by cell."""
    spec = quickstart(options)
    for name, arguments, title in (
        ("quickstart", ["--local"], "quickstart, cold store, --local"),
        ("quickstart_ray", [], "quickstart, cold store, Ray on this machine"),
    ):
        yield _against_cells(options, spec, name, arguments, title)


def _against_cells(
    options: Options, spec: Path, name: str, arguments: Sequence[str], title: str
) -> Row:
    given = {"spec": str(spec), "scratch": str(options.scratch), "threads": options.threads}
    rounds = options.size(min(options.rounds, 3), 1)
    with stopwatch() as start:
        side = Side("side_cells", given, threads=options.threads)
    with side:
        number = int(side.last["cells"])
        turn = iter(range(0, number, max(1, number // rounds)))
        store = options.scratch / f"{name}-store"
        whole = partial(_cold, options, store, _study(spec, store, arguments))
        one_by_one = partial(_all_cells, side, turn, number, start.seconds)
        measured = alternate(rounds, whole, one_by_one)
        steps = side.last["steps"]
    best = {side: min(entry[side] for entry in measured) for side in ("ours", "other")}
    return Row(
        name=name,
        measure=title,
        against="the same grid cell by cell through unshared steps",
        values=times_faster(measured),
        target=8.0,
        note=(
            f"{best['ours']:.0f} s, with the start of the process, against {best['other']:,.0f} s "
            f"at best: {number} × one cell of {steps} steps in an empty store ({rounds} cells were "
            f"run), and one start ({start.seconds:.0f} s)"
        ),
        rounds=measured,
    )


def _cold(options: Options, store: Path, command: Sequence[str]) -> float:
    """Seconds of a command in an empty store."""
    emptied(store)
    return _command(options, command)


def _all_cells(side: Side, turn: Iterator[int], number: int, start: float) -> float:
    """Seconds for ``number`` cells one by one and the start, extrapolated from the next cell."""
    return start + number * float(side.ask(cell=next(turn))["seconds"])


def second_run(options: Options) -> Iterator[Row]:
    """The command on a finished study against the interpreter and the command's imports."""
    spec, store = quickstart(options), options.scratch / "quickstart-store"
    _command(options, _study(spec, store, ["--local"]))  # completes the study
    again = _study(spec, store, ["--local"])
    imports = [sys.executable, "-c", "import w2s_ray.study"]
    _command(options, again)
    _command(options, imports)
    measured = alternate(
        options.size(2 * options.rounds, 1),
        partial(_command, options, again),
        partial(_command, options, imports),
    )
    best = {side: min(entry[side] for entry in measured) for side in ("ours", "other")}
    yield Row(
        name="second_run",
        measure="second run of the finished quickstart",
        against="interpreter and imports alone",
        values=share(measured),
        target=2.0,
        at_least=False,
        note=(
            f"{best['ours']:.2f} against {best['other']:.2f} s at best; the second is "
            '`python -c "import w2s_ray.study"`'
        ),
        rounds=measured,
    )


def _study(spec: Path, store: Path, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "w2s_ray.study", str(spec), "--store", str(store), *arguments]


def _command(options: Options, command: Sequence[str]) -> float:
    """Seconds of a command that must succeed."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    with stopwatch() as watch:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return watch.seconds
