"""The columns of ``results`` about selection: what a rule chose, by which scores, which ceiling."""

from w2s_ray.store.column import FLAG, INT, REAL, TEXT, Column

SELECTION = (
    Column(
        "selected",
        FLAG,
        "",
        "whether the rule chose this cell among those that differ only in what is chosen over;"
        " null without select",
    ),
    Column(
        "selected_by",
        TEXT,
        "",
        "the rule: weak_ce, weak_agreement, own_loss, or ground_truth, which a weak supervisor "
        "cannot use; null without select",
    ),
    Column(
        "selected_over",
        TEXT,
        "",
        "what it chose, with commas: learning_rate, step, epochs; null without select",
    ),
    Column(
        "selected_step",
        INT,
        "steps",
        "optimizer step of the student that is scored: the one that the rule chose, else the last;"
        " null without validation",
    ),
    Column(
        "selection_at_edge",
        TEXT,
        "",
        "of a selected cell: names, with commas, of what is chosen over and has its lowest or"
        " highest value here, empty without any; null of other cells",
    ),
    Column(
        "selection_missing",
        INT,
        "cells",
        "cells that the rule could not choose, or whose ceiling it could not, since they are not "
        "finished; null without select",
    ),
    Column("validation_rows", INT, "examples", "number of held-out rows; null without validation"),
    Column(
        "validation_weak_ce",
        REAL,
        "nat",
        "the student's mean cross-entropy with the weak labels of the held-out rows, at"
        " selected_step; nothing is clipped",
    ),
    Column(
        "validation_weak_agreement",
        REAL,
        "fraction",
        "share of the held-out rows for which student and weak label have the same class; ties"
        " count by their share",
    ),
    Column(
        "validation_own_loss",
        REAL,
        "nat",
        "the student's own loss on the held-out rows, without the confidence term",
    ),
    Column(
        "validation_accuracy",
        REAL,
        "fraction",
        "the student's accuracy with the true labels of the held-out rows",
    ),
    Column(
        "ceiling_learning_rate",
        REAL,
        "",
        "peak learning rate of the ceiling that the row is compared with",
    ),
    Column("ceiling_epochs", INT, "epochs", "training epochs of that ceiling"),
    Column(
        "ceiling_step",
        INT,
        "steps",
        "optimizer step at which that ceiling is scored; null without validation",
    ),
)
