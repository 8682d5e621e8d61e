"""The command: ``python -m w2s_ray.study SPEC``.

Runs the unfinished steps of a study and writes its results; run it again to resume. Exit codes:
``ending.codes``.
"""

from w2s_ray.ending import command, signals

if __name__ == "__main__":
    command.start()  # before the imports below, which take a second

import argparse
import json
import os
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console

from w2s_ray.console import data_view
from w2s_ray.console.plan_view import describe, show
from w2s_ray.console.progress import OF_DAMAGE, ProgressDisplay
from w2s_ray.console.terminal import open_console
from w2s_ray.ending.options import OptionParser
from w2s_ray.errors import InputError
from w2s_ray.masking import masked
from w2s_ray.plan.build import build
from w2s_ray.plan.cost import flops
from w2s_ray.plan.exports import exports, not_exported
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.reruns import Reruns, add_rerun_options
from w2s_ray.plan.schedule import Schedule
from w2s_ray.plan.step import Step
from w2s_ray.plan.test_steps import models_without_weights
from w2s_ray.running.installed import check_installed
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.loading import load, located
from w2s_ray.spec.schema import Spec
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError
from w2s_ray.store.leftovers import remove_leftovers
from w2s_ray.store.names import (
    REPORT_PAGE,
    RESERVED,
    predictions_file,
    report_folder,
    results_file,
    samples_file,
    study_file,
    train_predictions_file,
    transfer_file,
)
from w2s_ray.store.plans import save_plan
from w2s_ray.store.results import replaced_cells

if TYPE_CHECKING:  # the tables need more imports than most of the command
    from w2s_ray.store.study_tables import StudyTables

MOST_EXPORTS = 8  # lines at the end of a run
MOST_REPAIRS = 32  # rounds of one run in which damaged artifacts are made again
MOST_LOST = 20  # models without weights that are named
NO_REPORT = "W2S_RAY_NO_REPORT"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    return command.code_of(partial(_run, options))


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="python -m w2s_ray.study",
        description="Run a weak-to-strong study; run it again to resume.",
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="YAML file of the study")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="show steps and cost; run nothing")
    what.add_argument("--status", action="store_true", help="show what is finished; run nothing")
    parser.add_argument(
        "--local",
        action="store_true",
        help="run in this process, without Ray (CI, debugging)",
    )
    parser.add_argument("--store", metavar="URI", help="folder or URI of artifacts and results")
    report = parser.add_mutually_exclusive_group()
    report.add_argument("--report", action="store_true", help="write the report anew in any case")
    report.add_argument(
        "--no-report",
        action="store_true",
        default=bool(os.environ.get(NO_REPORT)),
        help=f"write the tables alone (also with {NO_REPORT}=1 in the environment)",
    )
    add_rerun_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(options: argparse.Namespace) -> int:
    console = open_console(stderr=options.json)
    spec = load(options.spec)
    with located(options.spec):
        plan = build(spec)
    store = Store.open(str(spec.store) if options.store is None else options.store)
    study = _Study(spec, plan, store, console, Reruns.of(options))
    if options.plan or options.status:
        study.describe(as_json=options.json)
        return 0
    for line in study.reruns.force(options.force, plan, store):
        study.say(line)
    for _ in range(MOST_REPAIRS):
        try:
            return _run_once(study, options, may_repeat=True)
        except StoreError as damage:
            study.set_aside(damage)
    return _run_once(study, options, may_repeat=False)


def _run_once(study: "_Study", options: argparse.Namespace, *, may_repeat: bool) -> int:
    """Runs what is unfinished and writes the tables.

    Raises:
        StoreError: an artifact is damaged; once it is set aside, the study can run again.
    """
    with located(options.spec):
        todo = study.prepared(local=options.local)
    signals.check()
    try:
        failed = study.run(todo, local=options.local) if todo else 0
    except KeyboardInterrupt as interrupt:
        # Frames of the run may hold a claim that was being taken; it is given up with them.
        interrupt.__traceback__ = interrupt.__context__ = None
        study.save_unfinished()
        raise
    if failed and may_repeat:
        raise StoreError(f"steps with a damaged input: {failed:,}; they run again")
    by_default = not options.no_report and (bool(todo) or not study.has_report())
    wanted = options.report or by_default
    return study.conclude(as_json=options.json, with_report=wanted)


