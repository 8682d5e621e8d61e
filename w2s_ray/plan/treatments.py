"""What is unusual of a cell's student: labels, rows, penalties."""

from w2s_ray.capacity.execution import Execution
from w2s_ray.errors import InputError
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
    """What is unusual of labels, rows and penalties, for the name of a student's folder."""
    parts = {
        f"t{point.label_temperature:g}": point.label_temperature != 1.0,
        f"{point.label_filter}{point.label_keep:g}": point.label_filter != "none",
        f"relabel-{point.relabel}": point.relabel != "none",
        f"w-{point.example_weight}": point.example_weight != "none",
        "shuffled": point.control == "shuffled_labels",
        f"r{point.train_rows}": point.train_rows is not None,
        f"b{point.readout_block}": point.readout_block is not None,
        f"wd{point.weight_decay:g}": point.weight_decay != 0.0,
        f"a{point.anchor:g}": point.anchor != 0.0,
    }
    return "".join(f"-{part}" for part, is_done in parts.items() if is_done)


def unanchored(point: CellPoint, execution: Execution) -> InputError:
    return InputError(
        f"grid.anchor: given {point.anchor:g} with trainable: {point.trainable} of model "
        f"'{point.strong}' on {execution.workers} workers with ZeRO {execution.zero_stage} and "
        f"offload {execution.offload}, expected 0: a group does not keep the initial weights; "
        "one worker without offload does",
        ("grid", "anchor"),
    )
