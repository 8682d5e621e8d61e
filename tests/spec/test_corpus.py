"""A corpus of bad specs: each is one printable line and exit code 2, in little time and memory.

All are read by the command itself (``--plan``), one after the other in one process.
"""

import json
import re
import subprocess
import sys

import pytest

from tests.testing.hostile_specs import HOSTILE
from tests.testing.mistakes import GOOD, MISTAKES_IN_FIELDS
from tests.testing.mistakes_of_form import MISTAKES_OF_FORM
from tests.testing.mistakes_of_selection import MISTAKES_OF_SELECTION

SECONDS = 5.0  # of CPU; an expansion takes minutes
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
ORDINARY = MISTAKES_IN_FIELDS | MISTAKES_OF_FORM | MISTAKES_OF_SELECTION
NAMES = [*(f"ordinary: {name}" for name in ORDINARY), *HOSTILE]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, str, float]]:
    """By the name of each case: exit code, standard error, seconds of CPU."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "specs").mkdir()
    (folder / "big").mkdir()
    for name in ("truth.jsonl", "weak.jsonl"):
        (folder / name).write_text("")
    for number, name in enumerate(NAMES):
        if name in HOSTILE:
            content = HOSTILE[name][0]
        else:
            right, wrong, _ = ORDINARY[name.removeprefix("ordinary: ")]
            content = GOOD.replace(right, wrong, 1)
        raw = content if isinstance(content, bytes) else content.encode("utf-8")
        (folder / "specs" / f"{number:04}.yaml").write_bytes(raw)
    run = subprocess.run(
        [sys.executable, "-m", "tests.testing.corpus", str(folder / "specs")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    outcomes = json.loads(run.stdout)
    return {name: outcomes[f"{number:04}"] for number, name in enumerate(NAMES)}


def test_the_corpus_is_large() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 220


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_spec_is_one_printable_line(
    corpus: dict[str, tuple[object, str, float]], name: str
) -> None:
    code, errors, seconds = corpus[name]
    assert code == 2, errors
    assert errors.count("\n") == 1 and errors.endswith("\n"), errors
    assert not CONTROLS.search(errors) and len(errors) < 5_000
    expected = HOSTILE[name][1] if name in HOSTILE else ".yaml:"
    assert expected in errors
    assert seconds < SECONDS
