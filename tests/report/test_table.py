"""The table has means and standard deviations over seeds, and never a zero for a missing score."""

import io

import pyarrow as pa
from rich.console import Console

from w2s_ray.report.table import percent, tables


def row(**changes):
    defaults = {
        "data": "d", "weak": "w", "strong": "s", "chain": "", "combine": "mean",
        "trainable": "full", "learning_rate": 1e-5,
        "epochs": 1, "batch_size": 16, "loss": "forward_kl", "loss_parameters": "{}",
        "confidence_weight": 0.0, "confidence_form": "target", "confidence_warmup": 0.2,
        "label_temperature": 1.0, "noise_strength": -1.0,
        "noise_ratio": 0.0, "seed": 0, "status": "done", "control": "",
        "weak_key": "w0", "ceiling_key": "c0",
        "weak_accuracy": 0.6, "ceiling_accuracy": 0.9, "student_accuracy": 0.7, "test_rows": 100,
        "shorter_answer_accuracy": 0.55,
    }  # fmt: skip
    return {**defaults, **changes}


def drawn(rows):
    out = io.StringIO()
    for table in tables(pa.Table.from_pylist(rows)):
        Console(file=out, width=140).print(table)
    return out.getvalue()


def test_seeds_are_averaged_within_a_loss_and_a_noise():
    text = drawn(
        [
            row(seed=0, student_accuracy=0.70),
            row(seed=1, student_accuracy=0.72, weak_key="w1", weak_accuracy=0.64),
            row(seed=0, noise_ratio=0.2, student_accuracy=0.5),
            row(seed=0, loss="reverse_kl", student_accuracy=0.8),
        ]
    )
    assert "71.0 ±1.4" in text and "50.0" in text and "80.0" in text
    assert "noise 0" in text and "noise 0.2" in text
    assert (
        "weak 62.0 ±2.8   ceiling 90.0   shorter answer 55.0" in text
    )  # a model shared by cells counts once


def test_what_is_missing_is_a_dash_and_is_counted():
    text = drawn([row(student_accuracy=None, status="failed", test_rows=None)])
    assert "–" in text and "1 of 1 cells are incomplete" in text and " 0.0" not in text


def test_an_axis_is_a_column_where_it_varies_only():
    assert "confidence" not in drawn([row()])
    text = drawn([row(), row(confidence_weight=0.5, student_accuracy=0.1)])
    assert "confidence" in text and "10.0" in text and "70.0" in text


def test_percent():
    assert percent([None, None]) == "–"
    assert percent([0.5, None]) == "50.0"
    assert percent([0.5, 0.6]) == "55.0 ±7.1"


def test_a_ceiling_that_is_not_above_the_weak_model_is_said():
    assert "no gap to recover" in drawn([row(ceiling_accuracy=0.6)])
    assert "no gap to recover" in drawn([row(ceiling_accuracy=0.4, weak_accuracy=0.6)])
    assert "no gap to recover" not in drawn([row()])
    assert "no gap to recover" not in drawn([row(ceiling_accuracy=None)])


def test_classes_have_no_baseline_of_lengths_and_names_that_are_hard_to_see_are_quoted():
    text = drawn([row(shorter_answer_accuracy=None, classes='["calm", "calm "]')])
    assert "shorter" not in text and "classes calm, 'calm '" in text


def test_controls_are_below_the_losses_and_not_among_them():
    text = drawn(
        [
            row(),
            row(control="tfidf", loss="forward_ce", student_accuracy=0.55),
            row(control="tfidf", loss="forward_ce", student_accuracy=0.57, seed=1),
        ]
    )
    assert "forward_ce" not in text
    assert "tfidf 56.0 ±1.4" in text
    assert "1 seed" in text
