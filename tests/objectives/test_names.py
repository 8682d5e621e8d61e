"""The losses' definitions are data that every layer can read, of exactly the losses there are."""

import math
import subprocess
import sys

import pytest

from w2s_ray.objectives.divergence import LOSSES
from w2s_ray.objectives.names import DEFINITIONS, Parameter


def test_names_and_losses_are_the_same_set_in_the_same_order() -> None:
    assert list(LOSSES) == list(DEFINITIONS)


def test_every_default_is_in_its_range() -> None:
    for definition in DEFINITIONS.values():
        for parameter in definition.parameters.values():
            assert parameter.allows(parameter.default)


@pytest.mark.parametrize(
    ("parameter", "allowed", "refused", "expected"),
    [
        (Parameter(1.0), [0.0, 1e9], [-1e-9], "a number of at least 0"),
        (
            Parameter(1.0, 0.5, 2.0),
            [0.5, 2.0],
            [0.4, 2.1],
            "a number of at least 0.5 and at most 2",
        ),
        (Parameter(0.5, 0.0, 1.0, is_open=True), [0.1], [0.0, 1.0], "a number above 0 and below 1"),
        (Parameter(0.5, -math.inf, 1.0), [-9.0, 1.0], [1.1], "a number of at most 1"),
        (Parameter(0.5, -math.inf), [-9.0, 9.0], [], "a number"),
    ],
)
def test_a_range_says_what_it_allows(
    parameter: Parameter, allowed: list[float], refused: list[float], expected: str
) -> None:
    assert all(map(parameter.allows, allowed))
    assert not any(map(parameter.allows, refused))
    assert parameter.expected == expected


def test_no_two_losses_print_the_same_formula() -> None:
    assert len({definition.formula for definition in DEFINITIONS.values()}) == len(DEFINITIONS)


def test_names_are_read_without_torch_or_numpy() -> None:
    code = "import sys, w2s_ray.objectives.names; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
