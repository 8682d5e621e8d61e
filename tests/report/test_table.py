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
        "label_temperature": 1.0, "label_filter": "none", "label_keep": 1.0, "relabel": "none",
        "example_weight": "none", "noise_strength": -1.0, "train_rows": None, "weak_seed": 0,
        "readout_block": None, "weight_decay": 0.0, "anchor": 0.0,
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


def test_a_treatment_that_all_students_share_is_said_unless_it_is_the_plain_way():
    treated = {"label_temperature": 0.25, "label_filter": "confidence", "label_keep": 0.5}
    text = drawn([row(**treated, train_rows=40)])
    assert "label temperature 0.25, label filter confidence, label keep 0.5, train rows 40" in text
    assert "label temperature" not in drawn([row()])
    curve = drawn([row(train_rows=40), row()])
    assert "all" in curve and "None" not in curve


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


def chosen_row(rate, *, selected=True, **changes):
    return row(
        **{
            "learning_rate": rate, "selected": selected, "selected_by": "weak_ce",
            "selected_over": "learning_rate, step", "selected_step": 6, "selection_missing": 0,
            "selection_at_edge": "" if selected else None, "validation_rows": 500, **changes,
        }
    )  # fmt: skip


def test_a_rule_shows_one_line_for_each_choice_and_says_what_it_chose():
    text = drawn(
        [
            chosen_row(1e-5, student_accuracy=0.61),
            chosen_row(1e-3, selected=False, student_accuracy=0.93),
            chosen_row(1e-5, seed=1, selected=False, student_accuracy=0.94),
            chosen_row(
                1e-3, seed=1, selection_at_edge="learning_rate, step", student_accuracy=0.63
            ),
        ]
    )
    assert text.count("d: w → s") == 1 and "62.0 ±1.4" in text and "9" not in text.split("weak")[0]
    assert "learning rate chosen" in text
    assert "learning rate and step chosen by weak_ce on 500 held-out rows" in text
    assert "learning rate 1e-05 to 0.001, step 6" in text
    assert "1 of 2 choices are at the edge of their grid (learning rate in 1, step in 1)" in text
    assert "not available" not in text and "unfinished" not in text


def test_a_choice_by_the_truth_is_marked_and_unfinished_cells_are_counted():
    text = drawn(
        [
            chosen_row(1e-5, selected_by="ground_truth", selection_missing=1),
            chosen_row(1e-3, selected_by="ground_truth", selected=False, selection_missing=1,
                       status="pending", student_accuracy=None),
        ]
    )  # fmt: skip
    line = "chosen with the true labels of 500 held-out rows: not available to a weak supervisor"
    assert line in " ".join(text.split())
    assert "1 of 1 choices are among cells that failed or are not finished" in text
    assert "1 of 2 cells are incomplete" in text and "70.0" in text


def test_a_choice_with_no_finished_cell_is_a_dash():
    rows = [
        chosen_row(rate, selected=False, status="pending", student_accuracy=None, test_rows=None)
        for rate in (1e-5, 1e-3)
    ]
    text = drawn(rows)
    assert "–" in text and "2 of 2 cells are incomplete" in text


def test_students_below_chance_are_named_with_and_without_a_rule():
    collapsed = {"seed": 3, "noise_ratio": 0.4, "student_accuracy": 0.356, "test_rows": 1000}
    for one, made in ((row(), row), (chosen_row(1e-5), lambda **c: chosen_row(1e-5, **c))):
        text = drawn([one, made(**collapsed)])
        assert "1 of 2 students collapsed" in text
        assert "forward_kl, noise 0.4, seed 3 (35.6)" in " ".join(text.split())
    assert "collapsed" not in drawn([row(), row(student_accuracy=0.45, test_rows=100)])
    five = {"classes": '["a", "b", "c", "d", "e"]', "test_rows": 1000}
    assert "collapsed" not in drawn([row(student_accuracy=0.25, **five)])
    assert "collapsed" in drawn([row(student_accuracy=0.15, **five)])


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


def test_one_seed_has_no_standard_deviation():
    one, two = drawn([row()]), drawn([row(), row(seed=1)])
    assert "1 seed," in one and "standard deviation" not in one and "±" not in one
    assert "2 seeds (mean ± standard deviation between seeds)" in two
