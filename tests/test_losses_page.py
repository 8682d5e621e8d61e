"""docs/losses.md says what the code does: its table of losses, and the numbers in its text."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from w2s_ray.objectives.divergence import LOSSES, loss
from w2s_ray.objectives.names import DEFINITIONS, LABEL_CLIP

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "losses.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.*?) ?\| .+ \|$", re.MULTILINE)


def rows() -> dict[str, tuple[str, str]]:
    """Loss -> its formula and what of the label is clipped, as the table of §1 has them."""
    section = PAGE.split("\n## 1. ")[1].split("\n## 2. ")[0].replace("\\|", "¦")
    return {
        name: (formula.replace("¦", "|"), clipped)
        for name, formula, clipped in ROW.findall(section)
    }


def test_the_table_has_every_loss_in_order_with_the_formula_that_reports_print() -> None:
    assert list(rows()) == list(DEFINITIONS)
    assert {name: formula for name, (formula, _) in rows().items()} == {
        name: definition.formula for name, definition in DEFINITIONS.items()
    }


@pytest.mark.parametrize("name", LOSSES)
def test_the_table_says_which_losses_clip_their_labels(name: str) -> None:
    """A hard label and the same label clipped beforehand give one value only where it clips."""
    logits = torch.tensor([[0.0, 0.7]], dtype=torch.float64)
    hard = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    same = torch.equal(
        loss(name, logits, hard), loss(name, logits, hard.clamp(LABEL_CLIP, 1 - LABEL_CLIP))
    )
    assert {"yes": True, "": False, "in H(s, w)": False}[rows()[name][1]] is same
    assert DEFINITIONS[name].clips_label is same


def test_every_default_of_a_loss_is_in_the_text() -> None:
    for name, definition in DEFINITIONS.items():
        given = ", ".join(f"{key} = {value:g}" for key, value in definition.defaults.items())
        assert f"`{name}` {given}".strip() in PAGE


def gradient(name: str, z: float, w: float) -> float:
    logits = torch.tensor([[0.0, z]], dtype=torch.float64, requires_grad=True)
    value = loss(name, logits, torch.tensor([[1 - w, w]], dtype=torch.float64)).sum()
    (slope,) = torch.autograd.grad(value, logits)
    return float(slope[0, 1])


def test_the_gradients_at_a_flipped_label_are_those_of_the_text() -> None:
    late = {n: gradient(n, 4.6, 0.01) for n in ("forward_ce", "reverse_kl", "reverse_ce")}
    early = {n: gradient(n, 0.0, 0.01) for n in ("forward_ce", "reverse_kl", "reverse_ce")}
    assert late == pytest.approx(
        {"forward_ce": 0.98, "reverse_kl": 0.091, "reverse_ce": 0.045}, abs=0.0005
    )
    assert early == pytest.approx(
        {"forward_ce": 0.49, "reverse_kl": 1.15, "reverse_ce": 1.15}, abs=0.005
    )


@pytest.mark.parametrize("gamma", [1e-3, 1e-2])
def test_the_constant_of_the_upper_bound_is_the_smallest_that_holds(gamma: float) -> None:
    """§4, statement 4, by all pairs of probabilities of the true class on a fine grid."""
    low = np.geomspace(gamma, 0.5, 800)
    p = np.concatenate([low, 1 - low[-2::-1]])
    weak, student = (side.ravel() for side in np.meshgrid(p, p))
    weak, student = weak[weak != student], student[weak != student]
    gain = np.abs(np.log(student / weak))
    forward = weak * np.log(weak / student) + (1 - weak) * np.log((1 - weak) / (1 - student))
    ratio = (gain / np.sqrt(np.maximum(forward, 1e-12))).max()
    constant = np.sqrt(2 * (1 - gamma) / gamma)
    assert 0.995 * constant < ratio < constant
    if gamma == LABEL_CLIP:
        assert "44.7" in PAGE
        assert constant == pytest.approx(44.7, abs=0.05)
