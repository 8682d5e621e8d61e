"""One line for each mistake: where, what was given, what was expected, the nearest right name.

The place of an error in the values is walked down the YAML tree, so that the line is the one of
the key or list item at fault. Steps of the place that are not in the text (a value alone that was
read as a list of one) are passed over.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from w2s_ray.errors import InputError
from w2s_ray.spec.fields import Place
from w2s_ray.spec.schema import Spec

_EXPECTED = {
    "dict_type": "a mapping (name: value)",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "invalid-json-value": "a number, text, true, false, null, list or mapping",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "literal_error": "{expected}",
    "mistake": "{expected}",
    "model_type": "a mapping (field: value)",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', a letter or digit first",
    "string_too_short": "some text",
    "string_type": "text",
    "too_short": "at least one",
}


class SpecError(InputError):
    """All mistakes of one spec, one line each in `lines`; its text is those lines."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(" ".join(line.split()) for line in lines)
        super().__init__(" ".join(self.lines))

    def __str__(self) -> str:
        return "\n".join(self.lines)


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest of `names` by letters (case apart), or nothing."""
    by_lower = {other.lower(): other for other in names}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""


def locate(root: yaml.Node, place: Place) -> tuple[str, int]:
    """`field.path[i]` and line (from 1) of the deepest key or item of `place` in the text."""
    path, line, node = "", root.start_mark.line + 1, root
    for step, after in pairwise((*place, None)):
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == step]
            if pairs:  # The last one: a key written here comes after those merged in by `<<`.
                key, node = pairs[-1]
                path, line = f"{path}.{step}".lstrip("."), key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            if isinstance(after, int) and isinstance(node.value[step], yaml.ScalarNode):
                continue  # One pair written without the outer list.
            node = node.value[step]
            path, line = f"{path}[{step}]", node.start_mark.line + 1
    return path, line


def lines(file: str, root: yaml.Node, errors: ValidationError) -> list[str]:
    """`file:line: field.path: …` for every mistake, in the order of the file, each place once.

    A required field that is written wrong is one mistake, not an unknown and a missing field.
    """
    told: dict[str, tuple[int, str]] = {}
    unknown = [error["loc"] for error in errors.errors() if error["type"] == "extra_forbidden"]
    for error in errors.errors():
        if error["type"] == "missing" and any(_alike(error["loc"], place) for place in unknown):
            continue
        place, text = _text(error)
        path, line = locate(root, place)
        if text.startswith("given nothing") and isinstance(place[-1], str):
            path = f"{path}.{place[-1]}".lstrip(".")
        told.setdefault(path, (line, f"{path}: {text}" if path else text))
    return [f"{file}:{line}: {text}" for line, text in sorted(told.values(), key=lambda t: t[0])]


def _alike(one: Place, other: Place) -> bool:
    """Two names in one mapping, one of which may be meant by the other."""
    return one[:-1] == other[:-1] and bool(nearest(str(one[-1]), [str(other[-1])]))


def _text(error: ErrorDetails) -> tuple[Place, str]:
    """The place to point at, and `given …, expected …; did you mean …?`."""
    place, kind, given = error["loc"], error["type"], error["input"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "extra_forbidden":
        model, _ = _described(Spec, place[:-1])
        names = list(model.model_fields) if model else []
        expected = f"one of {', '.join(names)}"
        return place, f"given an unknown field, expected {expected}{nearest(str(place[-1]), names)}"
    if kind == "missing" and isinstance(place[-1], str):
        _, field = _described(Spec, place)
        return place, f"given nothing, expected {field.description if field else 'a value'}"
    if kind in ("missing", "too_long", "tuple_type"):  # A list of another length than it must be.
        place = place[:-1] if kind == "missing" else place
        _, field = _described(Spec, place)
        return place, f"given {shown(given)}, expected {field.description if field else 'a list'}"
    expected = _EXPECTED[kind].format(**context) if kind in _EXPECTED else error["msg"]
    if kind == "string_type" and not isinstance(given, dict | list | None):
        expected += " (write it in quotes)"
    names = context.get("names", ())
    near = context.get("near") or ""
    if kind == "literal_error":
        names, near = re.findall(r"'([^']*)'", expected), str(given)
    given_text = context.get("given") or shown(given)
    return place, f"given {given_text}, expected {expected}{nearest(near, names)}"


def shown(value: Any) -> str:
    """A value as a researcher would write it, at most 200 characters."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, bool | dict | list | tuple | None):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _described(annotation: Any, place: Place) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The model at a place of the schema (if one is there), and the last field on the way."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not place:
            return annotation, None
        field = annotation.model_fields.get(str(place[0]))
        if field is None:
            return None, None
        model, deeper = _described(field.annotation, place[1:])
        return model, deeper or field
    below = place[1:] if get_origin(annotation) in (dict, tuple) else place
    for part in get_args(annotation):
        model, field = _described(part, below)
        if model or field:
            return model, field
    return None, None
