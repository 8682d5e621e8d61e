"""The rows of a study as tokens, read once before anything is spent.

What would stop a step, or leave it nothing to learn from, shows in seconds when the rows are
tokenised: texts without tokens, rows that a chat template refuses, pairs that are all the same
after truncation. The counts are reported; steps count again, and their records hold what was used.
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from hashlib import sha256
from itertools import repeat

import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerFast

from w2s_ray.data.locating import place_of
from w2s_ray.data.prepare import SPLITS
from w2s_ray.data.rendering import Rendering, RowError, check_chats, check_rendering
from w2s_ray.data.test_sets import as_data
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.errors import InputError, at
from w2s_ray.models.tokenizer import tokenizer_to_check
from w2s_ray.plan.step import Step
from w2s_ray.spec.schema import DataSpec, Spec
from w2s_ray.steps.prepare import Rows
from w2s_ray.store.artifacts import Store

CHARACTERS = 20_000_000
"""Most characters of a split that are tokenised here: half a minute of one core."""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How one model's tokenizer reads rows.

    Attributes:
        rows: that were read, of ``of_rows``.
        tokens: of all of them, a prompt of several answers counted once.
        truncated: rows that lost their beginning.
        identical: pairs whose answers are the same tokens.
    """

    rows: int = 0
    of_rows: int = 0
    tokens: int = 0
    truncated: int = 0
    identical: int = 0

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(*map(operator.add, astuple(self), astuple(other)))

    @classmethod
    def of(cls, tokens: Tokens) -> "TokenCounts":
        """The counts of rows that were tokenised."""
        return cls(
            rows=len(tokens.row_ids),
            tokens=len(tokens.ids),
            truncated=tokens.truncated,
            identical=int(tokens.identical.sum()),
        )


Report = Callable[[str, str, Mapping[str, int]], None]


def count_tokens(spec: Spec, todo: Mapping[str, Step], store: Store, report: Report) -> None:
    """Tokenises the rows that the steps of ``todo`` will read, for each model that reads them.

    Args:
        report: takes the names of a data set and of a model, and the counts of its splits together.

    Raises:
        InputError: a tokenizer lacks what the spec asks for, a row cannot be read, or no pair of a
            split that is trained on has answers that differ.
    """
    known: dict[tuple[str, str, str], TokenCounts] = {}  # many models share a tokenizer
    for (model, data), steps in _readers(spec, todo).items():
        with at("models", model):
            tokenizer = tokenizer_to_check(spec.models[model])
            reader = _Reader(spec, model, tokenizer)
        total = TokenCounts()
        rows = Rows(store.artifact(_rows_of(steps[0])))
        trained = _trained_splits(todo, steps[0])
        scored = {split for step in steps for split in step.kind.scored}
        for split in (split for split in SPLITS if split in trained | scored):
            read = (reader.digest, data, split)
            if read not in known:
                assert steps[0].data is not None
                known[read] = reader.read(rows, split, steps[0].data)
            counts = known[read]
            if split in trained:
                _check_differ(spec, counts, f"{data}: split {split}: model {model!r}")
            total += counts
        report(data, model, asdict(total))


def _readers(spec: Spec, todo: Mapping[str, Step]) -> Mapping[tuple[str, str], list[Step]]:
    """The steps that tokenise, by the names of model and data set."""
    models = {model: name for name, model in spec.models.items()}
    data = {id(of): name for name, of in spec.data.items()}
    tests = [
        (as_data(of, test), f"{name}-{test}") for name, of in spec.data.items() for test in of.tests
    ]
    readers: defaultdict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in todo.values():
        if step.backbone is not None and _rows_of(step):
            if id(step.data) not in data:  # one object for all steps of a test set
                data[id(step.data)] = next(name for test, name in tests if test == step.data)
            readers[models[step.backbone], data[id(step.data)]].append(step)
    return readers


def _rows_of(step: Step) -> str:
    """Key of the step whose rows it reads: a further test set, or the data set; empty if none."""
    return step.inputs.get("test_set") or step.inputs.get("prepare", "")


def _trained_splits(todo: Mapping[str, Step], reader: Step) -> set[str]:
    """The splits on which the model of ``reader`` is trained, on stored features too."""
    return {
        step.kind.trained_on
        for step in todo.values()
        if step.kind.trained_on and step.model == reader.model and step.data is reader.data
    }


class _Reader:
    """Tokenises rows as the steps of one model will.

    Attributes:
        digest: equal for tokenizers that read alike.

    Raises:
        InputError: the tokenizer has no chat template or BOS token, and the spec asks for one.
    """

    def __init__(self, spec: Spec, model: str, tokenizer: PreTrainedTokenizerFast) -> None:
        training = spec.training
        self._model, self._tokenizer = model, tokenizer
        self._rendering = Rendering(training.render, training.bos)
        self._length = training.max_length_tokens
        check_rendering(tokenizer, self._rendering, f"of model {model!r}")
        parts = (tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.bos_token)
        self.digest = sha256(repr(parts).encode()).hexdigest()

    def read(self, rows: Rows, split: str, data: DataSpec) -> TokenCounts:
        """The counts of a split, of its first ``CHARACTERS`` characters.

        Raises:
            InputError: a row cannot be read.
        """
        counts, characters = TokenCounts(), 0
        for table in rows.shards(split, ROWS_AT_ONCE):
            if characters > CHARACTERS:
                break
            characters += _characters(table)
            if self._rendering.render == "chat_template":
                check_chats(table, self._tokenizer, f"chat template of model {self._model!r}")
            try:
                counts += TokenCounts.of(self._encoded(table))
            except RowError as error:
                raise self._refusal(table, error, split, data) from error
        return replace(counts, of_rows=rows.count(split))

    def _encoded(self, table: pa.Table) -> Tokens:
        return encode(table, self._tokenizer, self._length, self._rendering)

    def _refusal(self, table: pa.Table, error: RowError, split: str, data: DataSpec) -> InputError:
        """The mistake with its place in the source, and how many more there are near it."""
        others = sum(map(self._is_refused, range(table.num_rows), repeat(table))) - 1
        (row,) = table.filter(pc.field("row_id") == error.row_id).to_pylist()
        place = place_of(data, row["prompt"], row["answers"]) or f"row {error.row_id} of {split}"
        text = repr(row["prompt"] + row["answers"][0])
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        more = f" ({others:,} more among {table.num_rows:,} rows)" if others else ""
        return InputError(
            f"{place}: model {self._model!r}: {error.reason}{more}: given {shown}, expected a text "
            "that its tokenizer can read; remove such rows, or choose another tokenizer"
        )

    def _is_refused(self, row: int, table: pa.Table) -> bool:
        try:
            self._encoded(table.slice(row, 1))
        except RowError:
            return True
        return False


def _characters(table: pa.Table) -> int:
    answers = pc.list_flatten(table["answers"])
    return sum(pc.sum(pc.utf8_length(texts)).as_py() or 0 for texts in (table["prompt"], answers))


def _check_differ(spec: Spec, counts: TokenCounts, where: str) -> None:
    """Refuses a split to be trained on in which no pair has answers that differ."""
    if counts.identical == counts.rows == counts.of_rows:
        raise InputError(
            f"training.max_length_tokens: given {spec.training.max_length_tokens}, expected more: "
            f"{where}: in all {counts.rows:,} pairs both answers are the same tokens after "
            "truncation, so there is nothing to learn",
            ("training", "max_length_tokens"),
        )
