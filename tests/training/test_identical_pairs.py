"""Pairs whose answers are the same tokens: no gradient or left out, scored as ties, counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.testing.jobs import MODEL, job, labelled_rows
from tests.testing.tokenizer_kinds import byte_level
from w2s_ray.data.batches import trained_rows
from w2s_ray.data.tokens import encode
from w2s_ray.models.backbone import load_backbone
from w2s_ray.models.inference import last_states, scorer_logits
from w2s_ray.models.scorer import Scorer
from w2s_ray.spec.schema import Lora
from w2s_ray.training.batched_lora import fit_batched_lora
from w2s_ray.training.fit import fit
from w2s_ray.training.job import TrainJob

TAIL = " and so on about the quiet harbour, and so on about the quiet harbour, and so on"
"""Longer than the 64 tokens of these jobs."""


def with_identical(table: pa.Table, every: int) -> pa.Table:
    """``table`` with answers in every so many rows that differ only in what will be cut off."""
    answers = table["answers"].to_pylist()
    for row in range(0, len(answers), every):
        answers[row] = [answer + TAIL for answer in answers[row]]
    return table.set_column(2, "answers", pa.array(answers, pa.list_(pa.string())))


def mixed_job(**changes: Any) -> TrainJob:
    base = job(**changes)
    return replace(base, rows=with_identical(base.rows, 3), test=with_identical(base.test, 2))


def without(of: TrainJob, every: int) -> TrainJob:
    """The job as if those rows had never been there."""
    kept = [row for row in range(of.rows.num_rows) if row % every]
    return replace(of, rows=of.rows.take(kept), soft_labels=of.soft_labels[kept])


def run(of: TrainJob, out: Path) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any]]:
    """Metrics, losses and test probabilities."""
    out.mkdir()
    metrics = fit(of, out)
    probs = np.stack(pq.read_table(out / "test.parquet")["probs"].to_pylist())
    return metrics, np.array(pq.read_table(out / "curve.parquet")["loss"]), probs


def test_kept_they_have_no_gradient_and_are_scored_as_ties(tmp_path: Path) -> None:
    mixed = mixed_job(identical_pairs="keep")
    other = mixed.soft_labels.copy()
    other[::3] = other[::3, ::-1]  # labels of such pairs, which can teach nothing
    metrics, _, probs = run(mixed, tmp_path / "mixed")
    other_probs = run(replace(mixed, soft_labels=other), tmp_path / "other")[2]
    np.testing.assert_allclose(probs, other_probs, atol=1e-5)
    all_other = run(replace(mixed, soft_labels=mixed.soft_labels[:, ::-1].copy()), tmp_path / "all")
    assert np.abs(probs - all_other[2]).max() > 1e-3
    assert (probs[::2] == 0.5).all() and (probs[1::2] != 0.5).all()
    assert (metrics["identical_rows"], metrics["steps"]) == (9, 8)


def test_they_might_as_well_not_be_there(tmp_path: Path) -> None:
    mixed = mixed_job()
    metrics, losses, probs = run(mixed, tmp_path / "mixed")
    expected, expected_losses, expected_probs = run(without(mixed, 3), tmp_path / "without")
    assert losses.tolist() == expected_losses.tolist()
    assert probs.tolist() == expected_probs.tolist()
    assert (probs[::2] == 0.5).all() and (probs[1::2] != 0.5).all()
    assert metrics["identical_rows"] == 9 and expected["identical_rows"] == 0
    assert metrics["identical_test_rows"] == expected["identical_test_rows"] == 5
    assert metrics["truncated_rows"] >= 9
    assert metrics["steps"] == 6  # 18 rows in batches of 8, twice


def test_cells_trained_together_leave_out_the_same(tmp_path: Path) -> None:
    base = mixed_job(trainable="lora", lora=Lora(rank=2, alpha=4.0), identical_pairs="leave_out")
    cells = [replace(base, name=str(rate), learning_rate=rate) for rate in (1e-3, 3e-3)]
    outs = [tmp_path / cell.name for cell in cells]
    for out in outs:
        out.mkdir()
    for cell, out, metrics in zip(cells, outs, fit_batched_lora(cells, outs), strict=True):
        assert isinstance(metrics, dict)
        alone, losses, probs = run(cell, tmp_path / f"{cell.name} alone")
        assert metrics["identical_rows"] == alone["identical_rows"] == 9
        together = np.array(pq.read_table(out / "curve.parquet")["loss"])
        np.testing.assert_allclose(together, losses, atol=1e-5)
        found = np.stack(pq.read_table(out / "test.parquet")["probs"].to_pylist())
        np.testing.assert_allclose(found, probs, atol=1e-5)
        assert (found[::2] == 0.5).all()


def test_nothing_but_them_is_nothing_to_learn_from(tmp_path: Path) -> None:
    base = job()
    with pytest.raises(ValueError, match=r"all 27 pairs are the same .*max_length_tokens"):
        fit(replace(base, rows=with_identical(base.rows, 1)), tmp_path)
    every, none = np.ones(2, bool), np.zeros(0, bool)
    assert trained_rows(every, "keep").tolist() == [0, 1]
    assert trained_rows(none, "leave_out").tolist() == []


def test_states_and_logits_of_equal_texts_are_equal() -> None:
    table = with_identical(labelled_rows(12)[0], 2)
    backbone = load_backbone(MODEL, "fp32", "cpu")
    tokens = encode(table, backbone.tokenizer, 64)
    assert tokens.identical.tolist() == [True, False] * 6
    states = last_states(backbone, tokens)
    equal = (states[:, 0] == states[:, 1]).all(axis=1)
    assert equal.tolist() == tokens.identical.tolist()
    scorer = Scorer(backbone.module, backbone.hidden_size, 2, 2, seed=0)
    logits = scorer_logits(scorer, tokens)
    assert ((logits == 0).all(axis=1) == tokens.identical).all()


def test_a_tokenizer_that_reads_whole_texts_shares_all_but_the_last_token() -> None:
    table = pa.table({"row_id": ["r"], "prompt": ["a b"], "answers": [["cd", "cd"]]})
    tokens = encode(table, byte_level(add_prefix_space=True), 64)
    assert tokens.identical.tolist() == [True]
    assert tokens.segments[0, 1:].tolist() == [1, 1]
