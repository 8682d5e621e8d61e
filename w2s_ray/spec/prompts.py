"""Prompts whose answers a rule or the researcher's own Python can check."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from w2s_ray.foreign.limits import limit
from w2s_ray.spec.fields import (
    Count,
    Mistake,
    Model,
    Positive,
    PromptSource,
    Seed,
    Text,
    as_list,
    distinct,
    mistake,
    refuse,
)

SPLITS = ("align", "train", "test", "transfer")
"""The splits of prompts, in the order of their tables."""
TIMEOUT_SECONDS = 1.0
GENERATED = "generate:"


class PromptSizes(Model):
    """Prompts of each split: exact where we split, upper limits where the file does."""

    align: Count | None = Field(
        None,
        description="prompts whose judged answers align the weak model, at least 1",
        examples=[400],
        json_schema_extra={"unit": "prompts"},
    )
    train: Count | None = Field(
        None,
        description="prompts whose answers the strong model learns from, at least 1",
        examples=[400],
        json_schema_extra={"unit": "prompts"},
    )
    test: Count | None = Field(
        None,
        description="prompts that every model is scored on, at least 1",
        examples=[300],
        json_schema_extra={"unit": "prompts"},
    )
    transfer: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="prompts of families that nothing is trained on; null or 0: none, but all that "
        "a file with its own splits has with null",
        examples=[200],
        json_schema_extra={"unit": "prompts"},
    )


class PromptFamilies(Model):
    """Which families of checks are trained on, and which are kept for ``transfer``."""

    train: Annotated[tuple[Text, ...], BeforeValidator(as_list)] | None = Field(
        None,
        description="families of the splits align, train and test; null: the generator's default, "
        "or of a file all families that are not kept for transfer",
        examples=[["lowercase", "no_commas"]],
    )
    transfer: Annotated[tuple[Text, ...], BeforeValidator(as_list)] | None = Field(
        None,
        description="families of the split transfer; null: the generator's default, none of a file",
        examples=[["json_object", "title"]],
    )

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        wrong: list[Mistake] = []
        for name in ("train", "transfer"):
            families = getattr(self, name)
            if families == ():
                wrong.append(((name,), [], mistake("null or at least one family")))
        for position, family in enumerate(self.transfer or ()):
            if family in (self.train or ()):
                error = mistake("a family that is not among those of train")
                wrong.append((("transfer", position), family, error))
        refuse(wrong)
        distinct(self.train or ())
        distinct(self.transfer or ())
        return self


class Prompts(Model):
    """Prompts in four splits, each with the check of its answers: generated, or from files."""

    source: Annotated[tuple[PromptSource, ...], BeforeValidator(as_list)] = Field(
        min_length=1,
        description="generate:constraints, or a .jsonl or .jsonl.gz file, or a list of files",
        examples=["generate:constraints", "prompts.jsonl.gz"],
    )
    sizes: PromptSizes = Field(
        PromptSizes(),
        description="numbers of prompts of align, train, test and transfer; optional for files "
        "whose rows name their split",
        examples=[{"align": 400, "train": 400, "test": 300, "transfer": 200}],
        json_schema_extra={"unit": "prompts"},
    )
    families: PromptFamilies = Field(
        PromptFamilies(),
        description="the families of checks to train on and those kept for transfer",
        examples=[{"train": ["lowercase", "no_commas"], "transfer": ["title"]}],
    )
    seed: Seed = Field(
        0,
        description="seed of the generated prompts and of the splits",
        examples=[7],
        json_schema_extra={"unit": ""},
    )
    checker: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = Field(
        None,
        description="your own Python function as package.module:function, which is run; null: the "
        "rule that each prompt's check names",
        examples=["my_checks.units:answer_is_right"],
    )
    timeout_seconds: Positive = Field(
        TIMEOUT_SECONDS,
        description="after which a check by your own function is stopped and is an error",
        examples=[5.0],
        json_schema_extra={"unit": "seconds"},
    )

    @property
    def generator(self) -> str | None:
        """Name of the generator; None if the prompts come from files."""
        first = self.source[0]
        return first.removeprefix(GENERATED) if first.startswith(GENERATED) else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong: list[Mistake] = []
        generated = [source for source in self.source if source.startswith(GENERATED)]
        if generated and len(self.source) > 1:
            wrong.append((("source",), generated[0], mistake("a generator alone, or files")))
        elif len(set(self.source)) < len(self.source):
            repeated = next(s for n, s in enumerate(self.source) if s in self.source[:n])
            wrong.append((("source",), repeated, mistake("each file once")))
        if generated and self.checker is not None:
            error = mistake("no checker with a generator, whose prompts have their own rules")
            wrong.append((("checker",), self.checker, error))
        if self.checker is None and self.timeout_seconds != TIMEOUT_SECONDS:
            error = mistake("no timeout_seconds without checker")
            wrong.append((("timeout_seconds",), self.timeout_seconds, error))
        if generated:
            wrong += self._sizes_of_generated()
        refuse(wrong)
        return self

    def _sizes_of_generated(self) -> list[Mistake]:
        """A mistake where a generator is not given its sizes, or too large ones."""
        given = self.sizes.model_dump(exclude_none=True)
        if None in (self.sizes.align, self.sizes.train, self.sizes.test):
            error = mistake(
                "align, train and test (numbers of prompts) with a generator",
                given="" if given else "nothing",
            )
            return [(("sizes",), given, error)]
        name, rows = "generate.rows", sum(given.values())
        if rows <= limit(name):
            return []
        error = mistake(f"at most {limit(name):,} (limit {name})", given=f"{rows:,} rows in all")
        return [(("sizes",), None, error)]
