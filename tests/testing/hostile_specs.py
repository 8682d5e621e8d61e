"""Specs that attack: bombs, absurd sizes, bytes that are no text, texts that steer a terminal.

Each has a part of the one line that refuses it. Ordinary mistakes are in ``mistakes``.
"""

import gzip

from tests.testing.mistakes import BIG, GOOD, LOSS, SOURCE

Case = tuple[str | bytes, str]
"""The text or bytes of a spec, and a part of the line that refuses it."""

RANDOM = "{init: random, architecture: llama, config: {hidden_size: 16, num_attention_heads: 2}}"
SIZES = "sizes: {ground_truth: 2, weak: 3, test: 4}"
ESC = "\\e[31m\\u202e"  # as YAML writes it in double quotes
SHOWN = r"\u001b[31m\u202e"


def good(right: str, wrong: str) -> str:
    """The spec without a mistake, with one change."""
    assert right in GOOD
    return GOOD.replace(right, wrong, 1)


def laughs(levels: int, width: int, merged: bool = False) -> str:
    """Levels of anchors, each naming the one before ``width`` times."""
    lines = ["l0: &l0 {a: 1}" if merged else "l0: &l0 [lol]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*l{level - 1}"] * width)
        lines.append(
            f"l{level}: &l{level} " + (f"{{<<: [{aliases}]}}" if merged else f"[{aliases}]")
        )
    return "\n".join(lines) + "\n"


def config(fields: str) -> str:
    """A spec whose larger model has random weights and this configuration."""
    return good(BIG, f"{{init: random, architecture: llama, config: {{{fields}}}}}")


def _bytes() -> dict[str, Case]:
    return {
        "a zero byte": (b"study: \x00", "special characters are not allowed"),
        "utf-16": (GOOD.encode("utf-16"), "byte 0 is not UTF-8, expected text"),
        "latin-1": (b"study: caf\xe9", "byte 10 is not UTF-8"),
        "half a surrogate in bytes": (b"study: \xed\xa0\x80", "byte 7 is not UTF-8"),
        "gzip": (gzip.compress(GOOD.encode()), "is not UTF-8"),
        "an image": (b"\x89PNG\r\n\x1a\n", "byte 0 is not UTF-8"),
        "a megabyte of comments": ("#\n" * (1 << 19) + "#", "expected at most 1,048,576"),
        "a megabyte of blank lines": ("\n" * (1 << 20), "given an empty file"),
        "an escape sequence": ("study: \x1b[31m", "special characters are not allowed"),
        "a byte-order mark inside": (GOOD + "\ufeffa: 1", r":15: \ufeffa: given an unknown field"),
        "a later YAML": ("%YAML 9.9\n---\n" + GOOD, "found incompatible YAML document"),
        "a tag of its own": ("%TAG ! tag:x.y,2000:\n--- !z {}\n", "could not determine"),
    }


