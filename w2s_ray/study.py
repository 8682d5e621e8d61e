"""The command: ``python -m w2s_ray.study SPEC``.

Runs what is missing of a study and writes its results. Run again, it goes on where it stopped.
Exit code 0: all well; 1: some cell failed; 2: bad input; 130: interrupted.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from w2s_ray.console.data_view import lines
from w2s_ray.console.plan_view import describe, show
from w2s_ray.console.progress import ProgressDisplay
from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan, Step
from w2s_ray.spec.loading import load, located
from w2s_ray.spec.schema import Spec
from w2s_ray.store.artifacts import Store
from w2s_ray.store.results import replaced_cells, save_cells, write_results

WIDTH = 120  # of tables that go to a file or a pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; finished steps are kept, the same command goes on from here",
            file=sys.stderr,
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m w2s_ray.study",
        description="Run a weak-to-strong study; run it again to go on where it stopped.",
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="YAML file of the study")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="show the steps and their cost, run none")
    what.add_argument("--status", action="store_true", help="show what is done, run nothing")
    parser.add_argument(
        "--local", action="store_true", help="run in this process, without Ray (CI, debugging)"
    )
    parser.add_argument("--store", metavar="URI", help="where artifacts and results are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(options: argparse.Namespace) -> int:
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    spec = load(options.spec)
    with located(options.spec):
        plan = build(spec)
    store = Store.open(str(spec.store) if options.store is None else options.store)
    finished = store.finished()
    if options.plan or options.status:
        claimed = {name.partition(".")[0] for name in store.listing("claims")}
        description = describe(spec, plan, finished, store.failures(), claimed)
        print(json.dumps(description)) if options.json else show(description, console)
        return 0
    todo = plan.todo(finished)
    already_done = sum(step.key in finished for step in plan)
    console.print(
        f"study {plan.study}: {len(plan.cells):,} cells, {len(todo):,} steps to do, "
        f"{already_done:,} already done",
        highlight=False,
    )
    store.probe()
    if gone := replaced_cells(store, plan.study, (cell.as_json() for cell in plan.cells)):
        console.print(
            f"note: the tables of study {plan.study} hold {gone:,} cells, none of which is in this "
            "spec; they will be replaced (the artifacts stay, and come back with their cells)",
            highlight=False,
            soft_wrap=True,
        )
    if todo:
        todo = _prepared(options, spec, plan, todo, store, console)
        with ProgressDisplay(todo, already_done, console) as display:
            _execute(todo, store, plan, spec, display, console, local=options.local)
    return _conclude(plan, store, console, as_json=options.json)


def _prepared(
    options: argparse.Namespace,
    spec: Spec,
    plan: Plan,
    todo: dict[str, Step],
    store: Store,
    console: Console,
) -> dict[str, Step]:
    """Refuses what can be refused, prepares the data, and leaves the rest to be run."""
    from w2s_ray.steps.preflight import prepare_data

    def tell(name: str, report: Mapping[str, Any]) -> None:
        for line in lines(name, report):
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    with located(options.spec):
        return prepare_data(spec, plan, todo, store, tell)


def _execute(
    todo: dict[str, Step],
    store: Store,
    plan: Plan,
    spec: Spec,
    display: ProgressDisplay,
    console: Console,
    *,
    local: bool,
) -> None:
    if local:
        from w2s_ray.steps.local import run

        if spec.execution.workers > 1:
            console.print(f"--local: one process instead of {spec.execution.workers} workers")
        run(todo, store, display)
        return
    from w2s_ray.cluster.session import connect
    from w2s_ray.cluster.tune_run import run as run_on_ray

    with connect() as session:
        console.print(f"Ray dashboard: {session.dashboard_url}", highlight=False)
        run_on_ray(
            todo,
            store.uri,
            study=plan.study,
            max_concurrent_steps=spec.execution.max_concurrent_steps,
            on_event=display,
        )


def _conclude(plan: Plan, store: Store, console: Console, *, as_json: bool) -> int:
    from w2s_ray.report.table import tables
    from w2s_ray.store.predictions import write_predictions

    cells = [cell.as_json() for cell in plan.cells]
    save_cells(store, plan.study, cells)
    results, results_path = write_results(store, plan.study, cells)
    predictions_path = write_predictions(store, plan.study, cells)
    states = zip(results["status"].to_pylist(), results["error"].to_pylist(), strict=True)
    missing = sum(status != "done" or error is not None for status, error in states)
    summary: dict[str, Any] = {
        "study": plan.study,
        "cells": len(cells),
        "cells_with_failures": missing,
        "results": results_path,
        "predictions": predictions_path,
    }
    if as_json:
        print(json.dumps(summary))
    else:
        for table in tables(results):
            console.print(table)
        for name in ("results", "predictions"):
            console.print(
                f"{name:12} {summary[name]}", highlight=False, markup=False, soft_wrap=True
            )
    if missing:
        console.print(f"{missing} of {len(cells)} cells miss a score; see status and error there")
    return 1 if missing else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code) if code == 130 else sys.exit(code)
