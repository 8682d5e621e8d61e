"""The inputs of a study: data sets and models, where they come from and which parts are used."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from w2s_ray.foreign.limits import limit
from w2s_ray.spec.fields import (
    Count,
    DataFile,
    DataSource,
    Location,
    Mistake,
    Model,
    ModelSource,
    Name,
    Seed,
    Text,
    Tokenizer,
    as_list,
    as_names,
    as_numbers,
    mistake,
    refuse,
)


def _one_of(model: Model, first: str, second: str) -> list[Mistake]:
    """A mistake unless exactly one of two fields is given."""
    present = [name for name in (first, second) if getattr(model, name) is not None]
    if len(present) == 1:
        return []
    given = "both" if present else "neither"
    expected = mistake(f"exactly one of {first} and {second}", given=given)
    return [(tuple(present[1:]), None, expected)]


def without(model: Model, expected: str, *names: str) -> list[Mistake]:
    """A mistake for each field of ``names`` that is set although it does not apply.

    Args:
        expected: the message, with ``{}`` for the field's name.
    """
    defaults = type(model).model_fields
    given = [name for name in names if getattr(model, name) != defaults[name].default]
    return [((n,), getattr(model, n), mistake(expected.format(n))) for n in given]


class Splits(Model):
    """Three given splits, each a file, folder, URI or ``hf:ORG/NAME``, or a list; none shared."""

    ground_truth: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1,
        description="files to train the weak models and the ceilings on",
        examples=["gt.jsonl.gz"],
    )
    weak: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1,
        description="files for the weak models to label and the students to train on",
        examples=[["weak-1.parquet", "weak-2.parquet"]],
    )
    test: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1, description="files to score every model on", examples=["test.jsonl"]
    )

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        wrong: list[Mistake] = []
        used_by: dict[str, str] = {}
        for split in type(self).model_fields:
            for position, source in enumerate(getattr(self, split)):
                if used_by.setdefault(source, split) != split:
                    expected = mistake(f"a file of its own ({used_by[source]} uses this one)")
                    wrong.append(((split, position), source, expected))
        refuse(wrong)
        return self


class Sizes(Model):
    """Rows of each split: exact with ``source``, upper limits with ``splits``."""

    ground_truth: Count | None = Field(
        None,
        description="a number of rows, at least 1",
        examples=[4000],
        json_schema_extra={"unit": "rows"},
    )
    weak: Count | None = Field(
        None,
        description="a number of rows, at least 1",
        examples=[4000],
        json_schema_extra={"unit": "rows"},
    )
    test: Count | None = Field(
        None,
        description="a number of rows, at least 1",
        examples=[4000],
        json_schema_extra={"unit": "rows"},
    )


class Columns(Model):
    """Names of columns in the files, where they differ from the names of these fields."""

    prompt: Text | None = Field(
        None, description="name of the column with the prompts", examples=["question"]
    )
    chosen: Text | None = Field(
        None,
        description="name of the column with the preferred answers",
        examples=["response_good"],
    )
    rejected: Text | None = Field(
        None, description="name of the column with the rejected answers", examples=["response_bad"]
    )
    text: Text | None = Field(
        None, description="name of the column with the texts to classify", examples=["review"]
    )
    label: Text | None = Field(
        None, description="name of the column with the labels", examples=["stars"]
    )
    group: Text | None = Field(
        None,
        description="name of a column: rows with the same value are kept in one split",
        examples=["conversation_id"],
    )


def source_alone(value: Any) -> Any:
    """Read the source of a further test set as a mapping that gives nothing else."""
    if not isinstance(value, str | list | tuple | dict | TestSet):
        raise mistake("a file, folder, URI or hf:ORG/NAME, or a mapping with it as source")
    return {"source": value} if isinstance(value, str | list | tuple) else value


class TestSet(Model):
    """A further test set: where its rows are, and what is read otherwise than in the data set."""

    __test__ = False  # not a test, whatever pytest makes of the name

    source: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1,
        description="a file, folder, URI or hf:ORG/NAME, or a list",
        examples=["helpful.jsonl.gz"],
    )
    rows: Count | None = Field(
        None,
        description="at most so many rows; null: all",
        examples=[1000],
        json_schema_extra={"unit": "rows"},
    )
    format: Literal["auto", "trl", "hh"] | None = Field(
        None, description="auto, trl or hh; null: as the data set", examples=["hh"]
    )
    columns: Columns = Field(
        Columns(),
        description="a mapping from our column names to those in the files; one that is not given "
        "is as in the data set, null is our own name",
        examples=[{"chosen": "better"}],
    )
    revision: Text | None = Field(
        None,
        description="a Hub commit, tag or branch; null: the data set's, if it has this source too",
        examples=["main"],
    )
    subset: Text | None = Field(
        None,
        description="a Hub configuration name; null: the data set's, if it has this source too",
        examples=["default"],
    )
    split: Text | None = Field(
        None, description="the Hub split to read; null: as the data set", examples=["test"]
    )

    @property
    def locations(self) -> tuple[str, ...]:
        """Every file, folder, URI or Hub name that it reads."""
        return self.source

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(location.startswith("hf:") for location in self.source):
            names = ("revision", "subset", "split")
            refuse(without(self, "no {} without a Hub source (hf:…)", *names))
        return self


_COLUMNS_OF = {
    "preference": ("prompt", "chosen", "rejected", "group"),
    "classification": ("text", "label", "group"),
}


class DataSpec(Model):
    """One data set: given ``splits``, or one ``source`` that is split by ``sizes``."""

    kind: Literal["preference", "classification"] = Field(
        description="preference (pairs) or classification (one text, K classes)",
        examples=["preference"],
    )
    splits: Splits | None = Field(
        None,
        description="the files of ground_truth, weak and test",
        examples=[{"ground_truth": "gt.jsonl", "weak": "weak.jsonl", "test": "test.jsonl"}],
    )
    source: DataSource | None = Field(
        None,
        description="a file, folder, URI, hf:ORG/NAME or generate:agreement",
        examples=["hf:Anthropic/hh-rlhf"],
    )
    sizes: Sizes = Field(
        Sizes(),
        description="numbers of rows of ground_truth, weak and test",
        examples=[{"ground_truth": 4000, "weak": 4000, "test": 2000}],
        json_schema_extra={"unit": "rows"},
    )
    seed: Seed = Field(
        0,
        description="seed of splits, subsets, generated rows and the order of A and B",
        examples=[7],
        json_schema_extra={"unit": ""},
    )
    format: Literal["auto", "trl", "hh"] = Field(
        "auto",
        description="auto (decided per row), trl (prompt/chosen/rejected) or hh",
        examples=["hh"],
    )
    columns: Columns = Field(
        Columns(),
        description="a mapping from our column names to those in the files",
        examples=[{"chosen": "response_good", "rejected": "response_bad"}],
    )
    no_label: Annotated[tuple[str, ...] | None, BeforeValidator(as_names)] = Field(
        None,
        description='a list of labels that mean "no label", such as -1 or "" (an empty cell); '
        "[]: none; null: decided by the labels, and refused where they do not decide",
        examples=[["-1", "unknown"]],
    )
    revision: Text | None = Field(
        None, description="a Hub commit, tag or branch", examples=["main"]
    )
    subset: Text | None = Field(None, description="a Hub configuration name", examples=["default"])
    split: Text = Field("train", description="the Hub split to read", examples=["train"])
    tests: dict[Name, Annotated[TestSet, BeforeValidator(source_alone)]] = Field(
        {},
        description="further test sets by name, each a source or a mapping; every model of the "
        "data set is scored on all of them",
        examples=[{"helpful": "helpful.jsonl.gz"}],
    )

    def __hash__(self) -> int:
        """By value, as the other models of a spec, without ``tests``, which has no hash."""
        return hash((self.kind, self.splits, self.source, self.sizes, self.seed, self.split))

    @property
    def locations(self) -> tuple[str, ...]:
        """Every file, folder, URI, Hub name or generator that this data set reads."""
        if self.splits is None:
            return (self.source or "",)
        return self.splits.ground_truth + self.splits.weak + self.splits.test

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = _one_of(self, "splits", "source")
        sizes = self.sizes
        if not wrong and self.source and None in (sizes.ground_truth, sizes.weak, sizes.test):
            given = sizes.model_dump(exclude_none=True)
            expected = "ground_truth, weak and test (numbers of rows) with source"
            error = mistake(expected, given="" if given else "nothing")
            wrong.append((("sizes",), given, error))
        wrong += self._too_many_generated()
        if self.kind == "preference":
            wrong += without(self, "no {} with kind: preference", "no_label")
        if self.kind == "classification":
            wrong += without(self, "no {} with kind: classification", "format")
            if (self.source or "").startswith("generate:"):
                expected = "a generator of classification data (there is none)"
                wrong.append((("source",), self.source, mistake(expected)))
        if not any(location.startswith("hf:") for location in self.locations):
            names = ("revision", "subset", "split")
            wrong += without(self, "no {} without a Hub source (hf:…)", *names)
        wrong += self._unknown_columns(("columns",), self.columns)
        for name, test in self.tests.items():
            location: Location = ("tests", name)
            wrong += self._unknown_columns((*location, "columns"), test.columns)
            if self.kind == "classification" and test.format is not None:
                error = mistake("no format with kind: classification")
                wrong.append(((*location, "format"), test.format, error))
        refuse(wrong)
        return self

    def _too_many_generated(self) -> list[Mistake]:
        """A mistake where a generator is asked for more rows than the limit."""
        name, rows = "generate.rows", sum(n or 0 for n in self.sizes.model_dump().values())
        if not (self.source or "").startswith("generate:") or rows <= limit(name):
            return []
        error = mistake(f"at most {limit(name):,} (limit {name})", given=f"{rows:,} rows in all")
        return [(("sizes",), None, error)]

    def _unknown_columns(self, location: Location, columns: Columns) -> list[Mistake]:
        """A mistake for each column that the kind does not have."""
        allowed = _COLUMNS_OF[self.kind]
        expected = f"only {', '.join(allowed)} with kind: {self.kind}"
        return [
            ((*location, name), column, mistake(expected))
            for name, column in columns.model_dump(exclude_none=True).items()
            if name not in allowed
        ]


class ModelSpec(Model):
    """One backbone: pretrained from ``source``, or untrained with ``init: random``."""

    source: ModelSource | None = Field(
        None,
        description="pypi:PACKAGE, hf:ORG/NAME, a folder or a .gguf file",
        examples=["hf:Qwen/Qwen2.5-0.5B"],
    )
    revision: Text | None = Field(
        None, description="a Hub commit, tag or branch", examples=["main"]
    )
    init: Literal["random"] | None = Field(
        None, description="random (no pretrained weights)", examples=["random"]
    )
    architecture: Literal["gpt2", "gpt_neox", "llama", "qwen2"] | None = Field(
        None, description="gpt2, gpt_neox, llama or qwen2", examples=["llama"]
    )
    config: Annotated[dict[str, JsonValue], BeforeValidator(as_numbers)] = Field(
        {},
        description="a mapping with the architecture's own configuration fields",
        examples=[{"hidden_size": 64, "num_hidden_layers": 2}],
    )
    tokenizer: Tokenizer = Field(
        "bytes",
        description="with init: random, bytes or the source of a tokenizer (as for source); "
        "a model with a source has its own",
        examples=["hf:gpt2"],
    )
    init_seed: Seed = Field(
        0, description="seed of the random weights", examples=[1], json_schema_extra={"unit": ""}
    )
    num_layers: Count | None = Field(
        None,
        description="how many of the first blocks to keep; null: all",
        examples=[2],
        json_schema_extra={"unit": "blocks"},
    )

    def __hash__(self) -> int:
        """By value, as the other models of a spec, without ``config``, which has no hash."""
        own = (self.source, self.revision, self.init, self.architecture, self.tokenizer)
        return hash((*own, self.init_seed, self.num_layers))

    def read_after(self, block: int | None) -> "ModelSpec":
        """The model cut after the block at which its states are read; None: the model itself.

        Its final norm stays, so the last block is no special case, and the states of two blocks are
        of one scale; they are standardised for heads in any case.
        """
        return self if block is None else self.model_copy(update={"num_layers": block})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = _one_of(self, "source", "init")
        if not wrong and self.init is None:
            names = ("architecture", "config", "tokenizer", "init_seed")
            wrong += without(self, "no {} without init: random", *names)
        elif not wrong and self.architecture is None:
            expected = "gpt2, gpt_neox, llama or qwen2 with init: random"
            wrong.append((("architecture",), None, mistake(expected, given="nothing")))
        if not (self.source or "").startswith("hf:"):
            wrong += without(self, "no {} without a Hub source (hf:…)", "revision")
        refuse(wrong)
        return self
