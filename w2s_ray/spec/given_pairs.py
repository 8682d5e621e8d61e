"""Preference pairs of the researcher's own, which align models in a study of generated text."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from w2s_ray.spec.fields import Count, DataFile, Mistake, Model, Text, as_list, mistake, refuse
from w2s_ray.spec.inputs import Columns, DataSpec, Sizes, Splits, without


class GivenPairs(Model):
    """Where the pairs are, and how many of them align."""

    source: Annotated[tuple[DataFile, ...], BeforeValidator(as_list)] = Field(
        min_length=1,
        description="a file, folder, URI or hf:ORG/NAME, or a list",
        examples=["pairs.jsonl"],
    )
    rows: Count = Field(
        description="pairs to align with, chosen by hashes, whatever the order of the rows",
        examples=[5000],
        json_schema_extra={"unit": "pairs"},
    )
    format: Literal["auto", "trl", "hh"] = Field(
        "auto",
        description="auto (decided per row), trl (prompt/chosen/rejected) or hh",
        examples=["trl"],
    )
    columns: Columns = Field(
        Columns(),
        description="a mapping from our column names (prompt, chosen, rejected) to those in the "
        "files",
        examples=[{"chosen": "response_good", "rejected": "response_bad"}],
    )
    revision: Text | None = Field(
        None, description="a Hub commit, tag or branch", examples=["main"]
    )
    subset: Text | None = Field(None, description="a Hub configuration name", examples=["default"])
    split: Text = Field("train", description="the Hub split to read", examples=["train_prefs"])

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong: list[Mistake] = []
        for name, column in self.columns.model_dump(exclude_none=True).items():
            if name not in ("prompt", "chosen", "rejected"):
                expected = mistake("only prompt, chosen, rejected")
                wrong.append((("columns", name), column, expected))
        if not any(location.startswith("hf:") for location in self.source):
            names = ("revision", "subset", "split")
            wrong += without(self, "no {} without a Hub source (hf:…)", *names)
        refuse(wrong)
        return self

    def as_data(self, seed: int) -> DataSpec:
        """The pairs as a data set, whose rows are those of its split ``ground_truth``.

        Args:
            seed: of the choice of rows.
        """
        return DataSpec.model_construct(
            kind="preference",
            splits=Splits.model_construct(ground_truth=self.source, weak=(), test=()),
            sizes=Sizes(ground_truth=self.rows),
            seed=seed,
            **self.model_dump(include={"format", "revision", "subset", "split"}),
            columns=self.columns,
        )
