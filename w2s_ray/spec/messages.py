"""One line per mistake: where it is, what was given, what was expected, the nearest valid name.

An error's location in the parsed values is followed down the YAML tree, so that the line number is
that of the key or list item at fault. Parts of the location that are not in the text (the index of
a single value that was read as a list of one) are skipped.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice, pairwise
from typing import Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from w2s_ray.errors import InputError, one_line
from w2s_ray.foreign.limits import limit
from w2s_ray.masking import masked_address, masked_value
from w2s_ray.spec.fields import Location

# What to say for each of pydantic's error types; other types keep pydantic's own message.
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
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "some text",
    "string_type": "text",
    "too_short": "at least one",
}


OPTIONS = ("--set", "--smoke")  # of the command, by which values are given (``overrides``)
MOST_COMPARED = 1_000  # names that a wrong one is compared with


class SpecError(InputError):
    """All mistakes of one spec.

    Attributes:
        lines: one line per mistake, and of very many the number of those that are not shown; the
            text of the error is these lines.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        given = iter(lines)
        shown = [one_line(line) for line in islice(given, limit("spec.mistakes"))]
        if more := sum(1 for _ in given):
            shown.append(f"{more:,} more mistakes")
        self.lines = tuple(shown)
        super().__init__(" ".join(self.lines))

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Located(NamedTuple):
    """A field of the spec as found in the text.

    Attributes:
        path: ``field.path[i]``.
        mark: where it begins.
    """

    path: str
    mark: yaml.Mark


def place_of(mark: yaml.Mark) -> str:
    """``file:line`` of a place in a file, or the option that a value was given by."""
    return mark.name if mark.name in OPTIONS else f"{mark.name}:{mark.line + 1}"


def nearest(name: str, names: Iterable[str]) -> str:
    """The text ``; did you mean 'x'?`` with the name nearest to ``name`` ignoring case, or ''.

    Of very many names the first are compared.
    """
    by_lower = {other.lower(): other for other in islice(names, MOST_COMPARED)}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""


def locate(root: yaml.Node, location: Location) -> Located:
    """Find the deepest key or item of ``location`` that is in the text."""
    path, mark, node = "", root.start_mark, root
    for step, after in pairwise((*location, None)):
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == step]
            if pairs:  # The last one: a key written here comes after keys merged by `<<`.
                key, node = pairs[-1]
                path, mark = f"{path}.{step}".lstrip("."), key.start_mark
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            surplus = step == 0 and isinstance(after, int)
            if surplus and isinstance(node.value[step], yaml.ScalarNode):
                continue  # A single pair or chain, written without the outer list.
            node = node.value[step]
            path, mark = f"{path}[{step}]", node.start_mark
    return Located(path, mark)


def lines(
    file: str, root: yaml.Node, errors: ValidationError, schema: type[BaseModel]
) -> list[str]:
    """The lines ``file:line: field.path: …`` of all mistakes, in file order, one per location.

    Those in values of the command come last.

    A misspelled required field is reported once, not as an unknown and a missing field.

    Args:
        schema: of the whole file.
    """
    by_path: dict[str, tuple[yaml.Mark, str]] = {}
    mistakes = errors.errors(include_url=False)
    unknown: dict[Location, list[str]] = defaultdict(list)  # by the mapping that has it
    for error in mistakes:
        if error["type"] == "extra_forbidden":
            unknown[error["loc"][:-1]].append(str(error["loc"][-1]))
    most = limit("spec.mistakes")
    for error in mistakes[:most]:
        *above, name = error["loc"] or ("",)
        misspelled = error["type"] == "missing" and nearest(str(name), unknown[tuple(above)])
        if misspelled:  # reported as an unknown field
            continue
        location, text = _explained(error, schema)
        path, mark = locate(root, location)
        if text.startswith("given nothing") and isinstance(location[-1], str):
            path = f"{path}.{location[-1]}".lstrip(".")
        by_path.setdefault(path, (mark, f"{path}: {text}" if path else text))
    in_order = sorted(by_path.values(), key=_order)
    more = [f"{file}: {len(mistakes) - most:,} more mistakes"] if len(mistakes) > most else []
    return [*(f"{place_of(mark)}: {text}" for mark, text in in_order), *more]


def _order(mistake: tuple[yaml.Mark, str]) -> tuple[bool, int]:
    mark, _ = mistake
    return mark.name in OPTIONS, mark.line


def _explained(error: ErrorDetails, schema: type[BaseModel]) -> tuple[Location, str]:
    """The location to report, and ``given …, expected …; did you mean …?``."""
    location, kind, given = error["loc"], error["type"], error["input"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "extra_forbidden":
        return location, _unknown_field(schema, location)
    if kind == "missing" and isinstance(location[-1], str):
        _, field = _at(schema, location)
        return location, f"given nothing, expected {_description(field, 'a value')}"
    if kind in ("missing", "too_long", "tuple_type"):  # A list of the wrong length.
        location = location[:-1] if kind == "missing" else location
        _, field = _at(schema, location)
        return location, f"given {shown(given)}, expected {_description(field, 'a list')}"
    expected = _EXPECTED[kind].format(**context) if kind in _EXPECTED else error["msg"]
    if kind == "string_type" and not isinstance(given, dict | list | None):
        expected += " (write it in quotes)"
    names = context.get("names", ())
    near = context.get("near") or ""
    if kind == "literal_error":
        names, near = re.findall(r"'([^']*)'", expected), str(given)
    given_text = context.get("given") or shown(given)
    return location, f"given {given_text}, expected {expected}{nearest(near, names)}"


def _unknown_field(schema: type[BaseModel], location: Location) -> str:
    model, _ = _at(schema, location[:-1])
    names = list(model.model_fields) if model else []
    hint = nearest(str(location[-1]), names)
    return f"given an unknown field, expected one of {', '.join(names)}{hint}"


def _description(field: FieldInfo | None, otherwise: str) -> str:
    return (field.description if field else None) or otherwise


def shown(value: Any) -> str:
    """A value as a researcher would write it, without secrets, cut to 200 characters."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    value = masked_value(value, masked_address)
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, bool | dict | list | tuple | None):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


class _Schema(NamedTuple):
    """What the schema has at a location: a model, if there is one, and the innermost field."""

    model: type[BaseModel] | None
    field: FieldInfo | None


def _at(annotation: Any, location: Location) -> _Schema:
    """Follow ``location`` down the annotations of the schema."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not location:
            return _Schema(annotation, None)
        field = annotation.model_fields.get(str(location[0]))
        if field is None:
            return _Schema(None, None)
        model, deeper = _at(field.annotation, location[1:])
        return _Schema(model, deeper or field)
    below = location[1:] if get_origin(annotation) in (dict, tuple) else location
    for part in get_args(annotation):
        result = _at(part, below)
        if result.model or result.field:
            return result
    return _Schema(None, None)
