"""All about one step or cell: configuration, inputs, record, error, and how to run it alone."""

import json
import shlex
from typing import Any

from w2s_ray.driver.study import Study
from w2s_ray.masking import masked_value
from w2s_ray.plan.graph import Cell
from w2s_ray.plan.lookup import step_or_cell
from w2s_ray.plan.step import Step
from w2s_ray.store.checkpoints import Checkpoints

MOST_CELLS = 3  # that are named


def explain(study: Study, name: str, *, as_json: bool) -> int:
    """Prints what ``--explain`` asks for; returns the exit code.

    Raises:
        InputError: nothing in the study, or more than one thing, has this name.
    """
    found = step_or_cell("--explain", name, study.plan)
    step = study.plan.steps[found.keys["student"]] if isinstance(found, Cell) else found
    explained: dict[str, Any] = masked_value(_explained(study, step))
    if isinstance(found, Cell):
        explained["cell"] = {"values": dict(found.values), "steps": _states(study, found)}
    if as_json:
        print(json.dumps(explained))
    else:
        _show(study, explained)
    return 0


def _explained(study: Study, step: Step) -> dict[str, Any]:
    store, failure = study.store, study.store.failures().get(step.key)
    finished = step.key in store.finished_among([step.key])
    cells = [cell for cell in study.plan.cells if step.key in cell.keys.values()]
    only = "--force" if finished else "--only"
    return {
        "step": f"{step.kind} {study.names[step.key]}",
        "key": step.key,
        "state": _state(study, step.key, {step.key} if finished else set()),
        "folder": store.location(store.finished()[step.key]) if finished else None,
        "cells": len(cells),
        "first_cells": [study.names[cell.keys["student"]] for cell in cells[:MOST_CELLS]],
        "run": shlex.join([*study.command, only, step.key]),
        "configuration": step.config.as_json(),
        "execution": step.described_execution(),
        "inputs": _inputs(study, step),
        "record": store.record(step.key) if finished else None,
        "failure": failure,
    }


def _inputs(study: Study, step: Step) -> dict[str, str]:
    finished = study.store.finished_among(step.inputs.values())
    return {role: _named(study, key, finished) for role, key in step.inputs.items()}


def _states(study: Study, cell: Cell) -> dict[str, str]:
    finished = study.store.finished_among(cell.keys.values())
    return {role: _named(study, key, finished) for role, key in cell.keys.items()}


def _named(study: Study, key: str, finished: set[str]) -> str:
    step = study.plan.steps[key]
    return f"{key} {step.kind} {study.names[key]}: {_state(study, key, finished)}"


def _state(study: Study, key: str, finished: set[str]) -> str:
    if key in finished:
        return "done"
    if holder := study.store.holder(study.plan.steps[key].claim):
        return f"running (process {holder.pid} on {holder.host})"
    if key in study.store.failures():
        return "failed"
    reached = Checkpoints(study.store, key).latest()
    return "not done" + (f", a checkpoint of update {reached.update:,}" if reached else "")


def _show(study: Study, explained: dict[str, Any]) -> None:
    """Prints an explanation for people, the error last."""
    for title in ("step", "key", "state", "folder", "run"):
        if explained[title] is not None:
            study.say(f"{title:<10} {explained[title]}")
    cells, first = explained["cells"], ", ".join(explained["first_cells"])
    more = f", … ({cells:,} in all)" if cells > MOST_CELLS else ""
    study.say(f"{'cells':<10} {first or 'none reads it directly'}{more}")
    for title in ("cell", "configuration", "execution", "inputs", "record"):
        if explained.get(title):
            study.say("")
            study.say(title)
            for line in json.dumps(explained[title], indent=2, ensure_ascii=False).splitlines():
                study.say(f"  {line}")
    if failure := explained["failure"]:
        study.say("")
        study.say(f"failed at {failure['time']}: {failure['error']}", style="red")
        for line in failure["traceback"].splitlines():
            study.say(f"  {line}")
