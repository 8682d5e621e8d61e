"""A test that starts Ray or a process group without its marker cannot slip into `make check`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.listed import SLOWER_ONES, WITNESSES

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[1]
FIXTURES = """
import pytest

@pytest.fixture(scope="session")
def ray_session():
    pass

@pytest.fixture(scope="session")
def process_groups():
    pass

@pytest.fixture
def through_another(process_groups):
    pass
"""
RAY = "from w2s_ray.cluster.session import connect\nwith connect():\n    pass\n"
GROUP = """
import torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
"""


def pytest_on(path: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Pytest, with this project's settings and hooks, on one module of ``source``."""
    path.write_text(source)
    settings = ["-c", str(REPOSITORY / "pyproject.toml"), "-p", "tests.conftest"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *settings, "-p", "no:cacheprovider", *options, str(path)],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_the_lists_name_is_a_test() -> None:
    for listed in (*WITNESSES, *SLOWER_ONES):
        path, _, name = listed.partition("::")
        source = (REPOSITORY / path).read_text()
        assert f"def {name.partition('[')[0]}" in source, listed


NEEDED = {"ray_session": "ray", "process_groups": "groups", "through_another": "groups"}


def test_a_fixture_that_starts_something_asks_for_its_marker(tmp_path: Path) -> None:
    tests = [f"def test_{fixture}({fixture}):\n    pass\n" for fixture in NEEDED]
    refused = pytest_on(tmp_path / "test_it.py", FIXTURES + "".join(tests))
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    for fixture, marker in NEEDED.items():
        assert re.search(rf"::test_{fixture}: .* it needs the marker '{marker}'", refused.stderr)
    marked = [f"@pytest.mark.{NEEDED[f]}\n{test}" for f, test in zip(NEEDED, tests, strict=True)]
    assert pytest_on(tmp_path / "test_it.py", FIXTURES + "".join(marked)).returncode == 0


def test_nothing_starts_in_a_test_without_the_marker(tmp_path: Path) -> None:
    """Nor in a process that the test starts."""
    tests = [
        f"def test_{marker}():\n    subprocess.run([sys.executable, '-c', {code!r}], check=True)\n"
        for marker, code in {"ray": RAY, "groups": GROUP}.items()
    ]
    refused = pytest_on(tmp_path / "test_it.py", "import subprocess, sys\n" + "".join(tests))
    assert refused.returncode == pytest.ExitCode.TESTS_FAILED
    assert "2 failed" in refused.stdout
    for marker in ("ray", "groups"):
        assert f"refused: the test lacks the marker '{marker}'" in refused.stdout


def test_a_marker_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.rays\ndef test_it():\n    pass\n"
    refused = pytest_on(tmp_path / "test_it.py", test)
    assert refused.returncode != 0
    assert "'rays' not found in `markers`" in refused.stdout
