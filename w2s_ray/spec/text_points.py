"""The cells of a study of generated text: the product of its grid."""

from typing import NamedTuple

from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.methods import TRAINED, WITH_ALPHA


class TextPoint(NamedTuple):
    """A cell; ``alpha`` and ``learning_rate_factor`` are None where the method has none."""

    weak: str
    strong: str
    method: str
    alpha: float | None
    learning_rate_factor: float | None
    seed: int


def text_points(spec: GenerationSpec) -> list[TextPoint]:
    """Every cell once, seeds innermost."""
    grid = spec.grid
    return list(
        dict.fromkeys(
            TextPoint(
                weak,
                strong,
                method,
                alpha if method in WITH_ALPHA else None,
                factor if _has_factor(method, weak, strong) else None,
                seed,
            )
            for weak, strong in grid.pair
            for method in spec.methods
            for alpha in grid.alpha
            for factor in grid.learning_rate_factor
            for seed in grid.seed
        )
    )


def _has_factor(method: str, weak: str, strong: str) -> bool:
    """Whether a cell's strong model is trained; a ceiling that is the teacher is as that one is."""
    return method in TRAINED and not (method == "ceiling" and weak == strong)
