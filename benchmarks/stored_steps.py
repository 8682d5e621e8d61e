"""A row on what the store costs: steps that write a kilobyte, each claimed and committed alone."""

from collections.abc import Iterator

from benchmarks.empty_step import empty_step
from benchmarks.measure import Row, stopwatch
from benchmarks.options import Options
from benchmarks.studies import emptied
from w2s_ray.running.runner import execute
from w2s_ray.store.artifacts import Store

STEPS = 300


def stored_steps(options: Options) -> Iterator[Row]:
    """Milliseconds of a step of its own, in a store on this machine's disk."""
    count = options.size(STEPS, 20)
    folder = options.scratch / "stored-steps"
    values = []
    for _ in range(options.size(options.rounds, 1)):
        emptied(folder)
        store = Store.open(str(folder))
        execute(empty_step("first"), store)  # makes folders, and loads what is imported late
        with stopwatch() as watch:
            for number in range(count):
                execute(empty_step(str(number)), store)
        values.append(1000 * watch.seconds / count)
    yield Row(
        name="stored_steps",
        measure=f"{count:,} steps that write a kilobyte, each in an artifact of its own",
        against="a fixed limit",
        values=values,
        target=20.0,
        at_least=False,
        unit="ms",
        note=(
            "claim, look, record, digests, commit and release on the disk of --scratch, one after "
            "the other in one process; nothing is computed"
        ),
    )
