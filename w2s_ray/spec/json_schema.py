"""The JSON Schema of a spec, for editors: completion, descriptions and ranges while typing.

It is pydantic's own, widened where a spec may be written in a shorter form (a single value for a
list, the name of a loss, one learning rate for all) and with the ranges of the losses' parameters.
It accepts every valid spec. What depends on several fields or on files is checked by ``loading``.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from w2s_ray.objectives.names import DEFINITIONS, Parameter
from w2s_ray.spec.execution import machine_by_name
from w2s_ray.spec.fields import as_list, as_names, as_pairs
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.inputs import source_alone
from w2s_ray.spec.labels import filter_or_none
from w2s_ray.spec.loss import loss_by_name
from w2s_ray.spec.schema import Spec
from w2s_ray.spec.training import rates

# pydantic's names of bounds below a validator of ours -> those of JSON Schema.
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
_CLOSED = ("minimum", "maximum")


def json_schema() -> dict[str, Any]:
    """The schema of a spec as JSON values, draft 2020-12; ``task`` says which of two it is."""
    definitions: dict[str, Any] = {}
    for model in (Spec, GenerationSpec):
        schema = model.model_json_schema(schema_generator=_Generator)
        definitions |= {**schema.pop("$defs"), model.__name__: schema}
    definitions["Loss"] = _losses(definitions["Loss"])
    generates = {"properties": {"task": {"const": "generation"}}, "required": ["task"]}
    return {
        "$schema": _Generator.schema_dialect,
        "if": generates,
        "then": {"$ref": "#/$defs/GenerationSpec"},
        "else": {"$ref": "#/$defs/Spec"},
        "$defs": _with_bounds(definitions),
    }


def _one_or_list(schema: JsonSchemaValue) -> JsonSchemaValue:
    """A list, or one of its items."""
    return {"anyOf": [schema["items"], schema]} if "items" in schema else schema


def _loss(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [{"type": "string", "enum": list(DEFINITIONS)}, schema]}


def _filter(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [*schema["anyOf"], {"type": "string", "enum": ["none"]}]}


def _rates(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, schema]}


def _test_set(schema: JsonSchemaValue) -> JsonSchemaValue:
    """The mapping of a further test set, or its source alone."""
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, schema]}


def _machine(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [{"type": "string"}, schema, {"type": "null"}]}


def _names(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Labels: numbers and null are read as names."""
    return _one_or_list(
        {"type": "array", "items": {"anyOf": [{"type": t} for t in ("string", "integer", "null")]}}
    )


_SHORTER_FORMS: Mapping[Callable[[Any], Any], Callable[[JsonSchemaValue], JsonSchemaValue]] = {
    as_list: _one_or_list,
    as_names: _names,
    as_pairs: _one_or_list,
    filter_or_none: _filter,
    loss_by_name: _loss,
    machine_by_name: _machine,
    rates: _rates,
    source_alone: _test_set,
}


class _Generator(GenerateJsonSchema):
    """pydantic's generator, which knows our shorter forms and makes no titles of field names."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        inner = super().function_before_schema(schema)
        function: Any = schema["function"]["function"]
        widen = _SHORTER_FORMS.get(function)
        return inner if widen is None else widen(inner)

    def field_title_should_be_set(self, schema: CoreSchema | Any) -> bool:
        return False

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        """Keeps the order of the fields, which is that of the page."""
        return value


def _with_bounds(schema: Any) -> Any:
    """The schema with the names of bounds that JSON Schema has."""
    if isinstance(schema, list):
        return [_with_bounds(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    names = dict(_BOUNDS)
    if schema.get("type") != "string" and "properties" not in schema:
        names["minLength"] = "minItems"
    return {names.get(name, name): _with_bounds(inner) for name, inner in schema.items()}


def _losses(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping form of a loss: one alternative for each name, with its parameters."""
    alternatives = [
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {
                "name": {"const": name},
                **{own: _parameter(value) for own, value in definition.parameters.items()},
            },
        }
        for name, definition in DEFINITIONS.items()
    ]
    return {"description": schema["description"], "anyOf": alternatives}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    low, high = ("exclusiveMinimum", "exclusiveMaximum") if parameter.is_open else _CLOSED
    bounds: dict[str, Any] = {"type": "number", "default": parameter.default}
    bounds |= {low: parameter.low} if parameter.low > -math.inf else {}
    return bounds | ({high: parameter.high} if parameter.high < math.inf else {})
