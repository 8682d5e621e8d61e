"""Axes without effect: one computation, and as many cells as the grid has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.plan.configs import LabelConfig, LabelTreatment, StudentConfig, StudentObjective
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.loading import load

WriteSpec = Callable[..., Path]
SMALL: dict[str, Any] = {"precision": "fp32", "max_length_tokens": 128, "batch_size": 8}
GRID: dict[str, Any] = {"pair": [["small", "large"]], "trainable": ["last_layer"]}


def planned(write_spec: WriteSpec, grid: dict[str, Any], **changes: Any) -> Plan:
    return build(load(write_spec(grid={**GRID, **grid}, **changes)))


def students(plan: Plan) -> list[str]:
    """The student's key of each cell, in the order of the grid."""
    return [cell.keys["student"] for cell in plan.cells]


@pytest.mark.parametrize(
    ("switch", "off", "on", "axis", "values"),
    [
        ("confidence_weight", 0.0, 0.5, "confidence_warmup", [0.2, 0.1, 0.0]),
        ("confidence_weight", 0.0, 0.5, "confidence_form", ["target", "sum"]),
        ("noise_ratio", 0.0, 0.25, "noise_strength", [-1.0, 0.0, 0.5]),
    ],
)
def test_an_axis_that_is_switched_off_makes_cells_but_no_students(
    write_spec: WriteSpec, switch: str, off: float, on: float, axis: str, values: list[Any]
) -> None:
    plan = planned(write_spec, {switch: [off, on], axis: values})
    keys = students(plan)
    assert len(keys) == 2 * len(values)
    assert len(set(keys[: len(values)])) == 1, "switched off"
    assert len(set(keys[len(values) :])) == len(values), "switched on"
    assert plan.count()["student"] == 1 + len(values)
    assert plan.cells_sharing_students() == len(values) - 1
    assert [cell.values[axis] for cell in plan.cells] == 2 * values, "as written"
    # The key is that of a spec that does not name the axis, wherever the axis begins.
    (alone,) = students(planned(write_spec, {switch: [off]}))
    assert keys[0] == alone
    assert set(students(planned(write_spec, {switch: [off], axis: values[::-1]}))) == {alone}
    assert set(students(planned(write_spec, {switch: [off], axis: values[-1:]}))) == {alone}


def test_a_label_temperature_needs_no_new_labels_and_one_is_none(write_spec: WriteSpec) -> None:
    plain, axis = planned(write_spec, {}), [1.0, 0.5, 0.0]
    plan = planned(write_spec, {"label_temperature": axis})
    (alone,), keys = students(plain), students(plan)
    assert keys[0] == alone and len(set(keys)) == 3
    assert [cell.values["label_temperature"] for cell in plan.cells] == axis
    more = {kind: n - plain.count()[kind] for kind, n in plan.count().items()}
    assert {kind: n for kind, n in more.items() if n} == {"student": 2, "evaluate": 2}
    slugs = [plan.steps[key].slug for key in keys]
    assert [slug.replace(slugs[0].partition("-last_layer")[0], "") for slug in slugs][1:] == [
        "-t0.5-last_layer-s0",
        "-t0-last_layer-s0",
    ]


def test_a_filter_that_keeps_all_is_none_whatever_it_goes_by(write_spec: WriteSpec) -> None:
    by = ["confidence", "margin_to_prior", "probe", "knn"]
    axis = [None, *({"keep": 1, "by": name} for name in by), {"keep": 0.5, "by": "knn"}]
    (alone,) = students(planned(write_spec, {}))
    plan = planned(write_spec, {"label_filter": axis})
    assert students(plan)[:-1] == [alone] * 5 != students(plan)[-1:] * 5
    values = [(cell.values["label_filter"], cell.values["label_keep"]) for cell in plan.cells]
    assert values == [("none", 1.0), *((name, 1.0) for name in by), ("knn", 0.5)]
    slug = plan.steps[students(plan)[-1]].slug
    assert slug.endswith("-knn0.5-last_layer-s0")
    assert students(planned(write_spec, {"label_filter": "none"})) == [alone]


def test_filters_relabelling_and_weights_need_no_new_labels(write_spec: WriteSpec) -> None:
    axes = {"relabel": ["none", "knn"], "example_weight": ["none", "confidence"]}
    for trainable, features in {"last_layer": 0, "full": 1}.items():
        plain, plan = (
            planned(write_spec, {**grid, "trainable": [trainable]}) for grid in ({}, axes)
        )
        more = {kind: n - plain.count().get(kind, 0) for kind, n in plan.count().items()}
        assert {kind: n for kind, n in more.items() if n} == {
            "student": 3, "evaluate": 3, **({"features": 1} if features else {}),
        }  # fmt: skip
        assert plain.steps.keys() < plan.steps.keys()


