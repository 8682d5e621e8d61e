"""Every bad model is one clear line within seconds, in memory that does not grow with it."""

from typing import Any

import pytest

from tests.testing.bad_models import bad_models

pytestmark = pytest.mark.long

MEMORY = 9_000_000_000  # of address space, most of it that of the libraries
SECONDS = 5.0  # of CPU; an expansion takes minutes


@pytest.fixture(scope="module")
def outcomes(run_corpus: Any) -> list[dict[str, Any]]:
    """What came of each case, in order."""
    result: list[dict[str, Any]] = run_corpus("run_bad_models", MEMORY)
    return result


def test_the_corpus_is_large_and_all_of_it_was_read(outcomes: list[dict[str, Any]]) -> None:
    assert len(outcomes) == len(list(bad_models())) >= 80


def test_each_bad_model_is_refused_with_what_is_wrong(outcomes: list[dict[str, Any]]) -> None:
    wrong = [
        case
        for case in outcomes
        if case["kind"] != "InputError" or case["fragment"] not in case["line"]
    ]
    assert wrong == []


def test_each_refusal_is_one_printable_line(outcomes: list[dict[str, Any]]) -> None:
    assert [case for case in outcomes if not case["line"].isprintable()] == []
    assert [case for case in outcomes if len(case["line"]) > 4_000] == []


def test_no_bad_model_takes_long(outcomes: list[dict[str, Any]]) -> None:
    assert [case for case in outcomes if case["seconds"] > SECONDS] == []
