"""Value and gradient of every loss in float32 against references of 50 digits.

``python -m tests.objectives.test_references`` prints the largest errors (docs/losses.md has them).

Errors are relative to the larger of 1 and the true number: losses reach 1e4 and slopes 1e12 here,
where neighbouring float32 numbers are 1e-3 and 1e5 apart. Numbers below 1 are held to the absolute
error, since a gradient is a mean over rows. Logits and labels are float32 and count as the numbers
they are, whether or not a label then sums to exactly 1.
"""

from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.objectives.exact_losses import CONTEXT, VALUES, exact_loss
from tests.testing.shares import alternating
from w2s_ray.objectives.divergence import LOSSES, loss
from w2s_ray.objectives.names import DEFINITIONS

MAX_VALUE_ERROR = 1e-6
MAX_GRADIENT_ERROR = 2e-6

Rows = NDArray[np.float32]

MARGINS = (
    0.0, 1e-8, 1e-4, 0.03, 0.4, 1.0, 1.75, 2.5, 4.6, 6.9, 7.3, 9.0, 12.0, 15.9, 17.0, 23.0, 27.5,
    27.7, 31.0, 50.0, 88.8, 104.0, 1e3, 9999.7, 1e4,
)  # fmt: skip
PROBS = (0.0, 1e-30, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 1.1e-3, 0.01, 0.1, 0.25, 0.3, 0.45, 0.5)

OTHER_PARAMETERS: dict[str, list[dict[str, float]]] = {
    "generalised_jensen_shannon": [{"b": 0.01}, {"b": 0.5}, {"b": 0.99}],
    "alpha_divergence": [{"a": 0.01}, {"a": 0.25}, {"a": 0.75}, {"a": 0.99}],
    "symmetric_ce": [{"a": 0.0, "b": 1.0}, {"a": 0.1, "b": 1.0}, {"a": 6.0, "b": 0.1}],
    "confidence_adaptive_ce": [{"c": 0.0}, {"c": 0.1}, {"c": 0.45}],
    "product_loss": [{"a": 2.0, "b": 0.5}, {"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}],
}


class Worst(NamedTuple):
    """The largest errors of one loss, relative to the larger of 1 and the true number."""

    value: float
    gradient: float


def pairs() -> tuple[Rows, Rows]:
    """Margins × labels on either side of ½, those at which s is the label, and drawn ones.

    That the order of a pair does not matter is a test of its own, so z is positive in the grid.
    """
    w = np.array(PROBS)
    at_label = np.log(w[4:-1]) - np.log1p(-w[4:-1])
    margins = np.concatenate([MARGINS, at_label, -at_label])
    preferred = np.concatenate([w, 1 - w[:-1]])
    rng = np.random.default_rng(0)
    z = np.concatenate([np.repeat(margins, len(preferred)), rng.uniform(-12, 12, 300)])
    drawn = 1 / (1 + np.exp(rng.uniform(-8, 8, 300)))
    first = np.concatenate([np.tile(np.concatenate([1 - w, w[:-1]]), len(margins)), 1 - drawn])
    second = np.concatenate([np.tile(preferred, len(margins)), drawn])
    return (
        np.stack([0 * z, z], 1).astype(np.float32),
        np.stack([first, second], 1).astype(np.float32),
    )


def many(classes: int) -> tuple[Rows, Rows]:
    """Drawn logits of every size × drawn, hard, uniform and nearly hard labels, and s = w."""
    rng = np.random.default_rng(classes)
    one = np.eye(classes)[0]
    rest = (1 - one) / (classes - 1)
    labels = [
        *rng.dirichlet(np.full(classes, 0.5), 6),
        one,
        np.full(classes, 1 / classes),
        *((1 - tiny) * one + tiny * rest for tiny in (1e-30, 1e-8, 1e-3, 0.02)),
    ]
    logits = [
        *(rng.normal(size=classes) * size for size in (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3)),
        *(rng.uniform(-1e4, 1e4, classes) for _ in range(2)),
        *np.log(labels[:2]),
        np.zeros(classes),
        1e4 * one,
    ]
    return (
        np.repeat(logits, len(labels), 0).astype(np.float32),
        np.tile(labels, (len(logits), 1)).astype(np.float32),
    )


def settings(name: str) -> Iterator[dict[str, float]]:
    """The default parameters of a loss, then others."""
    yield DEFINITIONS[name].defaults
    yield from OTHER_PARAMETERS.get(name, [])


def errors(name: str, parameters: dict[str, float], rows: tuple[Rows, Rows]) -> Worst:
    """The largest errors of value and gradient over rows of (logits, labels)."""
    logits = torch.from_numpy(rows[0]).requires_grad_()
    values = loss(name, logits, torch.from_numpy(rows[1]), **parameters)
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    assert values.dtype == slopes.dtype == torch.float32
    both = zip(*(part.tolist() for part in rows), strict=True)
    exact = [exact_loss(name, scores, label, parameters) for scores, label in both]
    ours = torch.cat([values.detach()[:, None], slopes], 1).double().numpy()
    true = np.array([[float(row.value), *map(float, row.gradient)] for row in exact])
    wrong = np.abs(ours - true) / np.maximum(1.0, np.abs(true))
    return Worst(float(wrong[:, 0].max()), float(wrong[:, 1:].max()))


ROWS = {"2": pairs(), "3": many(3), "5": many(5)}


@pytest.mark.long
@pytest.mark.parametrize(("name", "classes"), alternating(LOSSES, list(ROWS)))
def test_value_and_gradient_in_float32_are_those_of_50_digits(name: str, classes: str) -> None:
    for parameters in settings(name):
        worst = errors(name, parameters, ROWS[classes])
        assert worst.value <= MAX_VALUE_ERROR, parameters
        assert worst.gradient <= MAX_GRADIENT_ERROR, parameters


def test_every_loss_has_a_definition_in_decimals() -> None:
    assert list(VALUES) == list(LOSSES)
    assert OTHER_PARAMETERS.keys() == {n for n, d in DEFINITIONS.items() if d.parameters}


def test_the_reference_itself_is_right_to_50_digits() -> None:
    """Forward KL's slope is s - w and Pearson's 2 d v / (w (1 - w)), here with w = ¼ and s = ⅗."""
    with localcontext(CONTEXT):
        z = Decimal("1.5").ln()
        w, s = Decimal("0.25"), Decimal("0.6")
        d, v = s - w, s * (1 - s)
        slopes = {"forward_kl": d, "pearson_chi2": 2 * d * v / (w * (1 - w))}
        for name, slope in slopes.items():
            exact = exact_loss(name, [Decimal(0), z], [1 - w, w], {})
            assert abs(exact.gradient[1] - slope) < Decimal("1e-50")
            assert abs(exact.gradient[0] + slope) < Decimal("1e-50")
        assert abs(exact.value - (d * d / w + d * d / (1 - w))) < Decimal("1e-90")


def main() -> None:
    """Print a row of Markdown for each loss: the largest errors over all rows and parameters."""
    for name in LOSSES:
        found = [errors(name, p, rows) for p in settings(name) for rows in ROWS.values()]
        value, gradient = (max(column) for column in zip(*found, strict=True))
        print(f"| `{name}` | {value:.1e} | {gradient:.1e} |", flush=True)


if __name__ == "__main__":
    main()