def test_controls_learn_labels_without_filters(write_spec: WriteSpec) -> None:
    grid = {"label_filter": {"keep": 0.5, "by": "knn"}, "relabel": ["probe"]}
    plan = planned(write_spec, grid, controls=["shuffled_labels"])
    (control,) = (cell for cell in plan.cells if cell.values["control"])
    assert (control.values["label_filter"], control.values["label_keep"]) == ("none", 1.0)
    config = plan.steps[control.keys["student"]].config_as(StudentConfig)
    assert config.labels == LabelTreatment(shuffled=True)


def test_calibration_moves_the_weak_model_and_what_learns_from_it(write_spec: WriteSpec) -> None:
    training = {"precision": "fp32", "max_length_tokens": 128, "batch_size": 8}
    plain = planned(write_spec, {}, training=training)
    none = {**training, "weak": {"calibrate": "none"}}
    assert planned(write_spec, {}, training=none).steps.keys() == plain.steps.keys()
    calibrated = {**training, "weak": {"calibrate": "temperature"}}
    plan = planned(write_spec, {}, training=calibrated)
    kept = {plan.steps[key].kind.name for key in plan.steps.keys() & plain.steps.keys()}
    assert kept - {"evaluate"} == {"prepare", "features", "ceiling"}


def test_every_link_of_a_chain_treats_its_labels_and_only_weak_models_are_calibrated(
    write_spec: WriteSpec,
) -> None:
    grid = {"chain": [["small", "large", "small"]], "relabel": ["probe"], "trainable": ["full"]}
    training = {"precision": "fp32", "max_length_tokens": 128, "weak": {"calibrate": "temperature"}}
    plan = build(load(write_spec(grid=grid, training=training)))
    assert {key for cell in plan.cells for key in cell.keys.values()} == plan.steps.keys()
    of_kind = {kind: [s for s in plan if s.kind.name == kind] for kind in ("student", "label")}
    read = [plan.steps[step.inputs["label_features"]] for step in of_kind["student"]]
    models = [step.model for step in of_kind["student"]]
    assert [features.model for features in read] == models and len(set(map(repr, models))) == 2
    for label in of_kind["label"]:
        by = plan.steps[label.inputs["weak"]].kind.name
        assert label.config == LabelConfig("temperature" if by == "weak" else "none")
        assert "label_features" not in label.inputs


def test_seeds_of_weak_models_are_crossed_with_those_of_students(write_spec: WriteSpec) -> None:
    grid = {"weak_seed": [0, 1, 2], "seed": [0, 1]}
    plan = planned(write_spec, grid)
    assert {kind: plan.count()[kind] for kind in ("weak", "ceiling", "student")} == {
        "weak": 3, "ceiling": 2, "student": 6,
    }  # fmt: skip
    # Null is the cell's own seed, or that of the spec.
    own = planned(write_spec, {"seed": [0, 1]})
    assert [cell.values["weak_seed"] for cell in own.cells] == [0, 1]
    assert set(students(own)) < set(students(plan))
    fixed = planned(write_spec, {"seed": [0, 1]}, training={**SMALL, "weak_seed": 2})
    assert [cell.values["weak_seed"] for cell in fixed.cells] == [2, 2]
    assert set(students(fixed)) == set(students(planned(write_spec, {**grid, "weak_seed": [2]})))


def test_fewer_rows_are_another_student_with_the_same_ceiling(write_spec: WriteSpec) -> None:
    plan, plain = planned(write_spec, {"train_rows": [None, 10, 20]}), planned(write_spec, {})
    assert students(plan)[:1] == students(plain) and len(set(students(plan))) == 3
    assert [cell.values["train_rows"] for cell in plan.cells] == [None, 10, 20]
    more = {kind: n - plain.count()[kind] for kind, n in plan.count().items()}
    assert {kind: n for kind, n in more.items() if n} == {"student": 2, "evaluate": 2}


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("learning_rate", [1e-3, 1e-2]),
        ("weight_decay", [0.0, 0.1]),
        ("epochs", [1, 2]),
        ("batch_size", [8, 16]),
    ],
)
def test_an_exact_solver_has_neither_rates_nor_batches(
    write_spec: WriteSpec, solver: str, axis: str, values: list[Any]
) -> None:
    training = {"precision": "fp32", "max_length_tokens": 128, "batch_size": 8, "solver": solver}
    plan = planned(write_spec, {axis: values}, training=training)
    without = planned(write_spec, {}, training=training)
    assert set(students(plan)) == set(students(without))
    assert plan.steps.keys() == without.steps.keys(), "one ceiling too"
    assert [cell.values[axis] for cell in plan.cells] == values
    by_batches = planned(write_spec, {axis: values}, training={**training, "solver": "sgd"})
    assert len(set(students(by_batches))) == 2


