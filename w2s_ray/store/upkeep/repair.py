"""Repair: damaged artifacts are set aside, and their steps are made again by the next run."""

from collections.abc import Iterator, Sequence

from w2s_ray.store.artifacts import Store
from w2s_ray.store.upkeep.inventory import Studies
from w2s_ray.store.upkeep.verify import Damage


def made_again(damage: Damage, studies: Studies) -> Iterator[str]:
    """A line for each study whose next run makes again what is damaged."""
    if damage.error is None:
        return
    if not damage.keys:
        yield "the studies that need it make its steps again at their next run"
        return
    needing = {name: len(study.keys & set(damage.keys)) for name, study in studies.named.items()}
    for name, count in needing.items():
        if count:
            yield f"the next run of study {name} makes {_steps(count)} again"
    if not any(needing.values()):
        yield "no study in this store needs it"


def set_aside(store: Store, damages: Sequence[Damage]) -> Iterator[str]:
    """Moves each damaged artifact below ``damaged/``; yields where they are.

    Under the step's claim, and only if the record is still the one that was read.

    Raises:
        InputError: The store cannot be written.
    """
    for damage in damages:
        if damage.error is not None:
            with store.writing_errors():
                moved = store.set_aside(damage.error)
            yield f"{damage.error.path} is gone already" if moved is None else moved


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"
