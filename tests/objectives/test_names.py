"""The losses' names are data that every layer can read, and are exactly the losses there are."""

import subprocess
import sys

from w2s_ray.objectives.divergence import LOSSES
from w2s_ray.objectives.names import DEFINITIONS


def test_names_and_losses_are_the_same_set_in_the_same_order() -> None:
    assert list(LOSSES) == list(DEFINITIONS)
    for name, member in LOSSES.items():
        assert (member.formula, member.parameters) == tuple(DEFINITIONS[name])


def test_no_two_losses_print_the_same_formula() -> None:
    assert len({definition.formula for definition in DEFINITIONS.values()}) == len(DEFINITIONS)


def test_names_are_read_without_torch_or_numpy() -> None:
    code = "import sys, w2s_ray.objectives.names; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
