"""Every bad data file and model is one clear line within seconds, in memory that does not grow
with it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.testing.bad_data import bad_data
from tests.testing.bad_models import bad_models

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
CORPORA = {"data": bad_data, "models": bad_models}
SECONDS = 5.0  # of CPU; an expansion takes minutes


@pytest.fixture(scope="module")
def every_outcome(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of each case of both corpora, in order: one process reads them all."""
    folder = tmp_path_factory.mktemp("corpora")
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpora.run_corpora", str(folder)],
        cwd=ROOT,
        env={**os.environ, "W2S_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (outcomes[-1:], done.stderr[-2000:])
    return outcomes


@pytest.fixture(params=CORPORA)
def corpus(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def outcomes(corpus: str, every_outcome: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [case for case in every_outcome if case["corpus"] == corpus]


def test_the_corpus_is_large_and_all_of_it_was_read(
    corpus: str, outcomes: list[dict[str, Any]]
) -> None:
    assert len(outcomes) == len(list(CORPORA[corpus]())) >= 80


def test_each_bad_file_is_refused_with_what_is_wrong(outcomes: list[dict[str, Any]]) -> None:
    wrong = [
        case
        for case in outcomes
        if case["kind"] != "InputError" or case["fragment"] not in case["line"]
    ]
    assert wrong == []


def test_each_refusal_is_one_printable_line(outcomes: list[dict[str, Any]]) -> None:
    assert [case for case in outcomes if not case["line"].isprintable()] == []
    assert [case for case in outcomes if len(case["line"]) > 4_000] == []


def test_no_bad_file_takes_long(outcomes: list[dict[str, Any]]) -> None:
    assert [case for case in outcomes if case["seconds"] > SECONDS] == []
