"""Mistakes in how rates and steps are chosen."""

# (text in GOOD, its replacement, the message)
MISTAKES_OF_SELECTION: dict[str, tuple[str, str, str]] = {
    "validation larger than the data": (
        "  epochs: 1",
        "  epochs: 1\nvalidation: {rows: 3}",
        "15: validation.rows: given 3, expected less than 3, the size of the split weak of data "
        "'hh'",
    ),
    "evaluations without rows": (
        "  epochs: 1",
        "  evaluations: 6",
        "14: training.evaluations: given 6, expected 1 without validation (there are no rows to "
        "evaluate steps on)",
    ),
    "evaluations of a solver": (
        "training:\n  epochs: 1",
        "  trainable: last_layer\ntraining: {solver: newton, evaluations: 2}\n"
        "validation: {rows: 1}",
        "14: training.evaluations: given 2, expected 1 with solver: newton, which has no optimizer "
        "steps",
    ),
    "choice without rows": (
        "  epochs: 1",
        "  epochs: 1\nselect: {over: learning_rate, by: weak_ce}",
        "15: select: given 'weak_ce', expected validation: {rows: …} beside it, rows to choose by",
    ),
    "choice by the truth": (
        "  epochs: 1",
        "  evaluations: 2\nvalidation: {rows: 1}\nselect: {over: step, by: ground_truth}",
        "16: select.by: given 'ground_truth', expected validation.labels: ground_truth with it "
        "(true labels that a weak supervisor lacks)",
    ),
    "choice over one step": (
        "  epochs: 1",
        "  epochs: 1\nvalidation: {rows: 1}\nselect: {over: step, by: weak_ce}",
        "16: select.over: given 'step', expected training.evaluations above 1 with step, or there "
        "is one step to choose from",
    ),
    "choice over steps beside further test sets": (
        "data:\n  hh:",
        "validation: {rows: 1}\nselect: {over: step, by: weak_ce}\n"
        "data:\n  hh:\n    tests: {far: hf:org/name}",
        "3: select.over: given 'step', expected no step beside tests of data 'hh': models keep the "
        "weights of their last step only, which is the one that further test sets are scored with",
    ),
    "choice over one rate": (
        "  epochs: 1",
        "  epochs: 1\nvalidation: {rows: 1}\nselect: {over: [learning_rate], by: own_loss}",
        "16: select.over: given 'learning_rate', expected two or more values of "
        "grid.learning_rate with it, or there is nothing to choose from (select: null "
        "chooses nothing)",
    ),
    "rule": (
        "  epochs: 1",
        "  epochs: 1\nvalidation: {rows: 1}\nselect: {over: step, by: weak_cce}",
        "16: select.by: given 'weak_cce', expected 'weak_ce', 'weak_agreement', 'own_loss' or "
        "'ground_truth'; did you mean 'weak_ce'?",
    ),
    "what is chosen twice": (
        "  epochs: 1",
        "  epochs: 1\nvalidation: {rows: 1}\nselect: {over: [step, step], by: weak_ce}",
        '16: select.over: given ["step", "step"], expected each name once',
    ),
    "nothing to choose over": (
        "  epochs: 1",
        "  epochs: 1\nvalidation: {rows: 1}\nselect: {over: [], by: weak_ce}",
        "16: select.over: given [], expected at least one name",
    ),
}
