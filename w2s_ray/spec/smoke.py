"""``--smoke``: a spec cut down until it runs in a minute or so, to see whether it runs at all.

The cut is a list of overrides, so the spec that runs is one that a person could have written: the
same models and data sets, few rows and updates, one seed, and as few cells as have every kind of
step. It has a study's name of its own, and other rows, so its keys are others too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from w2s_ray.spec.expansion import CellPoint, expand
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.overrides import Override
from w2s_ray.spec.schema import Spec

SMOKE = "--smoke"
SUFFIX = "-smoke"  # of the study's name
ROWS = 32  # of each split
TEST_ROWS = 16  # of each further test set
LEARNED_ROWS = 8  # where the grid varies their number
LEAST_KEPT = 0.5  # share of rows that a filter keeps: some must remain
LARGEST: Mapping[str, int] = MappingProxyType(
    {
        "validation.rows": 8,
        "training.epochs": 1,
        "training.batch_size": 8,
        "training.evaluations": 3,
        "training.label_neighbours": 8,
        "training.weak.epochs": 1,
        "training.weak.batch_size": 8,
        "prompts.sizes.align": 12,
        "prompts.sizes.train": 4,
        "prompts.sizes.test": 4,
        "prompts.sizes.transfer": 2,
        "pairs.samples": 4,
        "pairs.given.rows": 12,
        "evaluation.samples": 1,
        "align.epochs": 1,
        "align.batch_size": 4,
        "finetune.epochs": 1,
        "finetune.batch_size": 4,
        "prefer.epochs": 1,
        "prefer.batch_size": 4,
        "wspo.epochs": 1,
        "wspo.batch_size": 4,
    }
)
"""Fields of which no more remains. Answers keep their length: pairs are made of those that end."""


class Smoke(NamedTuple):
    """What is cut.

    Attributes:
        line: says it.
    """

    overrides: tuple[Override, ...]
    line: str


def smoke_of(spec: Spec | GenerationSpec) -> Smoke:
    """What is cut of a spec."""
    given = isinstance(spec, GenerationSpec) and spec.pairs.given is not None
    largest = [
        (path, _at(spec, path), most)
        for path, most in LARGEST.items()
        if not (given and path == "pairs.samples")  # which given pairs do without
    ]
    values = {path: most for path, given, most in largest if given is not None and given > most}
    if isinstance(spec, Spec):
        grid, cells = _grid(spec)
        rows = f"at most {ROWS} rows of a split, "
        values |= _sizes(spec)
    else:
        grid = {name: getattr(spec.grid, name) for name in type(spec.grid).model_fields}
        grid |= {name: grid[name][:1] for name in ("alpha", "learning_rate_factor", "seed")}
        cells, rows = "each method once", f"at most {LARGEST['prompts.sizes.align']} prompts, "
    name = spec.study + SUFFIX
    every = {"study": name, "grid": grid, **values}
    line = f"{cells}, {rows}1 epoch, 1 seed; all of it is study {name}"
    return Smoke(tuple(Override(SMOKE, path, _text(of)) for path, of in every.items()), line)


def _at(spec: Spec | GenerationSpec, path: str) -> int | None:
    """The number at a path; None if there is none."""
    value: Any = spec
    for name in path.split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, int) else None


def _sizes(spec: Spec) -> dict[str, Any]:
    """The rows of each split and further test set."""
    sizes: dict[str, Any] = {}
    for name, data in spec.data.items():
        given = data.sizes.model_dump()
        sizes[f"data.{name}.sizes"] = {split: min(n or ROWS, ROWS) for split, n in given.items()}
        for test, of in data.tests.items():
            rows = min(of.rows or TEST_ROWS, TEST_ROWS)
            sizes[f"data.{name}.tests.{test}"] = {
                **of.model_dump(mode="json", exclude_unset=True),
                "rows": rows,
            }
    return sizes


def _grid(spec: Spec) -> tuple[dict[str, Any], str]:
    """A grid of as few cells as have every kind of step, and a text that counts them."""
    cells = expand(spec)
    seed, chosen_over = spec.grid.seed[0], () if spec.select is None else spec.select.cells
    small = dict.fromkeys(_small(cell, seed, chosen_over) for cell in cells)
    values = {
        axis: list(dict.fromkeys(getattr(c, axis) for c in small))[:2] for axis in chosen_over
    }
    covering = cover({cell: _kinds(cell, values) for cell in small})
    first, *others = map(_entry, covering)
    return {**first, "include": others}, f"{len(covering):,} of {len(cells):,} cells"


def _small(cell: CellPoint, seed: int, chosen_over: Sequence[str]) -> CellPoint:
    """The cell with few rows, updates and seeds."""
    epochs = cell.epochs if "epochs" in chosen_over else 1
    return replace(
        cell,
        seed=seed,
        weak_seed=seed,
        epochs=epochs,
        batch_size=min(cell.batch_size, LARGEST["training.batch_size"]),
        train_rows=None if cell.train_rows is None else LEARNED_ROWS,
        label_keep=max(cell.label_keep, LEAST_KEPT),
    )


def _kinds(cell: CellPoint, values: Mapping[str, Sequence[Any]]) -> frozenset[Any]:
    """What a cell shows to run: how a model is trained, names on axes, whether numbers are 0.

    Args:
        values: of axes that are chosen over: those that must all be there.
    """
    shown: set[Any] = {(model, cell.trainable) for model in (*cell.members, cell.strong)}
    for field in fields(CellPoint):
        value = getattr(cell, field.name)
        if field.name in values:
            shown.add((field.name, value if value in values[field.name] else None))
        elif isinstance(value, str):
            shown.add((field.name, value))
        else:
            shown.add((field.name, value is None, bool(value)))
    return frozenset(shown)


def cover(shown: Mapping[CellPoint, frozenset[Any]]) -> list[CellPoint]:
    """Few cells that show together what all of them do: always the one that adds most."""
    missing = frozenset[Any]().union(*shown.values())
    cells: list[CellPoint] = []
    while missing:
        best = max(shown, key=lambda cell: len(shown[cell] & missing))
        cells.append(best)
        missing -= shown[best]
    return cells


def _entry(cell: CellPoint) -> dict[str, Any]:
    """The values of a cell, as an entry of ``include`` has them."""
    values = {field.name: getattr(cell, field.name) for field in fields(CellPoint)}
    weak = list(cell.members) if len(cell.members) > 1 else cell.weak
    who = "chain" if cell.chain else "pair"
    kept = {"keep": cell.label_keep, "by": cell.label_filter}
    for name in ("weak", "strong", "chain", "control", "loss_parameters", "label_keep"):
        del values[name]
    return {
        **values,
        who: [[weak, *cell.students]],
        "loss": {"name": cell.loss, **dict(cell.loss_parameters)},
        "label_filter": None if cell.label_filter == "none" else kept,
    }


def _text(value: Any) -> str:
    """A value as YAML, in one line."""
    plain = _plain(value)
    text: str = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(of) for name, of in value.items()}
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    return [_plain(of) for of in value] if is_list else value
