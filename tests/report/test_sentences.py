"""The generated answer claims what a test gave and says what limits it."""

from dataclasses import replace
from typing import Any

import pytest

from w2s_ray.report.answers import Answer, Difference
from w2s_ray.report.sentences import conclusions
from w2s_ray.report.settings import Row, Setting
from w2s_ray.statistics.comparisons import compare
from w2s_ray.statistics.decomposition import Components, Estimate
from w2s_ray.statistics.recovered_gap import Recovered

AXES: dict[str, Any] = {
    **{"data": "d", "weak": "a", "strong": "b", "chain": "", "combine": "mean", "control": ""},
    **{"trainable": "last_layer", "loss_parameters": "{}", "noise_ratio": 0.0},
}
ROW: Row = {
    **{"control": "", "learning_rate": 1e-3, "selected": True, "selected_over": "learning_rate"},
    **{"selected_by": "weak_ce", "selection_at_edge": "", "validation_rows": 500},
    **{"selection_missing": "", "status": "done", "converged": None},
}
LOST = {"loss": "forward_kl", "noise_ratio": 0.0, "seed": 3, "student_accuracy": 0.41}


def setting(loss: str) -> Setting:
    return Setting({**AXES, "loss": loss}, ())


def difference(mean: float, error: float, seeds: int = 3) -> Difference:
    (comparison,) = compare([Estimate(mean, error**2, 100.0)], margin=0.01)
    return Difference(
        setting("reverse_kl"),
        setting("forward_kl"),
        "seed",
        tuple(range(seeds)),
        False,
        0,
        1000,
        1000,
        0.28,
        comparison,
        Components(0.0, 0.0, 0.0, True),
        None,
    )


def an_answer(**changes: Any) -> Answer:
    found = Answer(
        setting("reverse_kl"),
        "seed",
        (0, 1, 2),
        0,
        recovered=Recovered(0.4, 0.3, 0.5, 0.1, 0.08, 0.12),
    )
    return replace(found, **changes)


def said(found: Difference, of: Answer | None = None, **row: Any) -> str:
    return " ".join(conclusions([of or an_answer()], [found], [{**ROW, **row}], 0.01))


@pytest.mark.parametrize(
    ("mean", "error", "claim"),
    [
        (0.03, 0.005, "reverse_kl is better, +3.0 points (95 % +2.0 to +4.0"),
        (-0.03, 0.005, "reverse_kl is worse, −3.0 points"),
        (0.0, 0.002, "0 are better, 0 worse, 1 equivalent within 1 point and 0 undecided"),
        (0.03, 0.02, "0 are better, 0 worse, 0 equivalent within 1 point and 1 undecided"),
    ],
)
def test_a_claim_stands_only_where_a_test_gave_it(mean: float, error: float, claim: str) -> None:
    text = said(difference(mean, error))
    assert claim in text
    assert ("is better" in text, "is worse" in text) == (
        "is better" in claim,
        "is worse" in claim,
    )


def test_the_claim_says_rows_seeds_and_how_confident_the_teacher_is() -> None:
    text = said(difference(0.03, 0.005))
    assert (
        "d, a → b, last_layer: of 1 comparison with forward_kl over 1,000 test rows and 3 seeds"
        in text
    )
    assert "labels 0.28 from uniform" in text


@pytest.mark.parametrize(
    ("noises", "confidence", "inside"),
    [
        ((0.0,), None, "(95 % +2.0 to +4.0)"),
        ((0.0,), 0.28, "(95 % +2.0 to +4.0; labels 0.28 from uniform)"),
        ((0.0, 0.2), None, "(95 % +2.0 to +4.0; noise ratio 0)"),
        ((0.0, 0.2), 0.28, "(95 % +2.0 to +4.0; noise ratio 0, labels 0.28 from uniform)"),
    ],
)
def test_the_claim_names_only_the_conditions_that_it_has(
    noises: tuple[float, ...], confidence: float | None, inside: str
) -> None:
    found = replace(difference(0.03, 0.005), confidence=confidence)
    answers = [
        an_answer(setting=Setting({**AXES, "loss": "reverse_kl", "noise_ratio": noise}, ()))
        for noise in noises
    ]
    text = " ".join(conclusions(answers, [found], [ROW], 0.01))
    assert f"better, +3.0 points {inside}." in text


def test_one_seed_says_so() -> None:
    assert "One seed: these verdicts hold for this seed's models" in said(
        difference(0.03, 0.005, 1)
    )


def test_shared_seeds_and_few_seeds_are_counted() -> None:
    shared = replace(difference(0.03, 0.005), unit="weak seed", shares_seeds=True)
    text = " ".join(conclusions([an_answer()], [shared, difference(0.03, 0.005, 1)], [ROW], 0.01))
    assert "over 1,000 test rows and 1 to 3 seeds or weak seeds, 2 are better" in text
    assert "(95 % +2.0 to +4.0; 3 weak seeds," in text and "; 1 seed," in text
    assert "1 of them over one seed: they hold for its models and new rows." in text
    assert "In 1 of them students of several weak models have the same seeds" in text


def test_the_rule_is_said_and_the_truth_is_not_a_rule_for_weak_supervisors() -> None:
    assert "Learning rate chosen by weak_ce on 500 held-out rows." in said(difference(0.0, 0.01))
    text = said(difference(0.0, 0.01), selected_by="ground_truth")
    assert "chosen with the true labels of 500 held-out rows: not available to a weak" in text


def test_a_choice_at_the_edge_of_its_grid_is_said() -> None:
    text = said(difference(0.0, 0.01), selection_at_edge="learning_rate")
    assert "1 of 1 choices are at the edge of their grid" in text


def test_choices_among_fewer_cells_are_said() -> None:
    text = said(difference(0.0, 0.01), selection_missing="learning_rate")
    assert "1 choice among fewer cells than others, since some failed" in text


def test_an_exact_solver_has_no_rate_to_choose() -> None:
    text = said(difference(0.0, 0.01), selected=None, selected_over=None, converged=True)
    assert "An exact solver trained all students" in text and "learning rate, 0.001" not in text


def test_one_rate_for_all_is_no_comparison_of_losses_at_their_own() -> None:
    text = said(difference(0.03, 0.005), selected=None, selected_over=None)
    assert "All students have one learning rate, 0.001: nothing here says how losses" in text


def test_what_limits_the_gap_is_said() -> None:
    unresolved = Recovered(0.4, None, None, 0.01, -0.02, 0.04)
    text = said(
        difference(0.0, 0.01),
        an_answer(recovered=unresolved, missing=2, one_weak_model=True, collapsed=(LOST, LOST)),
    )
    assert "resolved in 0 of 1 settings; all seeds share one weak model" in text
    named = "forward_kl, noise 0, seed 3 (41.0)"
    assert f"2 students collapsed below chance ({named}; {named}); 2 cells missing" in text
    assert "recover " not in text
    negative = Recovered(1.4, 1.1, 1.9, -0.1, -0.12, -0.08)
    text = said(difference(0.0, 0.01), an_answer(recovered=negative))
    assert "resolved in 0 of 1 settings; in 1 setting the ceiling is below its weak model" in text