def _bombs() -> dict[str, Case]:
    nodes = "given more than 100,000 values, expected at most 100,000 (limit spec.nodes)"
    depth = "given more than 50 levels, expected at most 50 (limit spec.depth)"
    entries = "given more than 10,000 entries, expected at most 10,000 (limit spec.list)"
    text = "characters, expected at most 10,000 (limit spec.text)"
    return {
        "billion laughs": (laughs(10, 10) + GOOD, f":6: {nodes}"),
        "laughs of merges": (laughs(12, 9, merged=True) + GOOD, nodes),
        "laughs of two": (laughs(64, 2) + GOOD, nodes),
        "laughs in a configuration": (
            good(BIG, "{init: random, architecture: llama, config: {x: *l9}}").replace(
                "study: s", laughs(10, 10) + "study: s"
            ),
            nodes,
        ),
        "one long list many times": (
            "a: &a [" + "1, " * 9_000 + "1]\nb: [" + "*a, " * 9_000 + "*a]\n",
            f":2: {nodes}",
        ),
        "a deep list": ("[" * 100_000, depth),
        "a deep list that ends": ("[" * 60 + "]" * 60, depth),
        "a deep mapping": ("{a: " * 60 + "1" + "}" * 60, depth),
        "deep dashes": ("- " * 10_000 + "a", depth),
        "deep keys": ("? " * 10_000 + "a", depth),
        "deep indentation": ("".join(f"{' ' * n}a:\n" for n in range(60)), f":50: {depth}"),
        "deep aliases": (
            "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 90)) + GOOD,
            f":49: {depth}",
        ),
        "a deep configuration": (config("rope_scaling: " + "[" * 60 + "]" * 60), f":9: {depth}"),
        "many seeds": (good(LOSS, f"seed: [{', '.join(map(str, range(20_000)))}]"), entries),
        "many lists": ("[" + "[1], " * 9_999 + "1]\n", "expected a mapping (field: value)"),
        "many values": (
            "".join(f"a{n}: [{'1, ' * 9_000}1]\n" for n in range(20)),
            f":12: {nodes}",
        ),
        "many models": (
            good(f"  big: {BIG}", "\n".join(f"  m{n}: {RANDOM}" for n in range(2_000))),
            "given 'big', expected one of small, m0, ",
        ),
        "many data sets": (
            good(
                "training:",
                "x: {" + ", ".join(f"d{n}: 1" for n in range(12_000)) + "}\ntraining:",
            ),
            entries,
        ),
        "a long name": (good("study: s", "study: " + "s" * 200_000), f":1: given 200,000 {text}"),
        "a long key": ('? "' + "k" * 20_000 + '"\n: 1', f":1: given 20,000 {text}"),
        "a long block": ("study: |\n" + "  line\n" * 10_000, f":1: given 50,000 {text}"),
        "a loop in a mapping": ("study: &s {a: *s}", "expected no loop"),
        "a loop by a merge": ("study: &s {<<: *s}", "expected no loop"),
        "a loop far below": ("a: &a [[[[{b: [*a]}]]]]", "expected no loop"),
        "an anchor twice": ("a: &a 1\nb: &a 2\n", "found duplicate anchor 'a'"),
    }


def _values() -> dict[str, Case]:
    study = "study: s"
    return {
        "an integer of 5,000 digits": (good(study, "study: " + "9" * 5_000), "digits"),
        "a hexadecimal integer": (
            good(study, "study: 0x" + "f" * 5_000),
            "expected a number below 2^128",
        ),
        "a sexagesimal integer": (
            good(study, "study: 1" + ":59" * 1_000),
            "expected a number below 2^128",
        ),
        "a sexagesimal number": (
            good("epochs: 1", "epochs: 1" + ":59" * 900 + ".0"),
            "of the type float",
        ),
        "infinity": (good("epochs: 1", "learning_rate: .inf"), "expected a finite number"),
        "no number": (good("epochs: 1", "learning_rate: .nan"), "expected a finite number"),
        "a rate that overflows": (good("epochs: 1", "learning_rate: 1e999"), "a finite number"),
        "a call": (good(study, "study: !!python/object/apply:os.system [id]"), "could not"),
        "a name of Python": (good(study, "study: !!python/name:os.system x"), "plain YAML"),
        "a tag": (good(study, "study: !mine x"), "could not determine a constructor"),
        "a set": (good(study, "study: !!set {a, b}"), "study: given"),
        "an ordered map": (good(study, "study: !!omap [a: 1]"), "study: given"),
        "bytes": (good(study, "study: !!binary aGVsbG8="), "study: given"),
        "broken bytes": (good(study, "study: !!binary a"), "failed to decode base64"),
        "a date that is none": (good(study, "study: !!timestamp x"), "of the type timestamp"),
        "a truth that is none": (good(study, "study: !!bool maybe"), "of the type bool"),
        "an empty integer": (good(study, 'study: !!int ""'), "of the type int"),
        "a number that is none": (good(study, "study: !!float abc"), "a readable value"),
        "a scalar as a mapping": (good(study, "study: !!map x"), "expected"),
        "a list as text": (good(study, "study: !!str [x]"), "expected a scalar node"),
        "a key without value": (GOOD + "? {a: b}\n: 1\n", "given the name a list or mapping"),
        "null as a key": (GOOD + "null: 1\n", "given the name null, expected text"),
        "true as a key": (GOOD + "yes: 1\n", "given the name yes, expected text"),
        "the value key": (GOOD + "=: 1\n", "given the name =, expected text"),
        "merge twice": ("<<: {a: 1}\n<<: {b: 1}\n", "given '<<' a second time"),
        "merge of a scalar": ("<<: 1\n", "expected a mapping or list of mappings"),
        "merge of scalars": ("<<: [1]\n", "expected a mapping for merging"),
        "an open quote": ('study: "s\n' + "x\n" * 1_000, "found unexpected end of stream"),
        "an unknown escape": (r'study: "\q"', "found unknown escape character"),
        "a short escape": (r'study: "\u12"', "expected escape sequence of 4"),
    }


