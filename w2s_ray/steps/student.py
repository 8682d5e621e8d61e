"""``student``: the strong model learns from the weak model's soft labels, noise added."""

from collections.abc import Mapping

import pyarrow.parquet as pq

from w2s_ray.data.labels import as_column, as_matrix, join
from w2s_ray.objectives.noise import apply_noise
from w2s_ray.objectives.objective import Objective
from w2s_ray.order import hashes
from w2s_ray.plan.graph import Step
from w2s_ray.steps.context import Context
from w2s_ray.steps.fitting import fit_model
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifacts import Artifact, Draft


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Trains on the split ``weak``, labels joined by row id; the test labels stay untouched."""
    labels = pq.read_table(inputs["label"].folder / "soft_labels.parquet")
    rows = join(Rows(inputs["prepare"])["weak"], labels)
    noise, seed = step.config["noise"], step.config["seed"]
    noisy = apply_noise(
        as_matrix(rows["probs"]),
        hashes(rows["row_id"].to_pylist(), seed, "noise"),
        noise["ratio"],
        noise["strength"],
    )
    rows = rows.set_column(rows.column_names.index("probs"), "probs", as_column(noisy))
    settings = step.config["objective"]
    parameters = tuple(sorted(settings["loss_parameters"].items()))
    objective = Objective(**{**settings, "loss_parameters": parameters})
    fit_model(step, inputs, rows, "weak", objective, draft, context)
