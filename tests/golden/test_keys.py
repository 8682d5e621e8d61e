"""No key moves unless a version does: the keys of every shipped spec, committed as files.

A key that moves makes every user's finished steps unfindable. When that is meant, raise the version
of the kind and write the files again: ``python -m tests.golden.test_keys --moved``. New steps and
new specs are added without ``--moved`` and without a raised version.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.testing.measured import MEASURED, measured_files
from w2s_ray.plan.absent import ABSENT_MEANS
from w2s_ray.plan.build import build
from w2s_ray.spec.loading import load

ROOT = Path(__file__).parents[2]
SPECS = [
    *sorted((ROOT / "study_specs").glob("*.yaml")),
    *sorted((ROOT / "docs" / "results").glob("*.yaml")),  # on files that may not be here
    *(Path(__file__).with_name(f"{name}.yaml") for name in ("every_axis", "every_treatment")),
    Path(__file__).with_name("further_tests.yaml"),
]
KEYS = Path(__file__).with_name("keys")


def planned(spec: Path) -> list[str]:
    """``<kind>/<slug>-<key>`` of every step, in the order of the plan."""
    return [f"{step.kind}/{step.slug}-{step.key}" for step in build(load(spec))]


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_the_keys_of_a_shipped_spec_have_not_moved(spec: Path) -> None:
    if MEASURED in spec.read_text() and measured_files() is None:
        pytest.skip("its data files are not here")
    committed = (KEYS / f"{spec.stem}.txt").read_text().splitlines()
    assert planned(spec) == committed


def test_every_shipped_spec_has_its_keys_committed() -> None:
    assert {path.stem for path in KEYS.glob("*.txt")} == {spec.stem for spec in SPECS}


def names(values: Any) -> set[str]:
    """The names at every depth."""
    if not isinstance(values, dict):
        return set()
    return set(values) | {name for inner in values.values() for name in names(inner)}


def test_every_field_that_can_be_absent_is_in_a_committed_key() -> None:
    """The form of its value is then held too, and not its name alone."""
    specs = [spec for spec in SPECS if spec.parent == KEYS.parent]
    hashed = set().union(*(names(step.config.as_json()) for s in specs for step in build(load(s))))
    assert set(ABSENT_MEANS) - hashed == {"messages"}  # of chat templates: test_tokenising_keys


def write(spec: Path, *, moved: bool) -> None:
    """Writes the keys again; unless ``moved``, keys that are gone are refused."""
    file, keys = KEYS / f"{spec.stem}.txt", planned(spec)
    gone = set(file.read_text().splitlines()) - set(keys) if file.exists() else set()
    if gone and not moved:
        raise SystemExit(
            f"{spec.name}: {len(gone)} keys are gone, e.g. {min(gone)}; nothing written. Undo the "
            "change, or raise the version of the kind that moved first and say --moved"
        )
    file.write_text("\n".join(keys) + "\n")


if __name__ == "__main__":
    for spec in SPECS:
        write(spec, moved="--moved" in sys.argv)