def _texts() -> dict[str, Case]:
    return {
        "a study in red": (good("study: s", f'study: "{ESC}"'), f"study: given '{SHOWN}'"),
        "a data set in red": (good("  hh:", f'  "{ESC}":'), SHOWN),
        "a field in red": (good("study: s", f'study: s\n"{ESC}": 1'), f"{SHOWN}: given an unknown"),
        "a loss in red": (good("forward_kl]", f'"{ESC}"]'), f"given '{SHOWN}', expected one of"),
        "a model in red": (good("[[small, big]]", f'[[small, "{ESC}"]]'), f"given '{SHOWN}'"),
        "a source in red": (good(BIG, f'{{source: "../{ESC}"}}'), f"given '../{SHOWN}'"),
        "a file in red": (good(SOURCE, f'source: "../{ESC}"'), f"given '../{SHOWN}'"),
        "a key in red twice": (f'"{ESC}": 1\n"{ESC}": 2\n', f"given '{SHOWN}' a second time"),
        "a configuration in red": (config(f'"{ESC}": 1'), f"{SHOWN} is no field of llama"),
        "a column of the other kind in red": (
            good(SOURCE, f'{SOURCE}\n    columns: {{text: "{ESC}"}}'),
            f"given '{SHOWN}', expected only prompt",
        ),
        "half a surrogate pair": (good("study: s", r'study: "\ud800"'), r"given '\ud800'"),
        "half a surrogate pair in a path": (good(SOURCE, r'source: "\ud800"'), ":5: given"),
        "half a surrogate pair as a name": (good("  hh:", r'  "\ud800":'), "can be encoded"),
        "a zero byte in a path": (good(SOURCE, r'source: "a\0b"'), r":5: given 'a\u0000b'"),
        "a zero byte in the store": (good("study: s", r'store: "a\0b"'), r":1: given 'a\u0000b'"),
        "a path of 9,000 letters": (good(SOURCE, "source: " + "x" * 9_000), "data.hh.source"),
        "a model's path of 9,000 letters": (good(BIG, f"{{source: {'x' * 9_000}}}"), "big.source"),
        "a device as the store": (good("study: s", "study: s\nstore: /dev/null/x"), "store"),
        "a URI without slashes": (good("study: s", "study: s\nstore: s3:b/x"), "a URI or a folder"),
        "a URI with a line break": (good(SOURCE, 'source: "s3://b/a\\nb"'), "without spaces"),
        "a URI in red": (good(BIG, f'{{source: "s4://b/{ESC}"}}'), "models.big"),
    }


