"""The output of ``--plan`` and ``--status``: an object for programs, a table for people."""

from collections import Counter
from collections.abc import Container, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from w2s_ray.capacity.gpu_types import Gpu
from w2s_ray.capacity.layout import figure
from w2s_ray.capacity.machines import machine_limit, planned_gpu
from w2s_ray.capacity.memory import GIB
from w2s_ray.masking import masked_value
from w2s_ray.plan.cost import estimate
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.layout_table import layout_table
from w2s_ray.plan.measured_speed import Speed
from w2s_ray.plan.names import step_names
from w2s_ray.plan.step import Step
from w2s_ray.plan.times import times
from w2s_ray.plan.wall_clock import WallClock, wall_clock
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.schema import Spec

_SHARED = {
    "soft_labels": "with one weak model, where confidence_weight or noise_ratio is 0, or a solver "
    "is exact, other axes have no effect",
    "generation": "best_of_n reads the answers of untrained, and where a model is both weak and "
    "strong it shares its methods",
}
"""Why cells share students, by task."""


def describe(
    spec: Spec | GenerationSpec,
    plan: Plan,
    finished: Container[str],
    failures: Mapping[str, Any],
    held: Container[str],
    speed: Speed | None = None,
) -> dict[str, Any]:
    """The plan as one JSON object, without secrets.

    ``cells``, ``steps`` (kind → count), ``naive_steps`` (if no two cells shared any), ``done``,
    ``todo`` and ``failed`` are counts; ``flops`` is a rough estimate for ``todo`` alone. ``axes``
    holds the values of every axis, ``running`` the steps that a process holds at this moment,
    ``failures`` the errors by key and ``failed_steps`` the names of their steps.
    ``cells_sharing_students`` counts cells whose student another cell has too, since an axis has no
    effect there. ``blocked`` counts the steps that wait for a failed one.
    With a ``gpu_type``, ``placements`` says how each kind of step of each model is run, and
    ``gpu_hours`` how long ``todo`` computes; otherwise they are [] and null. ``start_gpu_hours`` is
    what machines and processes take to start, ``usd`` the price of both where one is known,
    ``wall_hours`` the time until all is done on ``gpus`` GPUs, and ``chain_hours`` that on any
    number. Without a type, ``wall_hours`` is that of one process at the measured ``speed``, of
    ``speed_from_steps`` finished steps (0: of none).
    """
    todo = plan.todo(finished)
    done = [step for step in plan if step.key in finished]
    cost = estimate(todo.values())
    failed = {key: failures[key] for key in todo if key in failures}
    gpu = planned_gpu(spec.execution)
    predicted = {} if gpu is None else times(plan, spec.training.precision, gpu)
    layouts = layout_table(spec, plan, predicted, todo)
    description = {
        "study": plan.study,
        "task": plan.task,
        "cells": len(plan.cells),
        "cells_sharing_students": plan.cells_sharing_students(),
        "axes": _axes(plan),
        "cells_done": sum(cell.keys["student_evaluate"] in finished for cell in plan.cells),
        "steps": plan.count(),
        "naive_steps": plan.naive_steps(),
        "done": len(done),
        "todo": len(todo),
        "done_by_kind": dict(Counter(step.kind.name for step in done)),
        "todo_by_kind": dict(Counter(step.kind.name for step in todo.values())),
        "running": [f"{s.kind} {s.slug}" for s in todo.values() if s.claim in held],
        "failed": len(failed),
        "failures": {key: failure["error"] for key, failure in failed.items()},
        "failed_steps": _named(plan, failed),
        "blocked": _blocked(todo, failed),
        "flops": cost.flops,
        "steps_of_unknown_cost": cost.unknown_steps,
        "placements": [row.as_json() for row in layouts],
        "gpu_type": None,
        "machine": None,
        "gpu_hours": None,
        "start_gpu_hours": None,
        "usd": None,
        "gpus": None,
        "wall_hours": None if speed is None else cost.flops / speed.flops / 3600,
        "chain_hours": None,
        "speed_from_steps": None if speed is None else speed.steps,
    }
    if gpu is not None:
        limit = machine_limit(gpu)
        clock = wall_clock(todo, predicted, spec.training.precision, gpu, limit)
        hours = [row.gpu_hours for row in layouts if row.gpu_hours is not None]
        description |= _hours(gpu, sum(hours), clock)
    masked: dict[str, Any] = masked_value(description)
    return masked


def _named(plan: Plan, keys: Container[str]) -> dict[str, str]:
    """Kind and name of the steps with these keys."""
    if not keys:
        return {}
    names = step_names(plan)
    return {step.key: f"{step.kind} {names[step.key]}" for step in plan if step.key in keys}


