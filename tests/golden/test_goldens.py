"""The rule for golden values: numbers may move with a raised version only; names may be added."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.golden.goldens import Golden, Moved, check, differences, write

NUMBERS = {"rows": ["a", "b"], "count": 3, "loss": [0.5, 0.25]}


def golden(
    version: int = 1,
    numbers: dict[str, Any] | None = None,
    enough: Callable[[Iterable[bool]], bool] = any,
    **others: int,
) -> Golden:
    return Golden("student", {"student": version, **others}, {**NUMBERS, **(numbers or {})}, enough)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    assert write(golden(), tmp_path)
    return tmp_path


MOVED = [{"rows": ["b", "a"]}, {"count": 4}, {"loss": [0.5, 0.25001]}, {"loss": [0.5]}]


@pytest.mark.parametrize("moved", MOVED, ids=str)
def test_numbers_that_move_under_one_version_fail_and_say_what_to_do(
    files: Path, moved: dict[str, Any]
) -> None:
    with pytest.raises(Moved, match="raise the version of kind student or undo"):
        check(golden(numbers=moved), files)


@pytest.mark.parametrize("moved", MOVED, ids=str)
def test_the_file_is_not_written_again_under_one_version(
    files: Path, moved: dict[str, Any]
) -> None:
    before = (files / "student.json").read_bytes()
    with pytest.raises(Moved, match="raise the version of kind student or undo"):
        write(golden(numbers=moved), files)
    assert (files / "student.json").read_bytes() == before


@pytest.mark.parametrize("version", [0, 1])
def test_a_version_that_is_not_higher_is_no_reason(files: Path, version: int) -> None:
    with pytest.raises(Moved):
        write(golden(version, {"count": 4}), files)


def test_a_raised_version_fails_until_the_file_is_written_again(files: Path) -> None:
    raised = golden(2, {"count": 4})
    with pytest.raises(AssertionError, match="write the golden files again"):
        check(raised, files)
    assert write(raised, files)
    check(raised, files)
    assert json.loads((files / "student.json").read_text())["numbers"]["count"] == 4


def test_a_step_may_move_with_any_kind_it_is_computed_from(files: Path) -> None:
    write(golden(prepare=1), files / "steps")
    with pytest.raises(
        Moved, match=r"version of kind student or undo\n.*student, prepare: the first"
    ):
        write(golden(prepare=1, numbers={"count": 4}), files / "steps")
    assert write(golden(prepare=2, numbers={"count": 4}), files / "steps")


def test_a_function_moves_only_with_all_kinds_that_compute_with_it(files: Path) -> None:
    write(golden(ceiling=1, enough=all), files / "functions")
    moved: dict[str, Any] = {"numbers": {"count": 4}, "enough": all}
    with pytest.raises(Moved, match="version of kind ceiling or undo"):
        write(golden(2, ceiling=1, **moved), files / "functions")
    assert write(golden(2, ceiling=2, **moved), files / "functions")


def test_the_rounding_of_another_cpu_is_no_move(files: Path) -> None:
    before = (files / "student.json").read_bytes()
    other = golden(numbers={"loss": [0.500002, 0.2499991]})
    check(other, files)
    assert not write(other, files)
    assert (files / "student.json").read_bytes() == before


def test_a_new_name_moves_nothing_and_is_added_under_the_same_version(tmp_path: Path) -> None:
    losses = {"forward": [0.5, 0.25], "reverse": {"value": 1.0}}
    write(golden(numbers={"loss": losses}), tmp_path)
    reverse = {"gradient": 3.0, "value": 1.000002}  # the value as another CPU rounds it
    added = golden(numbers={"loss": {"alpha": 2.0, **losses, "reverse": reverse}})
    check(added, tmp_path)
    assert write(added, tmp_path)
    numbers = json.loads((tmp_path / "student.json").read_text())["numbers"]
    assert list(numbers["loss"]) == ["alpha", "forward", "reverse"]
    assert numbers["loss"]["alpha"] == 2.0
    assert numbers["loss"]["reverse"] == {"gradient": 3.0, "value": 1.0}, "committed values stay"
    assert not write(added, tmp_path)
    with pytest.raises(Moved, match=r"loss\.alpha: 2\.0 → 2\.5"):
        check(golden(numbers={"loss": {**numbers["loss"], "alpha": 2.5}}), tmp_path)


def test_a_new_name_does_not_hide_a_number_that_moved(files: Path) -> None:
    moved = golden(numbers={"new": 1, "count": 4})
    for refusing in (check, write):
        with pytest.raises(Moved, match="count: 3 → 4"):
            refusing(moved, files)


def test_a_committed_name_that_is_gone_has_moved(files: Path) -> None:
    fewer = {name: value for name, value in NUMBERS.items() if name != "count"}
    for refusing in (check, write):
        with pytest.raises(Moved, match="count: 3 → gone"):
            refusing(Golden("student", {"student": 1}, fewer), files)


def test_a_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"student\.json is missing"):
        check(golden(), tmp_path)


def test_a_difference_names_its_place_and_both_values() -> None:
    before, now = {"a": {"b": [1, 2]}, "c": 1.0}, {"a": {"b": [1, 3]}, "c": 1}
    assert differences(before, now) == ["a.b[1]: 2 → 3", "c: 1.0 → 1"]
