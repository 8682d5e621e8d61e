"""Mistakes in how a spec fits together, and in its form as YAML."""

from tests.testing.mistakes import BIG, GOOD, LOSS, SOURCE

# (text in GOOD, its replacement, the message)
MISTAKES_OF_FORM: dict[str, tuple[str, str, str]] = {
    # data
    "generator": (
        SOURCE,
        "source: generate:agrement",
        "5: data.hh.source: given 'generate:agrement', expected generate:agreement; "
        "did you mean 'generate:agreement'?",
    ),
    "scheme": (
        SOURCE,
        "source: hff:org/name",
        "5: data.hh.source: given 'hff:org/name', expected hf:ORG/NAME or hf:ORG/NAME/FOLDER, "
        "generate:agreement, a URI or an existing file or folder; did you mean 'hf:'?",
    ),
    "hub name": (
        SOURCE,
        "source: hf:a//c",
        "5: data.hh.source: given 'hf:a//c', expected hf:ORG/NAME or hf:ORG/NAME/FOLDER",
    ),
    "data file": (
        SOURCE,
        "source: ../wek.jsonl",
        "5: data.hh.source: given '../wek.jsonl', expected an existing file or folder "
        "(looked for <HERE>/wek.jsonl); did you mean 'weak.jsonl'?",
    ),
    "data file in a list": (
        SOURCE,
        "splits:\n      ground_truth: ../truth.jsonl\n      weak:\n        - ../weak.jsonl\n"
        "        - ../no.txt\n      test: s3://bucket/test",
        "9: data.hh.splits.weak[1]: given '../no.txt', expected an existing file or folder "
        "(looked for <HERE>/no.txt)",
    ),
    "one file in two parts": (
        SOURCE,
        "splits:\n      ground_truth: ../truth.jsonl\n      weak: ../weak.jsonl\n"
        "      test: ../weak.jsonl",
        "8: data.hh.splits.test: given '<HERE>/weak.jsonl', "
        "expected a file of its own (weak uses this one)",
    ),
    "environment": (
        SOURCE,
        "source: ${W2S_NOWHERE}/x",
        "5: data.hh.source: given '${W2S_NOWHERE}/x', "
        "expected the environment variable W2S_NOWHERE to be set",
    ),
    "splits and source": (
        SOURCE,
        "splits: {ground_truth: ../truth.jsonl, weak: ../weak.jsonl, test: s3://b/t}\n"
        "    source: hf:org/name",
        "6: data.hh.source: given both, expected exactly one of splits and source",
    ),
    "neither splits nor source": (
        SOURCE,
        "seed: 1",
        "3: data.hh: given neither, expected exactly one of splits and source",
    ),
    "sizes": (
        "sizes: {ground_truth: 2, weak: 3, test: 4}",
        "seed: 0",
        "3: data.hh.sizes: given nothing, expected ground_truth, weak and test (numbers of rows) "
        "with source",
    ),
    "one size": (
        ", test: 4",
        "",
        """6: data.hh.sizes: given {"ground_truth": 2, "weak": 3}, expected ground_truth, weak """
        "and test (numbers of rows) with source",
    ),
    "hub field without hub": (
        SOURCE,
        f"{SOURCE}\n    revision: main",
        "6: data.hh.revision: given 'main', expected no revision without a Hub source (hf:…)",
    ),
    "column of the other kind": (
        SOURCE,
        f"{SOURCE}\n    columns: {{text: t}}",
        "6: data.hh.columns.text: given 't', "
        "expected only prompt, chosen, rejected, group with kind: preference",
    ),
    # models
    "model folder": (
        BIG,
        "{source: ../bigg}",
        "9: models.big.source: given '../bigg', expected an existing model folder or .gguf file "
        "(looked for <HERE>/bigg); did you mean 'big'?",
    ),
    "model file": (
        BIG,
        "{source: ../weak.jsonl}",
        "9: models.big.source: given '../weak.jsonl', expected an existing model folder or .gguf "
        "file (looked for <HERE>/weak.jsonl)",
    ),
    "source and init": (
        BIG,
        '{source: "pypi:a", init: random}',
        "9: models.big.init: given both, expected exactly one of source and init",
    ),
    "a key after the same key merged in": (
        BIG,
        "\n    <<: {source: 'pypi:a', num_layers: 1}\n    num_layers: 0",
        "11: models.big.num_layers: given 0, expected a number of at least 1",
    ),
    "no architecture": (
        BIG,
        "{init: random}",
        "9: models.big.architecture: given nothing, "
        "expected gpt2, gpt_neox, llama or qwen2 with init: random",
    ),
    "random model's field": (
        BIG,
        '{source: "pypi:a", config: {hidden_size: 8}}',
        """9: models.big.config: given {"hidden_size": 8}, expected no config without """
        "init: random",
    ),
    # cells
    "cell of the product again": (
        LOSS,
        "include:\n    - {seed: 1}\n    - {seed: 0}",
        "14: grid: given the same cell twice, in the product (data: hh, pair: (small, big)) "
        "and in include[1] (data: hh, pair: (small, big)), expected it once",
    ),
    "null and its value": (
        LOSS,
        "learning_rate: [null, 1e-5]",
        "10: grid: given the same cell twice, in the product (data: hh, pair: (small, big), "
        "learning_rate: null) and in the product (data: hh, pair: (small, big), "
        "learning_rate: 1e-05), expected it once",
    ),
    "exclude without effect": (
        LOSS,
        "exclude:\n    - seed: 3",
        "13: grid.exclude[0]: given an entry that matches no cell, expected one that removes some",
    ),
    "exclude of everything": (
        LOSS,
        "exclude: {seed: 0}",
        "10: grid: given a grid without cells, expected at least one",
    ),
    "empty exclude": (
        LOSS,
        "exclude: {}",
        "12: grid.exclude: given {}, expected at least one axis",
    ),
    # execution
    "more GPUs than a process drives": (
        "  epochs: 1",
        "  epochs: 1\nexecution: {gpus_per_worker: 1.5}",
        "15: execution.gpus_per_worker: given 1.5, expected 0, 1 or a fraction of 1",
    ),
    "two GPUs a worker": (
        "  epochs: 1",
        "  epochs: 1\nexecution: {gpus_per_worker: 2, workers: 4}",
        "15: execution.gpus_per_worker: given 2, expected 0 or 1 with workers: 4",
    ),
    "workers that share a GPU": (
        "  epochs: 1",
        "  epochs: 1\nexecution:\n  workers: 2\n  gpus_per_worker: 0.5",
        "17: execution.gpus_per_worker: given 0.5, expected 0 or 1 with workers: 2",
    ),
    "offload path without offloading": (
        "  epochs: 1",
        "  epochs: 1\nexecution: {offload_path: /nvme}",
        "15: execution.offload_path: given '/nvme', expected null without offload: optimizer or "
        "parameters",
    ),
    "offload path with a stage that ignores it": (
        "  epochs: 1",
        "  epochs: 1\nexecution:\n  offload_path: /nvme\n  offload: optimizer\n  zero_stage: 2",
        "18: execution.zero_stage: given 2, expected 3 or null with an offload_path",
    ),
    "fewer workers than min_workers": (
        "  epochs: 1",
        "  epochs: 1\nexecution:\n  workers: 2\n  min_workers: 3",
        "17: execution.min_workers: given 3, expected at most 2 with workers: 2",
    ),
    "more workers than max_workers": (
        "  epochs: 1",
        "  epochs: 1\nexecution:\n  workers: 8\n  max_workers: 4",
        "16: execution.workers: given 8, expected at most 4 with max_workers: 4",
    ),
    # YAML itself
    "study as number": (
        "study: s",
        "study: 2024",
        "1: study: given 2024, expected text (write it in quotes)",
    ),
    "study as date": (
        "study: s",
        "study: 2024-01-31",
        "1: study: given 2024-01-31, expected text (write it in quotes)",
    ),
    "study with a slash": (
        "study: s",
        "study: a/b",
        "1: study: given 'a/b', expected letters, digits, '.', '_' and '-', "
        "a letter or digit first",
    ),
    "name as number": (
        "  hh:",
        "  7:",
        "3: given the name 7, expected text (write it in quotes)",
    ),
    "key twice": (
        "grid:\n",
        "grid:\n  loss: forward_ce\n",
        "13: given 'loss' a second time (first on line 11)",
    ),
    "impossible date": (
        "study: s",
        "study: 2024-13-45",
        "1: given '2024-13-45', expected a readable value (month must be in 1..12)",
    ),
    "alias": ("study: s", "study: *s", "1: not YAML: found undefined alias 's'"),
    "loop": (
        "study: s",
        "study: &s [*s]",
        "1: given an alias of a value that contains it, expected no loop",
    ),
    "tab": (
        "  epochs",
        "\tepochs",
        "14: not YAML: while scanning for the next token, "
        "found character '\\t' that cannot start any token",
    ),
    "open bracket": (
        "[[small, big]]",
        "[[small, big]",
        "12: not YAML: while parsing a flow sequence (which began on line 11), "
        "expected ',' or ']', but got '<scalar>'",
    ),
    "second document": (
        "training:",
        "---\ntraining:",
        "13: not YAML: expected a single document in the stream (which began on line 1), "
        "but found another document",
    ),
    "control character": ("epochs: 1", "\x01", "14: not YAML: special characters are not allowed"),
    "empty file": (GOOD, "", "1: given an empty file, expected a spec (study, data, …)"),
    "only comments": (GOOD, "# x\n", "1: given an empty file, expected a spec (study, data, …)"),
    "a list": (GOOD, "- study", """1: given ["study"], expected a mapping (field: value)"""),
    "text": (GOOD, "study", "1: given 'study', expected a mapping (field: value)"),
}