def _sizes() -> dict[str, Case]:
    name = "expected at most 128 characters"
    cells = "expected at most 200,000 (limit grid.cells)"
    numbers = ", ".join(map(str, range(1_000)))
    rates = ", ".join(f"{n}.5" for n in range(1_000))
    product = f"seed: [{numbers}]\n  learning_rate: [{rates}]"
    return {
        "a study of 205 letters": (good("study: s", "study: " + "s" * 205), name),
        "a data set of 129 letters": (good("  hh:", f"  {'h' * 129}:"), name),
        "a model of 129 letters": (good("  big:", f"  {'b' * 129}:"), name),
        "a million cells": (
            good(LOSS, product),
            f"grid: given 1,000,000 cells (learning_rate 1,000 × seed 1,000), {cells}",
        ),
        "10^12 cells": (
            good(LOSS, f"{product}\n  weak_seed: [{numbers}]\n  anchor: [{rates}]"),
            "given 1,000,000,000,000 cells (weak_seed 1,000 × learning_rate 1,000 × anchor 1,000",
        ),
        "a million cells by include": (
            good(LOSS, f"include:\n    - seed: [{numbers}]\n      learning_rate: [{rates}]"),
            ":13: grid.include[0]: given 1,000,001 cells in all (learning_rate ",
        ),
        "a chain of 200 models": (
            good("pair: [[small, big]]", f"chain: [[small{', big' * 200}]]"),
            "given 201, expected a chain of at most 100 models",
        ),
        "10^12 generated rows": (
            good("weak: 3", "weak: 1000000000000"),
            "given 1,000,000,000,006 rows in all, expected at most 1,000,000 (limit generate.rows)",
        ),
        "a seed above 2^63": (good(LOSS, f"seed: {2**63}"), "expected a number below"),
        "a seed of 200 bits": (good(LOSS, f"seed: {2**200}"), "expected a number below 2^128"),
        "10^12 epochs": (good("epochs: 1", "epochs: 1000000000000"), "of at most 100000"),
        "a tenth of an epoch": (good("epochs: 1", "epochs: 0.1"), "expected a whole number"),
    }


def _models() -> dict[str, Case]:
    lora = "expected all-linear, or a regular expression ("
    modules = "epochs: 1\n  lora: {{target_modules: '{}'}}"
    return {
        "ten million layers": (
            config("num_hidden_layers: 10000000"),
            "num_hidden_layers: given 10,000,000 blocks, expected at most 2,000 (limit model",
        ),
        "a vocabulary of 10^12": (config("vocab_size: 1000000000000"), "(limit model.vocabulary)"),
        "a width of 10^12": (config("hidden_size: 1000000000000"), "(limit model.width)"),
        "a million heads": (
            config("hidden_size: 1000000, num_attention_heads: 1000000"),
            "(limit model.heads)",
        ),
        "10^15 parameters": (
            config("num_hidden_layers: 2000, hidden_size: 200000, num_attention_heads: 1000"),
            "(limit model.parameters)",
        ),
        "a width of 0": (config("hidden_size: 0"), "expected a whole number above 0"),
        "a width as text": (config("hidden_size: wide"), "expected a whole number above 0"),
        "a width as a list": (config("hidden_size: [1, 2]"), "expected a whole number above 0"),
        "half a head": (config("num_attention_heads: 0.5"), "expected a whole number above 0"),
        "an open group": (good("epochs: 1", modules.format("(")), f"{lora}missing )"),
        "400 open groups": (good("epochs: 1", modules.format("(" * 400)), lora),
        "a repeat of nothing": (good("epochs: 1", modules.format("*")), f"{lora}nothing to repeat"),
        "10^12 repeats": (good("epochs: 1", modules.format("a{1000000000000}")), lora),
        "a long expression": (
            good("epochs: 1", modules.format("a" * 2_000)),
            "given 2,000 characters, expected at most 1,000 (limit pattern.length)",
        ),
    }


HOSTILE: dict[str, Case] = _bytes() | _bombs() | _values() | _texts() | _sizes() | _models()
