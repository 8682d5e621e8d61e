"""The cells of a study of generated text: the product of its grid."""

from typing import NamedTuple

from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.methods import WITH_ALPHA


class TextPoint(NamedTuple):
    """A cell; ``alpha`` is None where the method has none."""

    weak: str
    strong: str
    method: str
    alpha: float | None
    seed: int


def text_points(spec: GenerationSpec) -> list[TextPoint]:
    """Every cell once, seeds innermost."""
    grid = spec.grid
    return list(
        dict.fromkeys(
            TextPoint(weak, strong, method, alpha if method in WITH_ALPHA else None, seed)
            for weak, strong in grid.pair
            for method in spec.methods
            for alpha in grid.alpha
            for seed in grid.seed
        )
    )
