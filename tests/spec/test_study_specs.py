"""Every file in study_specs/ is a spec, and loading one needs no heavy library."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from w2s_ray.spec.expansion import expand
from w2s_ray.spec.loading import load
from w2s_ray.spec.schema import Spec
from w2s_ray.spec.text_points import text_points

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "study_specs").glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_a_study_spec_loads_with_the_cells_in_the_readme(path: Path) -> None:
    if "/shared/" in path.read_text() and not (ROOT.parent / "shared").is_dir():
        pytest.skip("its data files are not here")
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
