"""LoRA students share passes of a backbone exactly where their batches are the same."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2s_ray.plan.build import build
from w2s_ray.plan.step import Fusion, Step
from w2s_ray.spec.loading import load

WriteSpec = Callable[..., Path]


def students(write_spec: WriteSpec, **changes: Any) -> list[Step]:
    given = {"grid__trainable": ["lora"], "execution": {"lora_together": 8}, **changes}
    return [step for step in build(load(write_spec(**given))) if step.kind.name == "student"]


def groups(steps: list[Step]) -> dict[Fusion, int]:
    """How many students have each fusion."""
    found: defaultdict[Fusion, int] = defaultdict(int)
    for step in steps:
        assert step.fusion is not None
        found[step.fusion] += 1
    return dict(found)


def test_students_that_differ_in_what_they_learn_share_passes(write_spec: WriteSpec) -> None:
    """Other losses, labels' noise and rates leave the tokens of every batch as they are."""
    found = groups(students(write_spec, grid__learning_rate=[1e-3, 2e-3]))
    assert list(found.values()) == [2 * 2 * 2]
    assert next(iter(found)).limit == 8


def test_students_of_other_batches_have_passes_of_their_own(write_spec: WriteSpec) -> None:
    pairs = [["small", "large"], ["small", "small"]]
    for axis, values in {
        "seed": [0, 1],
        "epochs": [1, 2],
        "batch_size": [4, 8],
        "train_rows": [10, 20],
        "pair": pairs,
    }.items():
        found = groups(students(write_spec, **{f"grid__{axis}": values}))
        assert list(found.values()) == [4, 4], axis


def test_students_of_another_data_set_have_passes_of_their_own(write_spec: WriteSpec) -> None:
    sizes = {"ground_truth": 48, "weak": 40, "test": 32}
    pairs = {"kind": "preference", "source": "generate:agreement", "sizes": sizes}
    found = groups(
        students(write_spec, data={"a": pairs, "b": {**pairs, "seed": 1}}, grid__data=["a", "b"])
    )
    assert list(found.values()) == [4, 4]


def test_other_weak_labels_for_the_same_rows_share_passes(write_spec: WriteSpec) -> None:
    pairs = [["small", "large"], ["large", "large"]]
    assert list(groups(students(write_spec, grid__pair=pairs)).values()) == [8]


def test_only_students_are_trained_together(write_spec: WriteSpec) -> None:
    given = {"grid__trainable": ["lora"], "execution": {"lora_together": 8}}
    others = [s for s in build(load(write_spec(**given))) if s.kind.name in ("weak", "ceiling")]
    assert others and all(step.fusion is None for step in others)


def test_students_whose_rows_are_not_alike_run_alone(write_spec: WriteSpec) -> None:
    for axis, value in {
        "label_filter": {"keep": 0.5, "by": "confidence"},
        "example_weight": ["confidence"],
    }.items():
        found = students(write_spec, **{f"grid__{axis}": value})
        assert len(found) == 4 and all(step.fusion is None for step in found), axis
    relabelled = students(write_spec, grid__relabel=["none", "probe"])
    assert list(groups(relabelled).values()) == [4, 4]
