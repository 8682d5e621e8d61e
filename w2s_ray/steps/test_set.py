"""``test_set``: a source → the rows of a further test set, and how many of them were trained on."""

from collections.abc import Mapping

import pyarrow.parquet as pq

from w2s_ray.data.sources import data_identity
from w2s_ray.data.test_sets import TRAINED_ON, as_data, prepare_test_set
from w2s_ray.plan.configs import PrepareConfig
from w2s_ray.plan.step import Step
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.steps.context import Context
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``test.parquet``: row_id, prompt, answers, label."""
    config, rows = step.config_as(PrepareConfig), Rows(inputs["prepare"])
    assert step.data is not None
    if data_identity(step.data) != inputs["prepare"].record["config"]["data"]:
        raise ValueError("the data have changed since the study was planned; run the study again")
    prepared = prepare_test_set(
        _test_set(step.data, config),
        step.data,
        rows.classes,
        {split: rows.labels(split)["row_id"].to_pylist() for split in TRAINED_ON},
        messages=config.messages,
    )
    pq.write_table(prepared.tables["test"], draft.folder / "test.parquet")
    draft.metrics.update(num_classes=rows.num_classes, per_row=rows.per_row, report=prepared.report)


def _test_set(data: DataSpec, config: PrepareConfig) -> DataSpec:
    """The test set of ``data`` with the content that was planned; a key holds no names."""
    for name in data.tests:
        test = as_data(data, name)
        if data_identity(test) == config.data:
            return test
    raise ValueError("the test set has changed since the study was planned; run the study again")
