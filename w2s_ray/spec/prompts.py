"""Prompts of a study of generated text, and what checks their answers."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from w2s_ray.foreign.limits import limit
from w2s_ray.spec.families import TRAIN_FAMILIES, TRANSFER_FAMILIES, Family
from w2s_ray.spec.fields import (
    Axis,
    Count,
    Mistake,
    Model,
    Positive,
    PromptSource,
    Seed,
    Text,
    as_list,
    mistake,
    refuse,
)

CONSTRAINTS = "generate:constraints"
SPLITS = ("align", "train", "test", "transfer")
_ENTRY_POINT = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


def _entry_point(value: str) -> str:
    if not re.fullmatch(_ENTRY_POINT, value):
        raise mistake("package.module:function")
    return value


class PromptSizes(Model):
    """Prompts of each split."""

    align: Annotated[int, Field(ge=0)] = Field(
        400,
        description="prompts whose samples make the preference pairs; 0 with pairs.given, which "
        "has its own",
        examples=[400],
        json_schema_extra={"unit": "prompts"},
    )
    train: Count = Field(
        400,
        description="prompts whose answers the strong model learns from",
        examples=[400],
        json_schema_extra={"unit": "prompts"},
    )
    test: Count = Field(
        300,
        description="prompts that every model answers at the end",
        examples=[300],
        json_schema_extra={"unit": "prompts"},
    )
    transfer: Annotated[int, Field(ge=0)] = Field(
        0,
        description="test prompts of other families than those that are trained on; 0: none",
        examples=[100],
        json_schema_extra={"unit": "prompts"},
    )


class Classifier(Model):
    """Rewards by classifiers of labelled texts; a prompt is how such a text begins.

    A third of the texts gives the prompts, another one trains the classifier whose verdict is the
    reward, and the last one a classifier of another kind that nothing is trained on.
    """

    text: Text = Field("text", description="name of the column with the texts", examples=["review"])
    label: Text = Field(
        "label", description="name of the column with their labels", examples=["sentiment"]
    )
    wanted: Text | int = Field(
        1,
        description="the label that answers are rewarded for",
        examples=["positive"],
        json_schema_extra={"unit": ""},
    )
    words: Count = Field(
        4,
        description="first words of a text that are its prompt",
        examples=[3],
        json_schema_extra={"unit": "words"},
    )


class Prompts(Model):
    """Where prompts come from, how they are split, and what checks their answers."""

    source: Annotated[tuple[PromptSource, ...], BeforeValidator(as_list)] = Field(
        (CONSTRAINTS,),
        min_length=1,
        description=f"{CONSTRAINTS}, a file, folder, URI or hf:ORG/NAME, or a list of these",
        examples=["prompts.jsonl"],
    )
    sizes: PromptSizes = Field(
        PromptSizes(),
        description="numbers of prompts of align, train, test and transfer",
        examples=[{"align": 400, "train": 400, "test": 300, "transfer": 100}],
        json_schema_extra={"unit": "prompts"},
    )
    families: Axis[Family] | None = Field(
        None,
        description=f"families of rules of {CONSTRAINTS} to train and test on; null: "
        f"{', '.join(TRAIN_FAMILIES)}",
        examples=[["no_commas", "lowercase"]],
    )
    transfer_families: Axis[Family] | None = Field(
        None,
        description=f"families of the split transfer; null: {', '.join(TRANSFER_FAMILIES)}",
        examples=[["postscript"]],
    )
    seed: Seed = Field(
        0,
        description="seed of generated prompts and of splits",
        examples=[7],
        json_schema_extra={"unit": ""},
    )
    revision: Text | None = Field(
        None, description="a Hub commit, tag or branch", examples=["main"]
    )
    subset: Text | None = Field(None, description="a Hub configuration name", examples=["default"])
    split: Text = Field("train", description="the Hub split to read", examples=["train_prefs"])
    column: Text = Field(
        "prompt", description="name of the column with the prompts", examples=["instruction"]
    )
    checker: Annotated[Text, AfterValidator(_entry_point)] | None = Field(
        None,
        description="package.module:function, your own Python that is called with check (a "
        "mapping), prompt and text, in this order; it returns true, false or a reward from 0 to 1; "
        "null: the families of "
        f"{CONSTRAINTS}, which a row names in its column check",
        examples=["my_checks:reward"],
    )
    classifier: Classifier | None = Field(
        None,
        description="rewards by classifiers of the source's labelled texts, whose beginnings are "
        "the prompts; null: rewards by checks",
        examples=[{"text": "text", "label": "label", "wanted": 1}],
    )
    timeout_seconds: Positive = Field(
        5.0,
        description="time of one call of checker, after which it is stopped",
        examples=[60.0],
        json_schema_extra={"unit": "seconds"},
    )

    @property
    def is_generated(self) -> bool:
        """Whether the prompts come from our generator."""
        return self.source == (CONSTRAINTS,)

    @property
    def name(self) -> str:
        """What the prompts are called in tables."""
        first, *others = self.source
        short = first.rpartition("/")[2].rpartition(":")[2]
        return short + (f" and {len(others)} more" if others else "")

    def rows(self, split: str) -> int:
        """Prompts of a split."""
        count: int = getattr(self.sizes, split)
        return count

    @property
    def has_transfer(self) -> bool:
        """Whether there is a split of other families."""
        return self.sizes.transfer > 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong: list[Mistake] = []
        if CONSTRAINTS in self.source and len(self.source) > 1:
            expected = mistake(f"{CONSTRAINTS} alone, or other sources")
            wrong.append((("source",), list(self.source), expected))
        if not self.is_generated:
            for field in ("families", "transfer_families"):
                if getattr(self, field) is not None:
                    expected = mistake(f"no {field} without source: {CONSTRAINTS}")
                    wrong.append(((field,), list(getattr(self, field)), expected))
        else:
            for field in ("checker", "classifier"):
                if getattr(self, field) is not None:
                    expected = mistake(
                        f"no {field} with source: {CONSTRAINTS}, which has its own checks"
                    )
                    wrong.append(((field,), None, expected))
        if self.classifier is not None:
            if self.column != type(self).model_fields["column"].default:
                expected = mistake("no column beside classifier, whose field text names it")
                wrong.append((("column",), self.column, expected))
            if self.checker is not None:
                expected = mistake("no checker beside classifier, which gives the rewards")
                wrong.append((("checker",), self.checker, expected))
            if self.has_transfer:
                expected = mistake("0 with classifier, which knows no families of prompts")
                wrong.append((("sizes", "transfer"), self.sizes.transfer, expected))
        if not any(source.startswith("hf:") for source in self.source):
            for field in ("revision", "subset", "split"):
                if getattr(self, field) != type(self).model_fields[field].default:
                    expected = mistake(f"no {field} without a Hub source (hf:…)")
                    wrong.append(((field,), getattr(self, field), expected))
        name, rows = "generate.rows", sum(self.sizes.model_dump().values())
        if rows > limit(name):
            error = mistake(f"at most {limit(name):,} (limit {name})", given=f"{rows:,} prompts")
            wrong.append((("sizes",), None, error))
        refuse(wrong)
        return self
