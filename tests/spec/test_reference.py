"""docs/spec.md and the JSON Schema are current, complete and right."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tests.testing.specs import tiny_spec
from w2s_ray.spec.fields import as_numbers
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.json_schema import json_schema
from w2s_ray.spec.reference import files, main
from w2s_ray.spec.schema import Cells, Spec

DOCS = Path(__file__).parents[2] / "docs"
SHIPPED = sorted((Path(__file__).parents[2] / "study_specs").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
NUMBERS = (int, float)


def models(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return {annotation}.union(*(models(field.annotation) for field in fields))
    return set().union(*map(models, get_args(annotation)))


def types(annotation: Any) -> set[type]:
    """The types of the single values of a field, at any depth."""
    if isinstance(annotation, type) and not get_args(annotation):
        return {annotation}
    return set().union(*map(types, get_args(annotation)))


def fields_of(within: set[type[BaseModel]]) -> list[tuple[str, FieldInfo]]:
    return [
        (f"{model.__name__}.{name}", field)
        for model in sorted(within, key=lambda model: model.__name__)
        for name, field in model.model_fields.items()
    ]


FIELDS = fields_of(models(Spec) - {Cells})
TEXT_FIELDS = fields_of(models(GenerationSpec))
EVERY = list({name: (name, field) for name, field in FIELDS + TEXT_FIELDS}.values())


@pytest.mark.parametrize("name", ["spec.md", "generation_spec.md", "spec.schema.json"])
def test_the_files_are_current(name: str) -> None:
    """`python -m w2s_ray.spec.reference docs` writes them."""
    assert (DOCS / name).read_text(encoding="utf-8") == files()[name]


def test_the_command_writes_both(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == files().keys()


@pytest.mark.parametrize(("name", "field"), EVERY, ids=[name for name, _ in EVERY])
def test_a_field_has_an_example_that_is_valid_and_a_number_a_unit(
    name: str, field: FieldInfo
) -> None:
    assert field.examples, "Field(examples=[…])"
    adapter = TypeAdapter(Annotated[(field.annotation, None, *field.metadata)])  # type: ignore[misc]
    for example in field.examples:
        adapter.validate_python(example)
    extra = field.json_schema_extra
    if types(field.annotation) & set(NUMBERS):
        assert isinstance(extra, dict) and "unit" in extra, 'json_schema_extra={"unit": …}'


def rows(page: str = "spec.md") -> Iterator[list[str]]:
    for line in files()[page].splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_page_has_every_field_with_its_facts() -> None:
    assert len(list(rows("generation_spec.md"))) == len(TEXT_FIELDS)
    tables = [row for row in rows() if len(row) == 7]
    assert len(tables) == len(FIELDS) - 1, "all but the name of a loss, which has a table"
    facts = {row[0]: row[1:] for row in tables}
    assert facts["`max_length_tokens`"] == [
        "whole number", "tokens", "from 2", "`512`", "`1024`",
        "maximum tokens of a text; longer texts lose their beginning",
    ]  # fmt: skip
    assert facts["`pair`"][0] == "list of 2 (text, or a list; text), or a list"
    assert facts["`learning_rate`"][:3] == ["number or null", "", "above 0"]  # of training.weak
    assert facts["`kind`"][2] == "`preference`, `classification`"
    assert all(row[6] and row[5] for row in tables)


def test_an_example_on_the_page_is_yaml_of_its_value() -> None:
    tables = [row for row in rows() if len(row) == 7]
    shown = [
        (row[0].strip("`"), as_numbers(yaml.safe_load(row[5].strip("`").replace("\\|", "|"))))
        for row in tables
    ]
    for name, field in FIELDS:
        assert name == "Loss.name" or (name.split(".")[1], field.examples[0]) in shown  # type: ignore[index]


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_the_json_schema_accepts_the_shipped_specs(path: Path) -> None:
    VALIDATOR.validate(json.loads(json.dumps(yaml.safe_load(path.read_text()))))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grid__loss": "jeffreys", "grid__seed": 3, "training__learning_rate": 0.001},
        {"grid__loss": {"name": "symmetric_ce", "a": 0.5}, "grid__pair": ["small", "large"]},
        {"grid__include": {"loss": ["reverse_ce"], "learning_rate": None}},
        {"execution__keep_models": "student", "training__adam_betas": [0.9, 0.99]},
    ],
)
def test_the_json_schema_accepts_every_way_to_write_a_value(changes: dict[str, Any]) -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(tiny_spec(**changes))
    Spec.model_validate(tiny_spec(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"grid__loss": "revers_kl"},
        {"grid__loss": [{"name": "symmetric_ce", "c": 1.0}]},
        {"grid__noise_ratio": [1.5]},
        {"grid__seed": []},
        {"grid__seeds": [1]},
        {"training__batch_size": 0},
        {"training__adam_betas": [0.9, 1.0]},
        {"execution__workers": "two"},
        {"data": {}},
    ],
)
def test_the_json_schema_refuses_mistakes(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(tiny_spec(**changes))
    with pytest.raises(ValidationError):
        Spec.model_validate(tiny_spec(**changes))
