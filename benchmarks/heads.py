"""Rows on many last-layer cells: fused training, and the cost per cell of everything else."""

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Row, alternate, stopwatch
from benchmarks.options import Options
from benchmarks.studies import emptied, heads, planned, run_here
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Step
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.store.predictions import write_predictions
from w2s_ray.store.results import save_cells, write_results

SIZES = (10, 100, 1000)
ALONE = 3  # cells run one after another, to time one


def heads_together(options: Options) -> Iterator[Row]:
    """1,000 cells fused against 1,000 × one cell alone, both as whole steps in this process."""
    torch.set_num_threads(options.threads)
    cells = options.size(1000, 10)
    plan, base = _features(options, cells)
    each = [
        {key: plan.steps[key] for key in (cell.keys["student"], cell.keys["student_evaluate"])}
        for cell in plan.cells
    ]
    folder = options.scratch / "heads-round"
    everything = {key: step for steps in each for key, step in steps.items()}
    fused = partial(_seconds_per_cell, [everything], len(each), base, folder)
    alone = partial(_next_alone, itertools.cycle(each), base, folder)
    alone()  # warm-up
    measured = alternate(options.rounds, fused, alone)
    shutil.rmtree(folder)
    best = {side: min(entry[side] for entry in measured) for side in ("ours", "other")}
    yield Row(
        name="heads",
        measure=f"{len(each):,} last-layer cells on stored features, whole steps",
        against=f"{len(each):,} × one cell alone, warm",
        values=[entry["other"] / entry["ours"] for entry in measured],
        target=100.0,
        note=(
            f"{1e3 * best['ours']:.1f} against {1e3 * best['other']:.0f} ms per cell at best; a "
            "cell is its student and its evaluation, committed to the store; 100 settings × 10 "
            "seeds, 4,000 real pairs, features (H = 576) of the first 2 blocks of SmolLM2-135M"
        ),
        rounds=measured,
    )


def _seconds_per_cell(
    runs: Sequence[Mapping[str, Step]], cells: int, base: Path, folder: Path
) -> float:
    """Seconds for ``runs`` one after another in a copy of the store ``base``, per cell."""
    store = _copy(base, folder)
    with stopwatch() as watch:
        for steps in runs:
            run_here(steps, store)
    return watch.seconds / cells


def _next_alone(cells: Iterator[Mapping[str, Step]], base: Path, folder: Path) -> float:
    """Seconds per cell of the next ``ALONE`` cells, each run by itself."""
    return _seconds_per_cell(list(itertools.islice(cells, ALONE)), ALONE, base, folder)


def scaling(options: Options) -> Iterator[Row]:
    """Cost of planning, scheduling and writing results, in ms per cell, at three sizes."""
    sizes = SIZES[:1] if options.quick else SIZES
    plan, base = _features(options, sizes[-1])
    store = Store.open(str(base.with_name("heads-done")))
    if not store.has(plan.cells[-1].keys["student_evaluate"]):
        _copy(base, base.with_name("heads-done"))
        run_here(plan.steps, store)
    costs: dict[str, Callable[[Path], float]] = {
        "plan": _plan_seconds,
        "schedule": _schedule_seconds,
        "result writing": lambda spec: _results_seconds(spec, store),
    }
    for name, seconds in costs.items():
        by_size: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(options.rounds):
            for size in sizes:
                by_size[size].append(1e3 * seconds(heads(options, size)) / size)
        largest = by_size[sizes[-1]]
        medians = ", ".join(
            f"{size:,} cells {sorted(values)[len(values) // 2]:.2f}"
            for size, values in by_size.items()
        )
        yield Row(
            name=f"scaling: {name}",
            measure=f"{name}, per cell of {sizes[-1]:,}",
            against="a fixed limit; linear in the cells",
            values=largest,
            target=5.0,
            at_least=False,
            unit="ms",
            note=f"ms per cell: {medians}",
            rounds=[
                {f"{size} cells": by_size[size][turn] for size in sizes}
                for turn in range(options.rounds)
            ],
        )


def _plan_seconds(spec: Path) -> float:
    with stopwatch() as watch:
        build(load(spec))
    return watch.seconds


def _schedule_seconds(spec: Path) -> float:
    """Seconds to start and complete all steps of a plan, each at once."""
    _, plan = planned(spec)
    with stopwatch() as watch:
        schedule = Schedule(plan.todo(frozenset()))
        while group := schedule.start():
            for step in group:
                schedule.succeed(step.key)
    assert len(schedule.done) == len(plan.steps)
    return watch.seconds


def _results_seconds(spec: Path, store: Store) -> float:
    """Seconds to write ``results/`` and ``predictions/`` from the artifacts of a study."""
    _, plan = planned(spec)
    for folder in ("results", "predictions"):  # an up-to-date table would not be written
        shutil.rmtree(Path(store.uri) / folder, ignore_errors=True)
    with stopwatch() as watch:
        cells = [cell.as_json() for cell in plan.cells]
        save_cells(store, plan.study, cells, plan.select)
        table, _ = write_results(store, plan.study, cells, plan.select)
        write_predictions(store, plan.study, cells)
    assert set(table["status"].to_pylist()) == {"done"}
    return watch.seconds


def _features(options: Options, cells: int) -> tuple[Plan, Path]:
    """The plan, and a store with everything it needs except the cells' own steps."""
    _, plan = planned(heads(options, cells))
    base = options.scratch / f"heads-base-{cells}-{options.quick}"
    shared = {
        key: step
        for key, step in plan.steps.items()
        if step.kind.name != "student"
        and not (
            step.kind.name == "evaluate" and plan.steps[step.inputs["model"]].kind.name == "student"
        )
    }
    run_here(shared, Store.open(str(base)))
    return plan, base


def _copy(base: Path, folder: Path) -> Store:
    shutil.copytree(base, emptied(folder), dirs_exist_ok=True)
    return Store.open(str(folder))
