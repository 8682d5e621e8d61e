"""Every limit on what comes from outside, as one table; ``docs/limits.md`` is made from it.

A limit is a bound on honest input that protects memory and time, not a matter of style: each is
far above what studies use. What exceeds one is refused in one line that names the limit.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Limit(NamedTuple):
    """A bound on one property of foreign input.

    Attributes:
        name: ``subject.property``; the code asks for it by this name.
        value: the largest value that is accepted.
        unit: of the value; "" for a plain number.
        about: one sentence for the page of limits: what is bounded, and why there.
    """

    name: str
    value: int
    unit: str
    about: str


_ROWS: tuple[Limit, ...] = (
    Limit("spec.bytes", 1 << 20, "bytes", "A spec; those that ship have less than 4,000."),
    Limit("spec.nodes", 100_000, "values", "Values of a spec, each alias and merge written out."),
    Limit("spec.depth", 50, "levels", "Lists and mappings of a spec inside one another."),
    Limit("spec.list", 10_000, "entries", "Entries of one list or mapping of a spec."),
    Limit("spec.text", 10_000, "characters", "One value of a spec."),
    Limit("spec.mistakes", 100, "lines", "Mistakes of one spec that are shown; more are counted."),
    Limit("spec.name", 128, "characters", "Name of a study, data set, test set or model."),
    Limit("grid.cells", 200_000, "cells", "Cells of the grid and of each include, before exclude."),
    Limit("grid.chain", 100, "models", "Models of one chain."),
    Limit("generate.rows", 1_000_000, "rows", "Generated rows of all splits of one data set."),
    Limit("pattern.length", 1_000, "characters", "A regular expression of a spec."),
    Limit("pattern.seconds", 5, "seconds", "Time in which it is matched with a model's modules."),
    Limit("model.blocks", 2_000, "blocks", "Blocks of a model (num_hidden_layers)."),
    Limit("model.width", 1 << 20, "numbers", "Hidden, inner and head width of a model."),
    Limit("model.heads", 100_000, "heads", "Attention heads of a block."),
    Limit("model.vocabulary", 1 << 24, "ids", "Vocabulary of a model."),
    Limit("model.positions", 10**10, "tokens", "Longest input of a model."),
    Limit("model.parameters", 10**13, "parameters", "Parameters of a model, by its configuration."),
    Limit("training.epochs", 100_000, "epochs", "Epochs of a training, whose steps are listed."),
    Limit(
        "config.bytes",
        16 << 20,
        "bytes",
        "A configuration of a model (config.json, adapter_config.json); most have a kilobyte.",
    ),
    Limit(
        "index.bytes",
        64 << 20,
        "bytes",
        "An index of files of weights; that of a thousand blocks has two megabytes.",
    ),
    Limit(
        "tokenizer.bytes",
        128 << 20,
        "bytes",
        "A file of a tokenizer; one of 260,000 words has 34 megabytes.",
    ),
    Limit("template.characters", 1 << 20, "characters", "A chat template; long ones have 20,000."),
    Limit(
        "template.seconds",
        10,
        "seconds",
        "Time in which a chat template renders a thousand rows; a tenth of a second is usual.",
    ),
    Limit("template.memory", 3 << 29, "bytes", "Memory of the process that tries a template."),
    Limit("safetensors.header", 32 << 20, "bytes", "The header of a safetensors file."),
    Limit("gguf.fields", 100_000, "fields", "Metadata of a GGUF file."),
    Limit("gguf.tensors", 1_000_000, "tensors", "Tensors of a GGUF file."),
    Limit("gguf.dimensions", 8, "dimensions", "Dimensions of a tensor in a GGUF file."),
    Limit("gguf.list", 1 << 22, "entries", "A list in the metadata of a GGUF file."),
    Limit("gguf.text", 16 << 20, "bytes", "A text in the header of a GGUF file."),
    Limit("json.depth", 100, "levels", "Lists and objects of a JSON text inside one another."),
    Limit(
        "row.bytes",
        16 << 20,
        "bytes",
        "A line or row of a data file, of any format; files themselves may have any size.",
    ),
    Limit(
        "text.characters",
        4_000_000,
        "characters",
        "A text, prompt or answer: a million tokens, more than any model reads.",
    ),
    Limit(
        "label.characters",
        1_000,
        "characters",
        "A class name; each is kept, shown and written into tables.",
    ),
    Limit("data.columns", 10_000, "columns", "Columns of a row; each name is compared with ours."),
    Limit("column_name.characters", 1_000, "characters", "The name of a column in a data file."),
    Limit(
        "blank.lines",
        1_000_000,
        "lines",
        "Blank lines in succession; so many come from a file that was allocated and not written.",
    ),
    Limit(
        "blank.bytes",
        64 << 20,
        "bytes",
        "White space in succession in an array of JSON, as above.",
    ),
    Limit(
        "unpacked.ratio",
        200,
        "",
        "Bytes unpacked for each byte of a compressed or columnar file; text has 3 to 20.",
    ),
    Limit(
        "unpacked.bytes",
        64 << 20,
        "bytes",
        "What a compressed or columnar file may give whatever its ratio, since small ones repeat.",
    ),
    Limit(
        "data.notes",
        1_000,
        "notes",
        "Notes on a data set, each with its count of rows; rows with further ones are counted "
        "together.",
    ),
    Limit(
        "literal.characters",
        1_000_000,
        "characters",
        "Messages written as text as Python prints them; its parser needs 200 bytes for each.",
    ),
    Limit("data.files", 100_000, "files", "Files and folders below a folder of data."),
)

LIMITS: Mapping[str, Limit] = MappingProxyType({row.name: row for row in _ROWS})
"""Every limit by its name, in the order of the page."""


def limit(name: str) -> int:
    """The value of a limit.

    Raises:
        KeyError: there is no such limit.
    """
    return LIMITS[name].value


def exceeded(name: str, given: int | str = "") -> str:
    """``given …, expected at most …``, the end of the line that refuses something.

    Args:
        name: of the limit.
        given: how much there was, where that is known; a text is shown as it is.
    """
    row = LIMITS[name]
    unit = f" {row.unit}" if row.unit else ""
    most = f"{row.value:,}"
    amount = f"{given:,}{unit}" if isinstance(given, int) else given or f"more than {most}{unit}"
    return f"given {amount}, expected at most {most} (limit {name})"
