"""What is refused for K classes is exactly what the objectives would refuse."""

import numpy as np
import pytest
import torch

from w2s_ray.errors import InputError
from w2s_ray.objectives.divergence import loss
from w2s_ray.objectives.noise import apply_noise
from w2s_ray.plan.classes import check_classes
from w2s_ray.plan.graph import Cell


def refused(classes: int, strength: float, clip: float) -> tuple[int | str, ...] | None:
    cell = Cell({"data": "texts", "noise_strength": strength, "label_clip": clip}, {})
    try:
        check_classes([cell], classes)
    except InputError as error:
        return error.place
    return None


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.0, 1.0])
def test_noise_strengths(classes: int, strength: float) -> None:
    labels = np.full((4, classes), 1 / classes, dtype=np.float32)
    try:
        apply_noise(labels, np.arange(4, dtype=np.uint64), 0.5, strength)
        expected = None
    except ValueError:
        expected = ("grid", "noise_strength")
    assert refused(classes, strength, 1e-3) == expected


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("clip", [1e-3, 0.25, 0.3, 1 / 3, 0.49])
def test_label_clips(classes: int, clip: float) -> None:
    try:
        loss("reverse_kl", torch.zeros(1, classes), torch.eye(classes)[:1], label_clip=clip)
        expected = None
    except ValueError:
        expected = ("training", "label_clip")
    assert refused(classes, -1.0, clip) == expected
