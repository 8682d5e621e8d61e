"""The columns of ``results`` that hold the axes of a cell."""

from w2s_ray.store.column import INT, REAL, TEXT, Column, never_null

AXES = (
    never_null("study", TEXT, "name of the study"),
    never_null("data", TEXT, "name of the data set"),
    never_null(
        "weak",
        TEXT,
        "name of the weak model; a+b+c for an ensemble of several; of a chain, the first model",
    ),
    never_null(
        "strong",
        TEXT,
        "name of the strong model, from which student and ceiling are trained; of a chain, the last"
        " model",
    ),
    never_null(
        "chain",
        TEXT,
        "m1>m2>m3 for a student that learns from the student of m2, which learns from m1; empty for"
        " a pair",
    ),
    never_null(
        "combine",
        TEXT,
        "how an ensemble's labels are combined: mean, product or learned; no effect with one weak"
        " model",
    ),
    never_null("loss", TEXT, "the student's loss"),
    never_null("loss_parameters", TEXT, "parameters of the loss as JSON; {} if it has none"),
    never_null("confidence_weight", REAL, "final weight of the confidence target", "fraction"),
    never_null(
        "confidence_warmup",
        REAL,
        "share of the optimizer steps over which that weight rises",
        "fraction",
    ),
    never_null("confidence_form", TEXT, "how the confidence target enters the loss: target or sum"),
    never_null(
        "label_temperature",
        REAL,
        "the T of the weak labels softmax(log w / T), before noise; 0: hard labels",
    ),
    never_null(
        "label_filter",
        TEXT,
        "what the filter of the labels goes by: confidence, margin_to_prior, probe, knn; or none",
    ),
    never_null("label_keep", REAL, "share of the labels that the filter keeps", "fraction"),
    never_null("relabel", TEXT, "what the labels are replaced by after noise: probe, knn; none"),
    never_null(
        "example_weight", TEXT, "what a row's loss is weighed by: confidence (of its label); none"
    ),
    never_null("noise_ratio", REAL, "share of the weak labels that are perturbed", "fraction"),
    never_null(
        "noise_strength",
        REAL,
        "a perturbed label w becomes 1/K + noise_strength (w - 1/K); with K > 2 classes -1 swaps"
        " the top class with another",
    ),
    Column(
        "train_rows",
        INT,
        "rows",
        "weak rows that the student learned from: nested subsets; null: all",
    ),
    Column(
        "label_clip",
        REAL,
        "probability",
        "the γ of the interval [γ, 1 - γ] to which soft labels are clipped",
    ),
    never_null("trainable", TEXT, "which parameters are trained: full, last_layer or lora"),
    Column(
        "readout_block",
        INT,
        "blocks",
        "block of the strong model after which last layers read; null: the last",
    ),
    never_null("learning_rate", REAL, "peak learning rate of student and ceiling"),
    never_null("weight_decay", REAL, "decoupled weight decay of student and ceiling"),
    never_null("anchor", REAL, "λ of the student's penalty λ/2 ‖θ - θ₀‖²", "nat"),
    never_null("epochs", INT, "training epochs of student and ceiling", "epochs"),
    never_null("batch_size", INT, "examples per optimizer step of student and ceiling", "examples"),
    never_null("weak_seed", INT, "seed of the weak model"),
    never_null("seed", INT, "seed of the cell"),
    never_null(
        "control",
        TEXT,
        'the control that stands in the place of the student (docs/controls.md); "" for a student'
        " of the grid",
    ),
)