def test_what_is_shared_is_computed_without_what_has_no_effect(write_spec: WriteSpec) -> None:
    plan = planned(write_spec, {"confidence_warmup": [0.5], "noise_strength": [0.5]})
    (cell,) = plan.cells
    config = plan.steps[cell.keys["student"]].config_as(StudentConfig)
    assert (config.objective.confidence_warmup, config.noise.strength) == (0.2, -1.0)
    assert (cell.values["confidence_warmup"], cell.values["noise_strength"]) == (0.5, 0.5)


def test_what_chooses_is_in_no_key_of_a_model(write_spec: WriteSpec) -> None:
    changes: dict[str, Any] = {
        "grid__learning_rate": [1e-3, 1e-2],
        "validation": {"rows": 8, "labels": "ground_truth"},
        "training__evaluations": 3,
    }
    keys = []
    over_step = {"over": ["learning_rate", "step"], "by": "weak_ce"}
    by_truth = {**over_step, "by": "ground_truth"}
    rates_only = {"over": ["learning_rate"], "by": "own_loss"}
    for select in (None, rates_only, over_step, by_truth):
        plan = build(load(write_spec(**changes, select=select)))
        assert plan.select == select
        keys.append([cell.keys for cell in plan.cells])
    plain, rates, steps, truth = keys
    assert plain == rates
    for before, after in zip(plain, steps, strict=True):
        moved = {role for role in before if before[role] != after[role]}
        assert moved == {"student_evaluate", "ceiling_evaluate", "ceiling_against_weak"}
    for before, after in zip(steps, truth, strict=True):
        assert {role for role in before if before[role] != after[role]} == {"student_evaluate"}


def test_held_out_rows_are_in_the_keys_of_students_and_ceilings_alone(
    write_spec: WriteSpec,
) -> None:
    plain = build(load(write_spec())).cells[0].keys
    cut = build(load(write_spec(validation={"rows": 8}))).cells[0].keys
    assert {role for role in plain if plain[role] != cut[role]} == {
        "student", "ceiling", "student_evaluate", "ceiling_evaluate", "ceiling_against_weak",
    }  # fmt: skip


def test_an_anchor_needs_the_initial_weights_in_one_process(write_spec: WriteSpec) -> None:
    grid = {"anchor": [0.0, 0.5], "trainable": ["full"]}
    plan = planned(write_spec, grid)
    assert len(set(students(plan))) == 2 and plan.count()["ceiling"] == 1
    with pytest.raises(InputError) as error:
        planned(write_spec, grid, execution={"workers": 2, "zero_stage": 1})
    assert str(error.value) == (
        "grid.anchor: given 0.5 with trainable: full of model 'large' on 2 workers with ZeRO 1 and "
        "offload none, expected 0: a group does not keep the initial weights; one worker without "
        "offload does"
    )
    heads = {**grid, "trainable": ["last_layer"]}
    assert planned(write_spec, heads, execution={"workers": 2, "zero_stage": 1}).count()


def test_only_students_whose_case_was_decided_after_mixing_have_other_keys() -> None:
    def objective(**changes: Any) -> dict[str, Any]:
        return StudentObjective("confidence_adaptive_ce", (("c", 0.25),), **changes).as_json()

    assert objective(confidence_weight=0.5)["decided_by"] == "weak label"
    for others in (
        objective(),
        objective(confidence_weight=0.5, confidence_form="sum"),
        StudentObjective("reverse_ce", confidence_weight=0.5).as_json(),
    ):
        assert "decided_by" not in others


def test_a_readout_block_has_features_of_its_own_for_student_and_ceiling(
    write_spec: WriteSpec,
) -> None:
    plan, plain = planned(write_spec, {"readout_block": [None, 1]}), planned(write_spec, {})
    assert students(plan)[:1] == students(plain)
    more = {kind: n - plain.count()[kind] for kind, n in plan.count().items()}
    assert {kind: n for kind, n in more.items() if n} == {
        "features": 1, "ceiling": 1, "student": 1, "evaluate": 3,
    }  # fmt: skip
    with pytest.raises(InputError) as error:
        planned(write_spec, {"readout_block": [9]})
    assert str(error.value) == (
        "grid.readout_block: given 9, expected at most 2, the blocks of model 'large'"
    )
