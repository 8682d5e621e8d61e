"""Every file in study_specs/ is a spec, and loading one needs no heavy library."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from w2s_ray.errors import InputError
from w2s_ray.spec.expansion import expand
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import Spec
from w2s_ray.spec.text_points import text_points

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "study_specs").glob("*.yaml"))


def test_every_shipped_spec_runs_for_a_stranger() -> None:
    """Its data are generated or on the Hub, and no file is read that is not shipped."""
    for path in SPECS:
        spec = load(path)
        sources = (
            [location for data in spec.data.values() for location in data.locations]
            if isinstance(spec, Spec)
            else list(spec.prompts.source)
        )
        assert all(source.startswith(("generate:", "hf:")) for source in sources), path.name
        assert "${" not in path.read_text(), path.name


def test_a_measured_study_without_its_files_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("W2S_MEASURED", raising=False)
    paths = (ROOT / "docs" / "results").glob("*.yaml")
    measured = [path for path in paths if "${W2S_MEASURED" in path.read_text()]
    assert measured
    for path in measured:
        with pytest.raises(InputError, match="expected the environment variable W2S_MEASURED"):
            load(path)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_a_study_spec_loads_with_the_cells_in_the_readme(path: Path) -> None:
    readme = (ROOT / "study_specs" / "README.md").read_text()
    row = re.search(rf"^\| `{path.name}` .*", readme, re.MULTILINE)
    assert row is not None
    spec = load(path)
    cells = expand(spec) if isinstance(spec, Spec) else text_points(spec)
    assert f" {len(cells)} " in row[0]


def test_loading_is_light() -> None:
    heavy = "{'torch', 'ray', 'transformers', 'pyarrow', 'deepspeed'}"
    load_one = f"load(Path({str(ROOT / 'study_specs' / 'quickstart.yaml')!r}))"
    code = (
        "import sys; from pathlib import Path; from w2s_ray.spec.loading import load; "
        f"{load_one}; print(sorted({heavy} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
