"""Steps and cells by what a person writes: a key, the beginning of one, a folder, or a name."""

from collections.abc import Iterable

from w2s_ray.errors import InputError
from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.plan.names import cells_named, step_names
from w2s_ray.plan.step import Step
from w2s_ray.spec.messages import nearest

EXPECTED = (
    "a key of this study, a beginning that only one has, kind/slug-key, or the values of one cell "
    "(`reverse_kl seed=2`)"
)
MOST_NAMED = 3


def step_named(option: str, name: str, plan: Plan) -> Step:
    """The step with this name; of a cell's values the student.

    Raises:
        InputError: no step has it, or several have; in one line, which begins with the option.
    """
    found = step_or_cell(option, name, plan)
    return plan.steps[found.keys["student"]] if isinstance(found, Cell) else found


def step_or_cell(option: str, name: str, plan: Plan) -> Step | Cell:
    """The step or cell with this name. Raises as ``step_named``."""
    by_path = {f"{step.kind.name}/{step.slug}-{step.key}": step for step in plan}
    if name in by_path:
        return by_path[name]
    steps = [step for step in plan if name and step.key.startswith(name)]
    if len(steps) == 1:
        return steps[0]
    if steps:
        raise _several(option, name, "begins", (step.key for step in steps), len(steps))
    names = step_names(plan)
    steps = [step for step in plan if name in (names[step.key], f"{step.kind} {names[step.key]}")]
    cells = cells_named(name, plan)
    students = {cell.keys["student"]: cell for cell in cells}
    if len(students) == 1:
        return next(iter(students.values()))
    if not students and len(steps) == 1:
        return steps[0]
    if students:
        each = (names[key] for key in students)
        raise _several(option, name, "fits", each, len(students))
    if steps:
        named = (f"{step.kind} {names[step.key]}" for step in steps)
        raise _several(option, name, "fits", named, len(steps))
    close = nearest(name, [*names.values(), *plan.steps, *by_path])
    raise InputError(f"{option}: given {name!r}, expected {EXPECTED}{close}")


def _several(option: str, name: str, verb: str, which: Iterable[str], count: int) -> InputError:
    first = ", ".join(each for each, _ in zip(which, range(MOST_NAMED), strict=False))
    more = f" and {count - MOST_NAMED:,} more" if count > MOST_NAMED else ""
    return InputError(f"{option}: {name!r} {verb} {first}{more}, expected {EXPECTED}")
