"""Values that the command sets in place of those in the file: ``--set grid.seed=[0,1]``.

They are put into the YAML tree before it is validated, so they are checked as what is written in
the file, and a mistake in one is the same line, with the option in place of file and line.

A path is written as messages write it, ``grid.loss[0].name``. Names of data sets and models may
hold dots: of a mapping's names, the longest that the path begins with is meant.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import yaml

from w2s_ray.spec.messages import SpecError, nearest, shown
from w2s_ray.spec.yaml_nodes import STRING, composed, flattened, problems

SET = "--set"
EXAMPLE = "FIELD=VALUE, as grid.seed=[0,1]"
NAMED = ("data", "models")  # sections whose names a spec chooses: a wrong one is no unknown field

_INDEX = re.compile(r"\[(\d+)\]")
_NAME = re.compile(r"[^.\[\]]+")
_NULL = "tag:yaml.org,2002:null"


class Override(NamedTuple):
    """A value for a field of the spec.

    Attributes:
        option: by which it was given; messages begin with it.
        path: of the field, as it was written.
        text: the value, YAML.
    """

    option: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}={self.text}"

    def refused(self, rest: str, reason: str) -> SpecError:
        """The error at the part of the path before ``rest``."""
        place = self.path.removesuffix(rest) or self.path
        return SpecError([f"{self.option}: {place}: {reason}"])


def parsed(texts: Iterable[str], option: str = SET) -> tuple[Override, ...]:
    """The overrides in texts ``path=value``.

    Raises:
        SpecError: a text is none.
    """
    overrides = []
    for text in texts:
        path, _, value = (part.strip() for part in text.partition("="))
        if not path or not value:
            raise SpecError([f"{option}: given {shown(text)}, expected {EXAMPLE}"])
        overrides.append(Override(option, path, value))
    return tuple(overrides)


def overridden(root: yaml.Node, overrides: Iterable[Override]) -> yaml.Node:
    """The tree with other values, one after the other; the tree itself is not changed.

    Raises:
        SpecError: a value is not YAML, or its path leads through what is no mapping or list.
        yaml.MarkedYAMLError: a mapping on a path merges what is no mapping.
    """
    for override in overrides:
        root = _replaced(root, override.path, override, _value(override))
    return root


def _value(override: Override) -> yaml.Node:
    try:
        value = composed(override.text, override.option)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        problem = error.reason if isinstance(error, yaml.reader.ReaderError) else error.problem
        reason = f"given {shown(override.text)}, not YAML: {problem}"
        raise override.refused("", reason) from None
    if value is None:  # a comment
        raise override.refused("", f"given {shown(override.text)}, expected a value")
    for _, problem in problems(value):
        raise override.refused("", problem)
    return value


def _replaced(node: yaml.Node | None, rest: str, override: Override, value: yaml.Node) -> yaml.Node:
    """A copy of the node in which the rest of the path leads to the value."""
    if not rest:
        return value
    if isinstance(node, yaml.SequenceNode):
        return _with_item(node, rest, override, value)
    if node is None or node.tag == _NULL:
        mark = value.start_mark
        node = yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark)
    if not isinstance(node, yaml.MappingNode) or rest.startswith("["):
        there = "what is no list" if isinstance(node, yaml.MappingNode) else shown(node.value)
        expected = "a list or mapping there that has it (set it as a whole)"
        raise override.refused(rest, f"given {rest} of {there}, expected {expected}")
    return _with_field(flattened(node), rest, override, value)


def _with_item(
    node: yaml.SequenceNode, rest: str, override: Override, value: yaml.Node
) -> yaml.Node:
    items = list(node.value)
    match = _INDEX.match(rest)
    if match is None or int(match[1]) >= len(items):
        expected = f"the index of one of the {len(items):,} items, as [0]"
        raise override.refused(rest, f"given {rest}, expected {expected}")
    position = int(match[1])
    items[position] = _replaced(items[position], rest[match.end() :], override, value)
    return yaml.SequenceNode(node.tag, items, node.start_mark, node.end_mark)


def _with_field(
    node: yaml.MappingNode, rest: str, override: Override, value: yaml.Node
) -> yaml.Node:
    fields = {key.value: (key, field) for key, field in node.value}
    name, below = _divided(rest, fields, override)
    if name not in fields and below and override.path.removesuffix(rest) in NAMED:
        expected = f"expected one of {', '.join(fields)}, or all of it as a mapping"
        reason = f"given a new name, {expected}{nearest(name, fields)}"
        raise override.refused(below, reason)
    key, field = fields.get(name, (None, None))
    if key is None or not below:
        mark = value.start_mark
        key = yaml.ScalarNode(STRING, name, mark, mark)
    fields[name] = (key, _replaced(field, below, override, value))
    return yaml.MappingNode(node.tag, [*fields.values()], node.start_mark, node.end_mark)


def _divided(rest: str, names: Iterable[str], override: Override) -> tuple[str, str]:
    """The name that the rest of a path begins with, and what follows it."""
    follows = rest != override.path
    text = rest.removeprefix(".") if follows else rest
    known = [name for name in names if re.match(rf"{re.escape(name)}(?=[.\[]|$)", text)]
    match = _NAME.match(text)
    if match is None or follows != rest.startswith("."):
        raise override.refused("", f"given no path of a field, expected {EXAMPLE}")
    name = max(known, key=len, default=match[0])
    return name, text[len(name) :]
