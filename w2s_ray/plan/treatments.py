"""What is done to the labels of a cell's student."""

from w2s_ray.plan.configs import LabelTreatment
from w2s_ray.spec.expansion import CellPoint
from w2s_ray.spec.training import Training


def treatment_of(point: CellPoint, training: Training) -> LabelTreatment:
    """The treatment of a cell's labels."""
    return LabelTreatment(
        temperature=point.label_temperature,
        relabel=point.relabel,
        filter_by=point.label_filter,
        keep=point.label_keep,
        example_weight=point.example_weight,
        neighbours=training.label_neighbours,
        shuffled=point.control == "shuffled_labels",
    )


def treated_name(point: CellPoint) -> str:
    """What is done to the labels, for the name of a student's folder."""
    parts = {
        f"t{point.label_temperature:g}": point.label_temperature != 1.0,
        f"{point.label_filter}{point.label_keep:g}": point.label_filter != "none",
        f"relabel-{point.relabel}": point.relabel != "none",
        f"w-{point.example_weight}": point.example_weight != "none",
        "shuffled": point.control == "shuffled_labels",
    }
    return "".join(f"-{part}" for part, is_done in parts.items() if is_done)
