"""What ``--plan`` and ``--status`` tell, as an object for programs and as a table for people."""

from collections import Counter
from collections.abc import Container, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from w2s_ray.plan.cost import estimate
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.schema import Spec


def describe(
    spec: Spec,
    plan: Plan,
    finished: Container[str],
    failures: Mapping[str, Any],
    claimed: Container[str],
) -> dict[str, Any]:
    """The plan as one JSON object.

    ``cells``, ``steps`` (kind → count), ``naive_steps`` (if no two cells shared any), ``done``,
    ``todo``, ``failed`` are counts of steps; ``flops`` are rough and of ``todo`` alone. ``axes``
    holds the values of every axis, ``running`` the steps that some process holds at the moment.
    """
    todo = plan.todo(finished)
    done = [step for step in plan if step.key in finished]
    cost = estimate(spec, plan, todo.values())
    failed = {key: failures[key] for key in todo if key in failures}
    return {
        "study": plan.study,
        "cells": len(plan.cells),
        "axes": _axes(plan),
        "cells_done": sum(cell.keys["student_evaluate"] in finished for cell in plan.cells),
        "steps": plan.count(),
        "naive_steps": plan.naive_steps(),
        "done": len(done),
        "todo": len(todo),
        "done_by_kind": dict(Counter(step.kind for step in done)),
        "todo_by_kind": dict(Counter(step.kind for step in todo.values())),
        "running": [f"{s.kind} {s.slug}" for key, s in todo.items() if key in claimed],
        "failed": len(failed),
        "failures": {key: failure["error"] for key, failure in failed.items()},
        "flops": cost.flops,
        "steps_of_unknown_cost": cost.unknown_steps,
    }


def show(description: Mapping[str, Any], console: Console) -> None:
    """The same for people."""
    table = Table(title=f"study {description['study']}", title_justify="left")
    for column in ("step", "all", "done", "to do"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for kind, count in description["steps"].items():
        done = description["done_by_kind"].get(kind, 0)
        table.add_row(
            kind, f"{count:,}", f"{done:,}", f"{description['todo_by_kind'].get(kind, 0):,}"
        )
    total = sum(description["steps"].values())
    table.add_section()
    table.add_row("total", f"{total:,}", f"{description['done']:,}", f"{description['todo']:,}")
    console.print(table)
    for axis, values in description["axes"].items():
        if len(values) > 1:
            told = ", ".join(map(str, values[:12])) + (", …" if len(values) > 12 else "")
            console.print(f"{axis}: {told}", markup=False, highlight=False)
    unknown = description["steps_of_unknown_cost"]
    console.print(
        f"{description['cells']:,} cells ({description['cells_done']:,} done); without sharing "
        f"they would need {description['naive_steps']:,} steps.\n"
        f"To do: {description['todo']:,} steps, roughly {flops(description['flops'])}"
        + (f" and {unknown:,} steps of unknown cost" if unknown else "")
        + ".",
        highlight=False,
    )
    for step in description["running"]:
        console.print(f"running: {step}", markup=False, highlight=False, soft_wrap=True)
    for key, error in description["failures"].items():
        console.print(f"failed: {key}: {error}", markup=False, highlight=False, soft_wrap=True)


def _axes(plan: Plan) -> dict[str, list[Any]]:
    """Every value that a field of the cells takes, in the order of the cells."""
    values: dict[str, dict[str, Any]] = {}
    for cell in plan.cells:
        for axis, value in cell.values.items():
            values.setdefault(axis, {}).setdefault(str(value), value)
    return {axis: list(seen.values()) for axis, seen in values.items()}


def flops(count: float) -> str:
    """``3.2 PFLOP``: three digits and a prefix."""
    for prefix in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if count < 1000.0:
            return f"{count:.3g} {prefix}FLOP"
        count /= 1000.0
    return f"{count:.3g} YFLOP"
