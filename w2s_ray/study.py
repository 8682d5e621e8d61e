"""The command: ``python -m w2s_ray.study SPEC``, or ``w2s SPEC``.

Runs the unfinished steps of a study and writes its results; run it again to resume. Options:
``driver.options``; exit codes: ``ending.codes``.
"""

from w2s_ray.ending import command, signals

if __name__ == "__main__":
    command.start()  # before the imports below, which take a second

import argparse
import json
from collections.abc import Sequence
from functools import partial

from w2s_ray.cluster.environment import WAITING, set_defaults
from w2s_ray.console.lines import Lines
from w2s_ray.console.plan_view import describe, show
from w2s_ray.console.terminal import open_console
from w2s_ray.driver.concluding import conclude, has_report, save_unfinished
from w2s_ray.driver.executing import execute
from w2s_ray.driver.explaining import explain
from w2s_ray.driver.options import command_of, parser
from w2s_ray.driver.preparing import prepared
from w2s_ray.driver.spec_file import SpecFile
from w2s_ray.driver.study import Study
from w2s_ray.driver.watching import watch
from w2s_ray.masking import masked_value
from w2s_ray.plan.build import build
from w2s_ray.plan.lookup import step_named
from w2s_ray.plan.measured_speed import measured_speed
from w2s_ray.plan.reruns import Reruns
from w2s_ray.sinks.feed import Sinks
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError

MOST_REPAIRS = 32  # rounds of one run in which damaged artifacts are made again


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = parser().parse_args(arguments)
    set_defaults(WAITING)
    return command.code_of(partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    reruns = Reruns.of(options)
    study = _opened(options, reruns)
    if options.plan or options.status:
        _describe(study, as_json=options.json)
        return 0
    if options.explain is not None:
        return explain(study, options.explain, as_json=options.json)
    if options.watch:
        return watch(study, as_json=options.json)
    with study.file.located():
        study.sinks.refuse_missing()
    for line in reruns.force(options.force, study.plan, study.store):
        study.say(line)
    with study.sinks:
        for _ in range(MOST_REPAIRS):
            try:
                return _run_once(study, options, may_repeat=True)
            except StoreError as damage:
                study.set_aside(damage)
        return _run_once(study, options, may_repeat=False)


def _opened(options: argparse.Namespace, reruns: Reruns) -> Study:
    """The study that the options name."""
    file = SpecFile.of(options)
    spec = file.spec
    with file.located():
        plan = build(spec)
    say = Lines(open_console(stderr=options.json, display=options.display), options.display)
    store = Store.open(str(spec.store) if options.store is None else options.store)
    sinks = Sinks(spec.execution.sinks, plan, store.uri, say)
    for line in file.lines:
        say(line)
    return Study(file, plan, store, say, reruns, sinks, command_of(options))


def _run_once(study: Study, options: argparse.Namespace, *, may_repeat: bool) -> int:
    """Runs what is unfinished and writes the tables.

    Raises:
        StoreError: an artifact is damaged; once it is set aside, the study can run again.
    """
    with study.file.located():
        todo = prepared(study, local=options.local)
    signals.check()
    try:
        failed = execute(study, todo, local=options.local) if todo else 0
    except KeyboardInterrupt as interrupt:
        # Frames of the run may hold a claim that was being taken; it is given up with them.
        interrupt.__traceback__ = interrupt.__context__ = None
        save_unfinished(study, "the run was interrupted")
        raise
    if failed and may_repeat:
        raise StoreError(f"steps with a damaged input: {failed:,}; they run again")
    if study.reruns.only is not None and study.plan.todo(study.store.finished()):
        return _end_of_one(study, study.reruns.only)
    by_default = not options.no_report and (bool(todo) or not has_report(study))
    wanted = options.report or by_default
    return conclude(study, as_json=options.json, with_report=wanted)


def _end_of_one(study: Study, name: str) -> int:
    """The exit code after ``--only``; the tables are those of the steps so far."""
    step = step_named("--only", name, study.plan)
    save_unfinished(study, "--only ran one step")
    if study.store.has(step.key):
        study.say(f"artifact     {study.store.location(study.store.finished()[step.key])}")
        return 0
    return 1


def _describe(study: Study, *, as_json: bool) -> None:
    """Shows the plan and its state, for ``--plan`` and ``--status``."""
    store = study.store
    finished, failures, held = store.finished(), store.failures(), store.held()
    speed = measured_speed(study.plan, store, finished, study.spec.execution)
    description = describe(study.spec, study.plan, finished, failures, held, speed)
    description["set"] = masked_value(study.file.overridden)
    if as_json:
        print(json.dumps(description))
        return
    show(description, study.say.console)
    study.say_lost_weights(finished)


if __name__ == "__main__":
    command.run(main)