@dataclass(frozen=True)
class _Study:
    spec: Spec | GenerationSpec
    plan: Plan
    store: Store
    console: Console
    reruns: Reruns
    shown: set[str] = field(default_factory=set)  # data sets whose rows were shown

    def say(self, text: str) -> None:
        self.console.print(masked(text), highlight=False, markup=False, soft_wrap=True)

    def describe(self, *, as_json: bool) -> None:
        """Shows the plan and its state, for ``--plan`` and ``--status``."""
        finished, failures = self.store.finished(), self.store.failures()
        claimed = self.store.claimed()
        description = describe(self.spec, self.plan, finished, failures, claimed)
        if as_json:
            print(json.dumps(description))
            return
        show(description, self.console)
        self._say_lost_weights(finished)

    def prepared(self, *, local: bool) -> dict[str, Step]:
        """Checks the inputs, prepares the data, and returns the steps that remain."""
        study = self.plan.study
        self.store.probe(
            (*RESERVED, *self.plan.count()),
            (
                study_file(study),
                results_file(study),
                predictions_file(study),
                train_predictions_file(study),
                transfer_file(study),
                samples_file(study),
            ),
        )
        remove_leftovers(self.store)
        with self.store.writing_errors():
            save_plan(self.store, study, self.plan.steps)
        checked = self.store.checked(self.plan.steps)
        for damage in checked.damaged:
            self.set_aside(damage)
        finished = checked.finished
        todo = self.reruns.todo(self.plan, finished, self.store)
        self.say(
            f"study {self.plan.study}: {len(self.plan.cells):,} cells, {len(todo):,} steps to do, "
            f"{len(finished):,} already done"
        )
        cells = (cell.as_json() for cell in self.plan.cells)
        if replaced := replaced_cells(self.store, self.plan.study, cells):
            self.say(
                f"note: {replaced:,} cells in this study's tables are not in the spec any more; "
                "their rows are removed at the end of this run (their artifacts stay, and the rows "
                "return with the cells)"
            )
        wanted = self.spec.execution.export_models
        if lacking := not_exported(self.plan, wanted, finished, self.store):
            counts = ", ".join(f"{count:,} {kind}" for kind, count in lacking.items())
            self.say(
                f"note: finished steps without an export: {counts} (they ran before export_models "
                "asked for one); delete their folders to train them again"
            )
        if not todo:
            return {}
        check_installed(todo, local=local)
        self._say_lost_weights(finished)
        kinds = ("prepare", "test_set")
        read = {s.key: s.slug for s in self.plan if s.kind.name in kinds and s.key in finished}
        for key, record in self.store.records(read).items() if read else ():
            self._report_rows(read[key], record["metrics"]["report"])
        if isinstance(self.spec, GenerationSpec):
            from w2s_ray.running.text_preflight import prepare_prompts

            return prepare_prompts(self.spec, todo, self.store, self.say)
        from w2s_ray.running.preflight import prepare_data

        return prepare_data(
            self.spec, self.plan, todo, self.store, self._report_rows, self._report_tokens
        )

    def set_aside(self, damage: StoreError) -> None:
        """Says what is damaged, and moves it out of the way of the step that makes it again."""
        self.say(str(damage))
        with self.store.writing_errors():
            self.store.set_aside(damage)

    def _report_rows(self, name: str, report: Mapping[str, Any]) -> None:
        if name in self.shown:
            return
        self.shown.add(name)
        self.console.print(data_view.table(name, report))
        for line in data_view.lines(name, report):
            self.say(line)

    def _report_tokens(self, data: str, model: str, counts: Mapping[str, int]) -> None:
        assert isinstance(self.spec, Spec)
        self.say(data_view.token_line(data, model, counts, self.spec.training))

    def _say_lost_weights(self, finished: Container[str]) -> None:
        """Names finished models that cannot score a further test set, before anything is spent."""
        lost = models_without_weights(self.plan, finished, self.store)
        if not lost:
            return
        folders = self.store.finished()
        named = ", ".join(folders[key] for key in lost[:MOST_LOST])
        more = f" and {len(lost) - MOST_LOST:,} more" if len(lost) > MOST_LOST else ""
        self.say(
            f"warning: the weights of {len(lost):,} finished models were not kept, so they cannot "
            f"score further test sets: {named}{more}; delete these folders of the store to train "
            "them again"
        )

    def run(self, todo: Mapping[str, Step], *, local: bool) -> int:
        """Runs the steps, and returns how many failed for an input that is damaged."""
        failed = self._schedule(todo, local=local).failed
        notes = self.store.failures() if failed else {}
        return sum(notes[key]["error"].startswith(OF_DAMAGE) for key in failed & notes.keys())

    def _schedule(self, todo: Mapping[str, Step], *, local: bool) -> Schedule:
        """Runs the steps in this process, or on Ray (``cluster.session``)."""
        done, execution = len(self.plan.steps) - len(todo), self.spec.execution
        cost = {key: count for key, count in flops(todo.values()).items() if count}
        with ProgressDisplay(todo, done, self.console) as display:
            if local:
                from w2s_ray.running.local import run

                workers = max(step.execution.workers for step in todo.values())
                if workers > 1:
                    self.say(f"--local: one process instead of {workers} workers")
                return run(todo, self.store, display, cost)
            from w2s_ray.cluster.session import connect
            from w2s_ray.cluster.tune_run import run as run_on_ray

            with connect() as session:
                self.say(f"Ray dashboard: {session.dashboard_url}")
                return run_on_ray(
                    todo,
                    self.store.uri,
                    study=self.plan.study,
                    max_concurrent_steps=execution.max_concurrent_steps,
                    on_event=display,
                    cost=cost,
                )

    def has_report(self) -> bool:
        """Whether an earlier run left one."""
        return REPORT_PAGE in self.store.listing(report_folder(self.plan.study))

    def _report(self) -> str | None:
        """Writes the report; None, with the reason said, where it cannot be made.

        Everything else of the run is finished and written by now, so no fault here may end it.
        """
        from w2s_ray.report.saved import save_report

        try:
            with self.store.writing_errors():
                return save_report(self.store, self.plan.study)
        except StoreError:
            raise
        except Exception as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            self.say(f"no report: {kind}{error}")
            return None

    def _tables(self) -> "StudyTables":
        """Writes the tables of the study from its store."""
        from w2s_ray.store.study_tables import write_tables

        study, select = self.plan.study, self.plan.select
        cells = [cell.as_json() for cell in self.plan.cells]
        with_trained = self.spec.execution.train_predictions
        with self.store.writing_errors():
            return write_tables(
                self.store,
                study,
                cells,
                select,
                trained_rows=with_trained,
                task=self.plan.task,
            )

    def save_unfinished(self) -> None:
        """Writes the results so far, after an interruption; cells that are not done say so."""
        study, select = self.plan.study, self.plan.select
        cells = [cell.as_json() for cell in self.plan.cells]
        from w2s_ray.store.study_tables import write_results_so_far

        with suppress(InputError), self.store.writing_errors():
            path = write_results_so_far(self.store, study, cells, select, self.plan.task)
            self.say(f"results      {path} (unfinished: the run was interrupted)")

    def conclude(self, *, as_json: bool, with_report: bool) -> int:
        """Writes results, predictions and the report, shows them, and returns the exit code."""
        written = self._tables()
        paths = {**written.paths, "report": self._report() if with_report else None}
        folders = exports(self.plan, self.spec.execution.export_models, self.store)
        remove_leftovers(self.store)
        missing, unscored = _incomplete(written.results), _incomplete(written.transfer)
        if as_json:
            summary = {
                "study": self.plan.study,
                "cells": len(self.plan.cells),
                "cells_with_failures": missing,
                **paths,
                "exports": folders,
            }
            print(json.dumps(summary))
        else:
            self._show(written, paths, folders)
        if missing:
            self.say(
                f"{missing} of {len(self.plan.cells)} cells are incomplete; see the `status` and "
                "`error` columns"
            )
        if unscored:
            self.say(
                f"{unscored} of {written.transfer.num_rows} rows of further test sets are "
                "incomplete; see the `status` and `error` columns of transfer"
            )
        return 1 if missing or unscored else 0

    def _show(
        self, written: "StudyTables", paths: Mapping[str, str | None], folders: Sequence[str]
    ) -> None:
        """Prints tables, and where everything is."""
        if self.plan.task == "generation":
            from w2s_ray.report.text_table import text_tables as shown
        else:
            from w2s_ray.report.table import tables as shown
        from w2s_ray.report.transfer_table import transfer_tables

        for table in (*shown(written.results), *transfer_tables(written.transfer)):
            self.console.print(table)
        for name, path in paths.items():
            if path is not None:
                self.say(f"{'training' if name == 'train_predictions' else name:<12} {path}")
        for folder in folders[:MOST_EXPORTS]:
            self.say(f"export       {folder}")
        if len(folders) > MOST_EXPORTS:
            self.say(f"exports      {len(folders):,} in all; with --json they are listed")


def _incomplete(table: pa.Table) -> int:
    """Rows that are not done, or lack a score."""
    states = zip(table["status"].to_pylist(), table["error"].to_pylist(), strict=True)
    return sum(status != "done" or error is not None for status, error in states)


if __name__ == "__main__":
    command.run(main)
