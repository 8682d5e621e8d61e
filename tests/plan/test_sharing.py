"""What cells share is counted and run once; what a record says of how a step was run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.plan.build import build
from w2s_ray.plan.cost import TOKENS_PER_ROW, estimate, flops, tokens_per_row
from w2s_ray.plan.graph import Plan
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.spec.loading import load

WriteSpec = Callable[..., Path]

AXES: dict[str, list[Any]] = {
    "pair": [["small", "large"], ["large", "large"]],
    "loss": ["forward_kl", "reverse_kl"],
    "noise_ratio": [0.25],
    "trainable": ["last_layer", "full"],
    "seed": [0, 1],
}


def planned(write_spec: WriteSpec, **changes: Any) -> Plan:
    return build(load(write_spec(**changes)))


@pytest.mark.parametrize("weak", [{}, {"trainable": "last_layer"}])
def test_without_sharing_each_cell_would_need_a_study_of_its_own(
    write_spec: WriteSpec, weak: dict[str, str]
) -> None:
    whole = planned(write_spec, grid=AXES, training__weak=weak)
    alone = [
        planned(
            write_spec,
            grid={
                "pair": [pair],
                "loss": [loss],
                "noise_ratio": [0.25],
                "trainable": [t],
                "seed": [s],
            },
            training__weak=weak,
        )
        for pair in AXES["pair"]
        for loss in AXES["loss"]
        for t in AXES["trainable"]
        for s in AXES["seed"]
    ]
    assert whole.naive_steps() == sum(len(plan.steps) for plan in alone)
    assert set(whole.steps) == {key for plan in alone for key in plan.steps}
    assert len(whole.steps) < whole.naive_steps()


def test_features_are_made_again_only_for_what_is_not_finished(write_spec: WriteSpec) -> None:
    plan = planned(write_spec)
    features = {step.key for step in plan if step.kind.name == "features"}
    assert plan.todo(set(plan.steps) - features) == {}
    student = next(step for step in plan if step.kind.name == "student")
    needed = {student.key, student.inputs["features"]}
    assert set(plan.todo(set(plan.steps) - features - {student.key})) == needed
    assert list(plan.todo(())) == list(plan.steps)


def test_a_record_says_from_which_model_or_data_a_step_started(write_spec: WriteSpec) -> None:
    plan = planned(write_spec)
    for step in plan:
        described = step.described_execution()
        json.dumps(described)
        if step.kind.name == "evaluate":
            assert described == {}
        elif step.kind.name == "prepare":
            assert (
                described.keys() == {"data"} and described["data"]["source"] == "generate:agreement"
            )
        else:
            assert described["model"]["architecture"] == "llama"
            assert described["workers"] == 1


def test_scoring_the_test_rows_is_part_of_the_cost(write_spec: WriteSpec) -> None:
    """2 N operations more for each token of a test row more."""
    data = {"kind": "preference", "source": "generate:agreement"}
    costs = []
    for count in (32, 132):
        sizes = {"ground_truth": 48, "weak": 40, "test": count}
        plan = planned(
            write_spec, data={"pairs": {**data, "sizes": sizes}}, grid__trainable=["full"]
        )
        each = flops(plan)
        costs.append({step.kind.name: each[step.key] or 0.0 for step in plan})
    for kind in ("weak", "ceiling", "student"):
        forward = (costs[1][kind] - costs[0][kind]) / (100 * TOKENS_PER_ROW["generated"])
        assert 2 * 1e3 < forward < 2 * 1e5  # a tiny model
        steps_of_training = 6 * forward / 2 * TOKENS_PER_ROW["generated"] * 48
        if kind != "student":
            scored = 32 + (40 if kind == "ceiling" else 0)  # test rows, and the students' rows
            assert costs[0][kind] == pytest.approx(steps_of_training + scored * 16 * forward)
    assert costs[0]["label"] == costs[1]["label"] > 0


def test_a_model_of_unknown_shape_is_counted_apart(write_spec: WriteSpec) -> None:
    models = {"small": {"source": "hf:nobody/one"}, "large": {"source": "hf:nobody/two"}}
    plan = planned(write_spec, models=models, grid__trainable=["full"], grid__noise_ratio=[0.0])
    each = flops(plan)
    unknown = [step.kind.name for step in plan if each[step.key] is None]
    assert sorted(unknown) == ["ceiling", "label", "student", "student", "weak"]
    assert estimate(plan) == (0.0, 5)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"kind": "preference", "source": "generate:agreement"}, "generated"),
        ({"kind": "preference", "source": "hf:a/b"}, "preference"),
        ({"kind": "classification", "source": "hf:a/b"}, "classification"),
    ],
)
def test_rows_of_files_are_longer_than_generated_ones(data: dict[str, str], name: str) -> None:
    sizes = {"ground_truth": 1, "weak": 1, "test": 1}
    assert tokens_per_row(DataSpec.model_validate({**data, "sizes": sizes})) == TOKENS_PER_ROW[name]
