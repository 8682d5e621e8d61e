"""A study that needs an optional package which is absent says so in one line, before any work.

Each command runs in a process that cannot see the packages of the extras, as after
``pip install w2s-ray``.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from w2s_ray.extras import EXTRA_OF

HUB = {
    "kind": "preference",
    "source": "hf:org/name",
    "sizes": {"ground_truth": 48, "weak": 40, "test": 32},
}

WITHOUT = f"""\
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.split(".")[0] in {sorted(EXTRA_OF)}
        return None if absent else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if each is PathFinder else each for each in sys.meta_path]
from w2s_ray.study import main
sys.exit(main(sys.argv[1:]))
"""


def study(spec: Path) -> tuple[int, str]:
    """Exit code and output of a run in one process, without the packages of the extras."""
    command = [sys.executable, "-c", WITHOUT, str(spec), "--local", "--no-report"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"grid__trainable": ["full"], "execution": {"offload": "optimizer"}},
            ": execution.offload: given optimizer to train ",
        ),
        ({"grid__trainable": ["lora"]}, ": grid.trainable: given lora to train "),
        ({"data__pairs": HUB}, "hf:org/name: given a data set of the Hub, "),
    ],
)
def test_an_absent_package_is_one_line(
    write_spec: Callable[..., Path], changes: dict[str, object], line: str
) -> None:
    code, output = study(write_spec(**changes))
    assert code == 2, output
    (said,) = [each for each in output.splitlines() if line in each]
    assert "pip install 'w2s-ray[" in said
    assert "Traceback" not in output


@pytest.mark.long
def test_the_core_alone_trains_a_study(write_spec: Callable[..., Path]) -> None:
    code, output = study(write_spec(grid__trainable=["full", "last_layer"]))
    assert code == 0, output
