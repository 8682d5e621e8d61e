"""A study that needs an optional package which is absent says so in one line, before any work.

The commands run in a process that cannot see the packages of the extras, as after
``pip install w2s-ray``.
"""

import re
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import yaml

from tests.testing.specs import tiny_spec
from w2s_ray.extras import EXTRA_OF

END = "exit code"  # a line of its own after each command
TRAINED = ["full", "last_layer"]
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
for spec in sys.argv[1:]:
    print(flush=True)
    print("{END}", main([spec, "--local", "--no-report"]), flush=True)
"""


ABSENT: list[tuple[dict[str, Any], str]] = [
    (
        {"grid__trainable": ["full"], "execution": {"offload": "optimizer"}},
        ": execution.offload: given optimizer to train ",
    ),
    ({"grid__trainable": ["lora"]}, ": grid.trainable: given lora to train "),
    ({"data__pairs": HUB}, "hf:org/name: given a data set of the Hub, "),
]


class Ended(NamedTuple):
    """Exit code of a command, and what it printed."""

    code: int
    output: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[Ended]:
    """The studies of ``ABSENT``, then one that needs the core alone, without the extras."""
    specs = []
    for changes in [*(changes for changes, _ in ABSENT), {"grid__trainable": TRAINED}]:
        specs.append(tmp_path_factory.mktemp("study") / "study.yaml")
        specs[-1].write_text(yaml.safe_dump(tiny_spec(**changes)))
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, specs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    parts = re.split(rf"^{END} (\d+)\n", ran.stdout, flags=re.MULTILINE)
    assert len(parts) == 2 * len(specs) + 1, ran.stdout
    return [Ended(int(code), output) for output, code in zip(parts[::2], parts[1::2], strict=False)]


@pytest.mark.long
@pytest.mark.parametrize("place", range(len(ABSENT)))
def test_an_absent_package_is_one_line(ended: list[Ended], place: int) -> None:
    code, output = ended[place]
    assert code == 2, output
    (said,) = [each for each in output.splitlines() if ABSENT[place][1] in each]
    assert "pip install 'w2s-ray[" in said
    assert "Traceback" not in output


@pytest.mark.long
def test_the_core_alone_trains_a_study(ended: list[Ended]) -> None:
    code, output = ended[-1]
    assert code == 0, output