def _hours(gpu: Gpu, hours: float, clock: WallClock) -> dict[str, float | str | None]:
    """GPU hours, price and wall clock of the unfinished steps whose time is known."""
    paid, price = hours + clock.start_gpu_hours, gpu.usd_per_hour
    return {
        "gpu_type": gpu.name,
        "machine": gpu.machine,
        "gpu_hours": hours,
        "start_gpu_hours": clock.start_gpu_hours,
        "usd": None if price is None else paid * price,
        "gpus": clock.gpus,
        "wall_hours": clock.hours,
        "chain_hours": clock.chain_hours,
    }


def show(description: Mapping[str, Any], console: Console) -> None:
    """Prints a description for people."""
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
            named = ("none" if value is None else str(value) for value in values[:12])
            shown = ", ".join(named) + (", …" if len(values) > 12 else "")
            console.print(f"{axis}: {shown}", markup=False, highlight=False)
    if description["placements"]:
        _show_placements(description, console)
    unknown = description["steps_of_unknown_cost"]
    console.print(
        f"{description['cells']:,} cells ({description['cells_done']:,} done); without sharing "
        f"they would need {description['naive_steps']:,} steps.\n"
        f"To do: {description['todo']:,} steps, roughly {flops(description['flops'])}"
        + (f" and {unknown:,} steps of unknown cost" if unknown else "")
        + _here(description)
        + ".",
        highlight=False,
    )
    if shared := description["cells_sharing_students"]:
        console.print(
            f"{shared:,} cells have the student of another cell: {_SHARED[description['task']]}.",
            highlight=False,
            soft_wrap=True,
        )
    for step in description["running"]:
        console.print(f"running: {step}", markup=False, highlight=False, soft_wrap=True)
    for key, error in description["failures"].items():
        waiting = description["blocked"].get(key, 0)
        wait = f" ({waiting:,} step{'s wait' if waiting > 1 else ' waits'} for it)" * bool(waiting)
        console.print(
            f"failed: {description['failed_steps'][key]} ({key}): {error}{wait}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _show_placements(description: Mapping[str, Any], console: Console) -> None:
    """Prints the layouts, a line each, and the total of GPU hours."""
    name = description["gpu_type"]
    table = Table(
        title=f"on {name} in {description['machine']}, predicted",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    columns = (
        "model", "steps", "GPUs", "ZeRO", "micro-batch", "GiB each", "s/update", "GPU-h to do"
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    table.add_column("why", overflow="fold")
    for entry in description["placements"]:
        stage = "-" if entry["zero_stage"] is None else str(entry["zero_stage"])
        notes = [entry["why"] or ""]
        if entry["offload"] != "none":
            notes.insert(0, f"{entry['offload']} offloaded")
        if entry["activation_checkpointing"]:
            notes.insert(0, "blocks recomputed")
        memory, hours = entry["predicted_memory_bytes"], entry["gpu_hours"]
        table.add_row(
            entry["model"],
            f"{entry['steps']:,} {entry['kind']}",
            str(entry["workers"]),
            stage,
            f"{entry['micro_batch_tokens']:,}" if entry["micro_batch_tokens"] else "-",
            f"{memory / GIB:.1f}" if memory else "-",
            figure(entry["seconds_an_update"]) if entry["seconds_an_update"] else "-",
            "?" if hours is None else figure(hours),
            "; ".join(note for note in notes if note),
        )
    console.print(table)
    usd, hours = description["usd"], figure(description["gpu_hours"])
    price = "" if usd is None else f", {usd:,.2f} USD"
    if not description["gpus"]:
        console.print(f"To do: about {hours} GPU-hours on {name}.", highlight=False)
        return
    console.print(
        f"To do: about {hours} GPU-hours on {name}, and {figure(description['start_gpu_hours'])} "
        f"to start and download{price}.\n"
        f"With {description['gpus']} GPUs about {duration(description['wall_hours'])}, with any "
        f"number at least {duration(description['chain_hours'])} (the longest chain of steps).",
        highlight=False,
    )


def duration(hours: float) -> str:
    """``40 s``, ``12 min`` or ``3.1 h``: two digits."""
    if hours < 1 / 60:
        return f"{figure(3600 * hours)} s"
    return f"{figure(60 * hours)} min" if hours < 1 else f"{figure(hours)} h"


def _here(description: Mapping[str, Any]) -> str:
    """How long one process takes on this machine, and how that is known."""
    hours, steps = description["wall_hours"], description["speed_from_steps"]
    if steps is None or not hours:
        return ""
    how = f"as {steps:,} finished steps did" if steps else "a guess from its matrix products"
    return f", some {duration(hours)} of one process ({how})"


def _blocked(todo: Mapping[str, Step], failed: Container[str]) -> dict[str, int]:
    """How many steps wait for each failed one, of several for the first."""
    causes: dict[str, str] = {}
    for key, step in todo.items():
        before = (causes[other] for other in step.inputs.values() if other in causes)
        if cause := next(before, key if key in failed else None):
            causes[key] = cause
    return dict(Counter(cause for key, cause in causes.items() if key != cause))


def _axes(plan: Plan) -> dict[str, list[Any]]:
    """The values of every axis, in the order of the cells."""
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
