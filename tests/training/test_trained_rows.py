"""What a model makes of the rows that students learn from is what it makes of any rows."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax

from tests.testing.jobs import job, labelled_rows
from w2s_ray.half_logits import relative
from w2s_ray.objectives.noise import apply_noise, noisy_rows
from w2s_ray.order import hashes
from w2s_ray.training.batched_lora import fit_batched_lora
from w2s_ray.training.fit import fit
from w2s_ray.training.trained_rows import Noised, TrainedRows, flips


def noised(n=200, k=2, ratio=0.3, strength=-1.0):
    before = np.random.default_rng(0).dirichlet(np.ones(k), n).astype(np.float32)
    draws = hashes([f"row {i}" for i in range(n)], 0, "noise")
    noisy = np.zeros(n, dtype=np.bool_)
    noisy[noisy_rows(draws, ratio)] = True
    return Noised(before, apply_noise(before, draws, ratio, strength), noisy)


@pytest.mark.parametrize("k", [2, 5])
def test_shares_of_flipped_labels_are_counts_of_rows(k):
    labels = noised(k=k)
    logits = relative(np.random.default_rng(1).normal(size=(200, k)))
    restored = memorised = flipped = 0
    for row in np.flatnonzero(labels.noisy):
        flipped += 1
        restored += logits[row].argmax() == labels.before[row].argmax()
        memorised += logits[row].argmax() == labels.after[row].argmax()
    assert flips(labels, logits) == {
        "flipped_rows": flipped,
        "flipped_restored": pytest.approx(restored / flipped),
        "flipped_memorised": pytest.approx(memorised / flipped),
    }


def test_extreme_students_restore_or_memorise_all_and_ties_count_one_half():
    labels = noised()
    assert flips(labels, np.log(labels.before))["flipped_restored"] == 1.0
    assert flips(labels, np.log(labels.after))["flipped_memorised"] == 1.0
    tied = flips(labels, np.zeros((200, 2)))
    assert (tied["flipped_restored"], tied["flipped_memorised"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    "labels", [None, noised(ratio=0.0), noised(strength=0.0), noised(strength=0.5)]
)
def test_without_flipped_labels_the_shares_are_missing_not_zero(labels):
    none = {"flipped_rows": 0, "flipped_restored": None, "flipped_memorised": None}
    assert flips(labels, np.zeros((200, 2))) == none


def scored_job(**changes):
    """A job whose training rows are its test rows too, so that one can be compared to the other."""
    table, soft_labels = labelled_rows(27, changes.get("per_row", 2))
    before = soft_labels[:, ::-1].copy()
    noisy = np.arange(27) % 3 == 0
    labels = TrainedRows(table, soft_labels, Noised(before, soft_labels, noisy))
    return replace(job(**changes), rows=table, soft_labels=soft_labels, test=table, scored=labels)


def check(folder, soft_labels):
    trained, test = (pq.read_table(folder / f"{name}.parquet") for name in ("train", "test"))
    assert trained["row_id"].equals(test["row_id"])
    logits = np.array(trained["logits"].to_pylist(), dtype=np.float64)
    probs = np.array(test["probs"].to_pylist())
    np.testing.assert_allclose(softmax(logits, axis=1), probs, atol=1e-3)
    np.testing.assert_array_equal(
        np.array(trained["soft_label"].to_pylist(), np.float32), soft_labels
    )
    assert trained["noisy"].to_pylist() == [n % 3 == 0 for n in range(27)]
    return probs


@pytest.mark.parametrize("per_row", [2, 1])
def test_a_model_scores_its_training_rows_as_it_scores_test_rows(tmp_path, per_row):
    small = scored_job(per_row=per_row)
    metrics = fit(small, tmp_path)
    probs = check(tmp_path, small.soft_labels)
    assert metrics["flipped_rows"] == 27, "the labels before noise were those of the other class"
    same = (probs.argmax(1) == small.soft_labels.argmax(1)).mean()
    assert metrics["flipped_memorised"] == pytest.approx(same)
    assert metrics["flipped_restored"] == pytest.approx(1 - same)
    assert metrics["trained_parameters"] == metrics["parameters"]
    assert metrics["flops"] == 6 * metrics["parameters"] * metrics["tokens"]


def test_fused_adapters_score_their_training_rows_too(tmp_path):
    first = scored_job(trainable="lora")
    other = replace(first, learning_rate=first.learning_rate * 3)
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        out.mkdir()
    metrics = fit_batched_lora([first, other], outs)
    for out, of_cell in zip(outs, metrics, strict=True):
        check(out, first.soft_labels)
        assert not isinstance(of_cell, Exception)
        assert of_cell["flipped_rows"] == 27
        assert 0 < of_cell["trained_parameters"] < of_cell["parameters"]


def test_pairs_that_training_leaves_out_are_left_out_here_too(tmp_path):
    small = scored_job()
    answers = small.rows["answers"].to_pylist()
    answers[4] = [answers[4][0]] * 2
    rows = small.rows.set_column(small.rows.column_names.index("answers"), "answers", [answers])
    assert small.scored is not None
    fit(replace(small, rows=rows, scored=replace(small.scored, rows=rows)), tmp_path)
    expected = [row_id for n, row_id in enumerate(rows["row_id"].to_pylist()) if n != 4]
    assert pq.read_table(tmp_path / "train.parquet")["row_id"].to_pylist() == expected


def test_a_ceiling_scores_rows_that_it_did_not_learn_from(tmp_path):
    others, _ = labelled_rows(9, seed=5)
    metrics = fit(replace(job(), scored=TrainedRows(others)), tmp_path)
    table = pq.read_table(tmp_path / "train.parquet")
    assert table.column_names == ["row_id", "logits"]
    assert table["row_id"].to_pylist() == others["row_id"].to_pylist()
    assert "flipped_rows" not in metrics
