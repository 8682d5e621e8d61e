"""``--smoke`` cuts a spec down, and leaves every kind of step of it."""

from pathlib import Path
from typing import Any

import pytest

from tests.testing.specs import REPOSITORY
from tests.testing.text_studies import text_spec
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import Spec
from w2s_ray.spec.smoke import ROWS, smoke_of
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

GOLDEN = REPOSITORY / "tests/golden"


def of_steps(plan: Plan) -> set[tuple[str, Any, Any]]:
    """Kinds, each with the models and data sets that its steps have."""
    return {(step.kind.name, step.model, step.data and step.data.source) for step in plan}


@pytest.mark.parametrize("name", ["every_axis", "every_treatment", "further_tests"])
def test_every_kind_of_step_remains_and_no_step_of_the_study_is_touched(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    spec = load(path)
    smoke = smoke_of(spec)
    small = load(path, smoke.overrides)
    whole, cut = build(spec), build(small)
    assert of_steps(cut) == of_steps(whole) and whole.steps.keys().isdisjoint(cut.steps)
    assert len(cut.cells) < len(whole.cells) and cut.study == f"{whole.study}-smoke"
    assert isinstance(small, Spec) and small.models == spec.models
    assert len({cell.values["seed"] for cell in cut.cells}) == 1
    assert {n for data in small.data.values() for n in data.sizes.model_dump().values()} == {ROWS}
    axes = ("loss", "trainable", "combine", "relabel", "label_filter", "control")
    for axis in axes:
        shown = [{cell.values[axis] for cell in plan.cells} for plan in (whole, cut)]
        assert shown[0] == shown[1], axis


def test_of_generated_text_every_method_remains(tmp_path: Path) -> None:
    path = text_spec(tmp_path, grid={"pair": [["weak", "strong"]], "seed": [0, 1, 2]})
    spec = load(path)
    whole, cut = build(spec), build(load(path, smoke_of(spec).overrides))
    assert cut.count().keys() == whole.count().keys() and len(whole.cells) == 3 * len(cut.cells)


def test_it_runs_beside_the_study_whose_results_stay(
    finished: Path, tmp_path: Path, capsys: Any
) -> None:
    store = tmp_path / "store"
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert main([str(finished), "--local", "--smoke"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("smoke        2 of 4 cells, at most 32 rows of a split, 1 epoch")
    assert said[0].endswith("all of it is study tiny-smoke")
    assert (store / "results/tiny-smoke.parquet").exists()
    assert Store.open(store).failures() == {}
