"""Ensembles and chains in the plan: what is shared, what stands beside it, what is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.testing.specs import TINY_MODEL, tiny_config
from w2s_ray.errors import InputError
from w2s_ray.plan.build import build
from w2s_ray.plan.configs import StudentConfig
from w2s_ray.plan.graph import Cell, Plan
from w2s_ray.spec.loading import load

WriteSpec = Callable[..., Path]
MODELS = {
    name: {**TINY_MODEL, "config": tiny_config(16), "init_seed": seed}
    for seed, name in enumerate("abcd")
}
ONE = {"loss": ["forward_kl"], "noise_ratio": [0.25], "trainable": ["last_layer"], "seed": [0]}


def planned(write_spec: WriteSpec, models: Any = MODELS, **grid: Any) -> Plan:
    return build(load(write_spec(models=models, grid={**ONE, **grid})))


def cell_of(plan: Plan, **values: Any) -> Cell:
    (cell,) = [cell for cell in plan.cells if values.items() <= cell.values.items()]
    return cell


def student(plan: Plan, cell: Cell) -> StudentConfig:
    return plan.steps[cell.keys["student"]].config_as(StudentConfig)


def test_an_ensemble_of_one_is_that_model(write_spec: WriteSpec) -> None:
    alone = planned(write_spec, pair=[["a", "d"]])
    for combine in ("mean", "product", "learned"):
        ensemble = planned(write_spec, pair=[[["a"], "d"]], combine=combine)
        assert list(ensemble.steps) == list(alone.steps)


def test_the_order_and_the_names_of_an_ensembles_models_change_no_key(
    write_spec: WriteSpec,
) -> None:
    plan = planned(write_spec, pair=[[["a", "b", "c"], "d"]])
    (cell,) = plan.cells
    assert (cell.values["weak"], cell.keys["weak"]) == ("a+b+c", cell.keys["label"])
    assert plan.count() == {
        "prepare": 1, "features": 4, "weak": 3, "label": 3, "ensemble": 1, "ceiling": 1,
        "student": 1, "evaluate": 4,
    }  # fmt: skip
    assert planned(write_spec, pair=[[["c", "a", "b"], "d"]]).steps.keys() == plan.steps.keys()
    renamed = {**MODELS, "z": MODELS["a"]}
    other = planned(write_spec, renamed, pair=[[["z", "b", "c"], "d"]])
    assert other.steps.keys() == plan.steps.keys()
    with pytest.raises(InputError, match=r"the ensemble a\+z, .* stand for one model"):
        planned(write_spec, renamed, pair=[[["z", "a"], "d"]])


def test_rules_of_an_ensemble_share_its_models(write_spec: WriteSpec) -> None:
    pairs = [[["a", "b", "c"], "d"], ["a", "d"]]
    plan = planned(write_spec, pair=pairs, combine=["mean", "product", "learned"])
    assert (len(plan.cells), plan.count()["ensemble"], plan.count()["weak"]) == (6, 3, 3)
    assert plan.count()["student"] == 3 + 1, "no effect with one weak model"


@pytest.mark.parametrize("chain", [["a", "d"], [["b", "a"], "d"]])
def test_a_chain_of_two_is_a_pair(write_spec: WriteSpec, chain: list[Any]) -> None:
    pair = planned(write_spec, pair=[chain])
    as_chain = planned(write_spec, chain=[chain])
    both = planned(write_spec, pair=[chain], chain=[chain])
    assert list(as_chain.steps) == list(both.steps) == list(pair.steps)
    assert as_chain.cells == both.cells == pair.cells


@pytest.mark.parametrize("trainable", ["last_layer", "lora", "full"])
def test_a_chain_has_its_links_and_the_direct_pair_beside_it(
    write_spec: WriteSpec, trainable: str
) -> None:
    plan = planned(write_spec, chain=[["a", "b", "c", "d"]], trainable=[trainable])
    shown = [(c.values["weak"], c.values["strong"], c.values["chain"]) for c in plan.cells]
    assert shown == [("a", "b", ""), ("a", "c", "a>b>c"), ("a", "d", "a>b>c>d"), ("a", "d", "")]
    first, second, last, direct = plan.cells
    pairs = planned(write_spec, pair=[["a", "b"], ["a", "d"]], trainable=[trainable])
    assert (first.keys, direct.keys) == tuple(cell.keys for cell in pairs.cells)
    assert last.keys["weak"] == first.keys["weak"]
    assert last.keys["ceiling"] == direct.keys["ceiling"] != second.keys["ceiling"]
    assert last.keys["link_1"] == first.keys["student"]
    assert last.keys["link_2"] == second.keys["student"]
    labelled_by = [plan.steps[cell.keys["label"]].inputs["weak"] for cell in (first, second, last)]
    assert labelled_by == [first.keys["weak"], first.keys["student"], second.keys["student"]]
    assert (
        plan.steps[second.keys["label"]].inputs.keys()
        == plan.steps[first.keys["label"]].inputs.keys()
    )
    # Noise stands for errors of the weak model, so a student's labels have none.
    assert [student(plan, cell).noise.ratio for cell in plan.cells] == [0.25, 0.0, 0.0, 0.25]
    assert [cell.values["noise_ratio"] for cell in plan.cells] == [0.25] * 4


def test_other_treatments_of_labels_hold_on_each_link(write_spec: WriteSpec) -> None:
    plan = planned(write_spec, chain=[["a", "b", "c"]], label_temperature=[0.5], loss="reverse_ce")
    configs = [student(plan, cell) for cell in plan.cells]
    assert {config.labels.temperature for config in configs} == {0.5}
    assert {config.objective.loss for config in configs} == {"reverse_ce"}


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_who_labels_keeps_its_weights_and_no_key_says_so(
    write_spec: WriteSpec, trainable: str
) -> None:
    plan = planned(write_spec, chain=[["a", "b", "c"]], trainable=[trainable])
    keeps = {
        cell.values["chain"] or cell.values["strong"]: "student"
        in plan.steps[cell.keys["student"]].execution.keep_models
        for cell in plan.cells
    }
    assert keeps == {"b": True, "a>b>c": False, "c": False}
    alone = planned(write_spec, pair=[["a", "b"]], trainable=[trainable])
    assert cell_of(alone, strong="b").keys == cell_of(plan, strong="b").keys


def test_self_training_is_a_chain_whose_models_repeat(write_spec: WriteSpec) -> None:
    plan = planned(write_spec, chain=[["a", "d", "d", "d"]])
    assert [cell.values["chain"] for cell in plan.cells] == ["", "a>d>d", "a>d>d>d"]
    assert plan.count() == {
        "prepare": 1, "features": 2, "weak": 1, "label": 3, "ceiling": 1, "student": 3,
        "evaluate": 6,
    }  # fmt: skip


def test_chains_that_begin_alike_share_their_links_and_no_cell_is_there_twice(
    write_spec: WriteSpec,
) -> None:
    chains = [["a", "b", "c"], ["a", "b", "d"]]
    include = [{"chain": [chains[1]], "seed": 1}]
    plan = planned(write_spec, pair=[["a", "c"]], chain=chains, include=include)
    shown = [(c.values["chain"] or c.values["strong"], c.values["seed"]) for c in plan.cells]
    assert shown == [
        ("c", 0), ("b", 0), ("a>b>c", 0), ("a>b>d", 0), ("d", 0),
        ("b", 1), ("a>b>d", 1), ("d", 1),
    ]  # fmt: skip
    assert plan.count()["student"] == len(plan.cells)


def test_what_a_chain_brings_can_be_left_out_and_is_still_computed(write_spec: WriteSpec) -> None:
    plan = planned(
        write_spec, chain=[["a", "b", "c"]], exclude=[{"pair": [["a", "b"], ["a", "c"]]}]
    )
    (cell,) = plan.cells
    assert (cell.values["chain"], plan.count()["student"]) == ("a>b>c", 2)


def test_a_chain_may_begin_with_an_ensemble(write_spec: WriteSpec) -> None:
    plan = planned(write_spec, chain=[[["b", "a"], "c", "d"]])
    assert [cell.values["chain"] for cell in plan.cells] == ["", "a+b>c>d", ""]
    assert len({cell.keys["weak"] for cell in plan.cells}) == 1
