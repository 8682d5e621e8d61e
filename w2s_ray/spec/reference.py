"""The pages ``docs/spec.md`` and ``docs/generation_spec.md`` and the JSON Schema, written from the
schema alone.

    python -m w2s_ray.spec.reference docs

Every fact on a page is one of a field: its type, bounds and default, ``description``,
``examples``, and ``unit``. A test holds that the files are current.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from w2s_ray.objectives.names import DEFINITIONS
from w2s_ray.spec.fields import SEEDS
from w2s_ray.spec.generation import NOT_HERE
from w2s_ray.spec.json_schema import json_schema

PAGE, TEXT_PAGE, SCHEMA = "spec.md", "generation_spec.md", "spec.schema.json"
Json = Mapping[str, Any]

_HEAD = f"""# The spec, field by field

This page is written by `python -m w2s_ray.spec.reference docs`, from the schema in `w2s_ray/spec/`.

A spec is one YAML file. A field without a default is required; `null` is what a field is without
being written, unless its default says otherwise. Where a list is expected, a single value is read
as a list of one. The rules that concern several fields are in
[study_specs](../study_specs/README.md#rules); how data are read is in [data.md](data.md).

Results, models and exports go to `store`: unless it is set there or by `--store`, that is the
folder `store` beside the folder of the spec (`../store`). An exported model is the folder `export`
of its step, `<store>/<kind>/<name>-<key>/export`; a run prints these folders at its end.

An editor with the YAML language server (VS Code's YAML extension, Neovim, Emacs) completes fields
and marks mistakes if the first line of the spec names [the schema]({SCHEMA}), by its path or URL:

```yaml
# yaml-language-server: $schema=../docs/{SCHEMA}
```
"""
_TEXT_HEAD = f"""# The spec of generated text, field by field

This page is written by `python -m w2s_ray.spec.reference docs`, from the schema in `w2s_ray/spec/`.

It is the spec of a study with `task: generation` ([generation.md](generation.md)); how fields are
read, and the fields of `execution`, are as in [the other spec]({PAGE}). Of `execution`,
{", ".join(f"`{name}`" for name in NOT_HERE)} must keep
their defaults here.
"""
_QUOTED_WORD = re.compile(r'"(?P<word>[A-Za-z_][A-Za-z0-9_.-]*)"')
_COLUMNS = ("field", "type", "unit", "range", "default", "example", "meaning")
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "mapping",
}


class _Section(NamedTuple):
    """A mapping of the spec.

    Attributes:
        path: where it stands, ``data.NAME.splits``; empty for the whole spec.
        name: of its definition in the JSON Schema.
    """

    path: str
    name: str


def page(schema: Json, root: str = "Spec", head: str = _HEAD) -> str:
    """The text of a page.

    Args:
        schema: the JSON Schema of specs.
        root: name of the spec's definition in it.
        head: the page's beginning.
    """
    definitions = schema["$defs"]
    sections = list(_sections(definitions, _Section("", root), set()))
    paths = {section.name: section.path for section in sections}
    parts = [head]
    for section in sections:
        definition = definitions[section.name]
        title = f"`{section.path}`" if section.path else "The whole spec"
        parts.append(f"## {title}\n\n{_prose(definition['description'])}\n")
        if section.name == "Loss":
            parts.append("\n".join(_loss_rows()) + "\n")
        elif section.name != "Cells":  # whose fields are the axes of the grid
            parts.append("\n".join(_rows(definition, paths)) + "\n")
    return "\n".join(parts)


def files() -> dict[str, str]:
    """Name -> content of the generated files."""
    schema = json_schema()
    return {
        PAGE: page(schema),
        TEXT_PAGE: page(schema, "GenerationSpec", _TEXT_HEAD),
        SCHEMA: json.dumps(schema, indent=1, ensure_ascii=False) + "\n",
    }


def _sections(definitions: Json, section: _Section, seen: set[str]) -> Iterator[_Section]:
    """The section and, in the order of their fields, all below it; each definition once."""
    if section.name in seen:
        return
    seen.add(section.name)
    yield section
    for field, schema in definitions[section.name].get("properties", {}).items():
        path = f"{section.path}.{field}".lstrip(".")
        for below in _references(schema, path):
            yield from _sections(definitions, below, seen)


def _references(schema: Json, path: str) -> Iterator[_Section]:
    """The definitions that a field's schema names, with the paths at which they stand."""
    if "$ref" in schema:
        yield _Section(path, schema["$ref"].rpartition("/")[2])
    for part in schema.get("anyOf", ()):
        yield from _references(part, path)
    if "items" in schema:
        yield from _references(schema["items"], path)
    for part in schema.get("patternProperties", {}).values():
        yield from _references(part, f"{path}.NAME")


def _rows(definition: Json, paths: Mapping[str, str]) -> Iterator[str]:
    """The table of a mapping's fields."""
    yield from _table_head(_COLUMNS)
    required = definition.get("required", ())
    for name, field in definition["properties"].items():
        default = "required" if name in required else _default(field)
        example = _code(field["examples"][0]) if field.get("examples") else ""
        cells = (f"`{name}`", _type(field, paths), field.get("unit", ""), _range(field), default)
        yield _row([*cells, example, _prose(field["description"])])


def _loss_rows() -> Iterator[str]:
    """The table of the losses and their parameters."""
    yield from _table_head(("loss", "formula", "parameters"))
    for name, definition in DEFINITIONS.items():
        parameters = (
            f"`{own}`: {parameter.expected}; default {parameter.default:g}"
            for own, parameter in definition.parameters.items()
        )
        yield _row([f"`{name}`", f"`{definition.formula}`", "; ".join(parameters)])


def _table_head(columns: Sequence[str]) -> tuple[str, str]:
    return _row(columns), "|" + "---|" * len(columns)


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _prose(text: str) -> str:
    """A docstring or description as one line of Markdown."""
    return " ".join(text.replace("``", "`").split())


def _code(value: Any) -> str:
    """A value as it may be written in YAML."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    unquoted = _QUOTED_WORD.sub(r"\g<word>", text)
    return f"`{unquoted}`"


def _default(field: Json) -> str:
    if "default" not in field or (field["default"] and isinstance(field["default"], dict)):
        return "its fields' defaults"
    return _code(field["default"]) if field["default"] != [] else "none"


def _type(schema: Json, paths: Mapping[str, str]) -> str:
    """The type in words; a mapping links to its section."""
    if "$ref" in schema:
        path = paths[schema["$ref"].rpartition("/")[2]]
        return f"[mapping](#{re.sub(r'[^a-z0-9_-]', '', path.lower())})"
    if "anyOf" in schema:
        first, last = schema["anyOf"][0], schema["anyOf"][-1]
        if last.get("items") == first:
            return f"{_type(first, paths)}, or a list"
        return " or ".join(dict.fromkeys(_type(part, paths) for part in schema["anyOf"]))
    if "prefixItems" in schema:
        inner = "; ".join(dict.fromkeys(_type(part, paths) for part in schema["prefixItems"]))
        return f"list of {len(schema['prefixItems'])} ({inner})"
    if "items" in schema:
        inner = _type(schema["items"], paths)
        return f"list of ({inner})" if ", or" in inner else f"list of {inner}"
    if "patternProperties" in schema:
        (inner,) = schema["patternProperties"].values()
        return f"mapping of names: {_type(inner, paths)}"
    return _TYPES[schema["type"]] if "type" in schema else "any value"


def _range(schema: Json) -> str:
    """The values or bounds of a field or of what it lists; empty where any value is allowed."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    bounds = [
        f"{words} {_bound(schema[name])}"
        for name, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if name in schema
    ]
    if bounds:
        return ", ".join(bounds)
    for part in (*schema.get("anyOf", ()), *schema.get("prefixItems", ()), schema.get("items")):
        if part is not None and (found := _range(part)):
            return found
    return ""


def _bound(value: float) -> str:
    return "2^63" if value == SEEDS else f"{value:g}"


def main(arguments: Sequence[str]) -> int:
    """Writes the files into the folder that is the one argument."""
    (folder,) = arguments
    for name, content in files().items():
        (Path(folder) / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
