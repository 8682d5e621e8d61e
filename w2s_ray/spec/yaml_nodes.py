"""The YAML of a spec as nodes, which keep line numbers, within limits on what they may expand to.

Aliases and merges let a short text stand for billions of values. They are counted, written out, as
the nodes are composed, so that nothing is built from a text that exceeds a limit. What YAML accepts
but a spec must not have is refused here too: loops, duplicate keys, keys that are not text, values
that no reader makes sense of.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.foreign.opening import read_bounded
from w2s_ray.printable import printable
from w2s_ray.spec.messages import SpecError, nearest, place_of, shown

STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
# What no file name has and no encoding: YAML's escapes can write both.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_INTEGER_BITS = 128  # of what is read as a number; no field takes more than 63


class _Refused(Exception):
    """A node that a spec must not have.

    Attributes:
        place: where it begins (``messages.place_of``).
        reason: the rest of the message.
    """

    def __init__(self, mark: yaml.Mark, reason: str) -> None:
        super().__init__(reason)
        self.place, self.reason = place_of(mark), reason


class _Extent(NamedTuple):
    """How much a node stands for, aliases written out.

    Attributes:
        nodes: itself and all below it.
        levels: of which the node is one.
    """

    nodes: int
    levels: int


class _Bounded(Composer):
    """Counts what is composed.

    ``_nodes`` is the number of nodes so far, with those of each alias counted again, ``_depth`` the
    number of nodes that are being composed, one inside the other, and ``_deepest`` the deepest
    level since the current node began. ``_extents`` has the finished nodes by their identity.
    """

    def __init__(self) -> None:
        Composer.__init__(self)
        self._nodes = self._depth = self._deepest = 0
        self._extents: dict[int, _Extent] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes a node and all below it.

        Raises:
            _Refused: the node exceeds a limit, or is an alias of what contains it.
        """
        event = self.peek_event()  # type: ignore[attr-defined]
        mark = event.start_mark
        if parent is not None and len(parent.value) >= limit("spec.list"):
            raise _Refused(mark, exceeded("spec.list"))
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            assert node is not None
            if id(node) not in self._extents:
                reason = "given an alias of a value that contains it, expected no loop"
                raise _Refused(node.start_mark, reason)
            self._add(self._extents[id(node)], mark)
            return node
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > limit("spec.text"):
            raise _Refused(mark, exceeded("spec.text", len(event.value)))
        before, deepest, self._deepest = self._nodes, self._deepest, 0
        self._add(_Extent(1, 1), mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._extents[id(node)] = _Extent(self._nodes - before, self._deepest - self._depth)
        self._deepest = max(self._deepest, deepest)
        return node

    def _add(self, extent: _Extent, mark: yaml.Mark) -> None:
        self._nodes += extent.nodes
        self._deepest = max(self._deepest, self._depth + extent.levels)
        if self._nodes > limit("spec.nodes"):
            raise _Refused(mark, exceeded("spec.nodes"))
        if self._deepest > limit("spec.depth"):
            raise _Refused(mark, exceeded("spec.depth"))


class _Loader(_Bounded, yaml.SafeLoader):
    """PyYAML's safe loader."""

    def __init__(self, text: str, name: str) -> None:
        yaml.SafeLoader.__init__(self, text)
        _Bounded.__init__(self)
        self.name = name  # which every mark has


class _FastLoader(_Bounded, Resolver):
    """The same from the events of libyaml, which reads a spec ten times faster.

    Raises:
        ImportError: PyYAML was built without it.
    """

    def __init__(self, text: str, name: str) -> None:
        from yaml._yaml import CParser

        Resolver.__init__(self)
        _Bounded.__init__(self)
        stream = StringIO(text)
        stream.name = name
        events = CParser(stream)
        self.check_event, self.peek_event = events.check_event, events.peek_event
        self.get_event = events.get_event


def tree(path: Path) -> yaml.Node:
    """The nodes of the file, which has to be a single YAML document.

    Raises:
        SpecError: it is none, cannot be read, exceeds a limit, or has what a spec must not have.
    """
    text = _text(path)
    try:
        root = composed(text, str(path))
    except yaml.MarkedYAMLError as error:
        raise SpecError([f"{path}:{syntax_error(error)}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError([f"{path}:{line}: not YAML: {error.reason}"]) from None
    if root is None:
        raise SpecError([f"{path}:1: given an empty file, expected a spec (study, data, …)"])
    return root


def composed(text: str, name: str) -> yaml.Node | None:
    """The nodes of a text, which has to be a single YAML document; None if it is empty.

    Args:
        name: of what the text is, for messages: a file, or an option.

    Raises:
        SpecError: it exceeds a limit, or has a loop.
        yaml.MarkedYAMLError: it is not YAML.
        yaml.reader.ReaderError: it has a character that YAML does not allow.
    """
    try:
        with suppress(yaml.YAMLError, ImportError):  # PyYAML's own reader says more of mistakes
            return _FastLoader(text, name).get_single_node()
        return _Loader(text, name).get_single_node()
    except _Refused as refused:
        raise SpecError([f"{refused.place}: {refused.reason}"]) from None


def flattened(node: yaml.MappingNode) -> yaml.MappingNode:
    """A copy that has the fields that the mapping merges (``<<``), each once, as its own.

    Raises:
        yaml.MarkedYAMLError: it merges what is no mapping.
    """
    copy = yaml.MappingNode(node.tag, list(node.value), node.start_mark, node.end_mark)
    yaml.SafeLoader("").flatten_mapping(copy)
    return copy


def problems(root: yaml.Node) -> Iterator[tuple[yaml.Mark, str]]:
    """Place and message of what YAML accepts but a spec must not have.

    That is duplicate keys, keys that are not text, and scalars without a value: impossible dates,
    numbers of a size that no field takes, texts that cannot be
    encoded, tags of other languages.
    """
    reader = yaml.SafeLoader("")
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, yaml.ScalarNode):
            if reason := _unreadable(reader, node):
                yield node.start_mark, f"given {shown(node.value)}, expected {reason}"
        elif isinstance(node, yaml.SequenceNode):
            stack += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            yield from _wrong_keys(node)
            stack += (value for _, value in reversed(node.value))


def syntax_error(error: yaml.MarkedYAMLError) -> str:
    """The text ``line: not YAML: …``, with the line where the value began if it is another."""
    mark, start = error.problem_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    began = f" (which began on line {start.line + 1})" if start and start.line + 1 < line else ""
    context = f"{error.context}{began}, " if error.context else ""
    return f"{line}: not YAML: {context}{error.problem}"


def _text(path: Path) -> str:
    try:
        text = read_bounded(path, "spec.bytes").decode("utf-8")
    except FileNotFoundError:
        hint = nearest(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise SpecError([f"{path}: no such file, expected a spec{hint}"]) from None
    except OSError as error:
        raise SpecError([f"{path}: cannot be read ({error.strerror}), expected a spec"]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"{path}: byte {error.start} is not UTF-8, expected text"]) from None
    except InputError as error:
        raise SpecError([str(error)]) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unreadable(reader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    """What was expected of a scalar that has no value; "" if it has one."""
    if character := _NO_TEXT.search(node.value):
        return f"text without the character {printable(character[0])}"
    if node.tag == STRING:
        return ""
    try:
        value = reader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        return f"plain YAML ({error.problem})"
    except ValueError as error:
        return f"a readable value ({error})"
    except (ArithmeticError, AttributeError, LookupError):  # of PyYAML, where a tag does not fit
        return f"a value of the type {node.tag.rpartition(':')[2]}"
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        return f"a number below 2^{_INTEGER_BITS}"
    return ""


def _wrong_keys(node: yaml.MappingNode) -> Iterator[tuple[yaml.Mark, str]]:
    first: dict[str, int] = {}
    for key, _ in node.value:
        mark = key.start_mark
        if key.tag not in (STRING, _MERGE):
            given = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            yield mark, f"given the name {given}, expected text (write it in quotes)"
        elif _NO_TEXT.search(key.value):
            yield mark, f"given the name {shown(key.value)}, expected text that can be encoded"
        elif key.value in first:
            yield mark, f"given '{key.value}' a second time (first on line {first[key.value]})"
        else:
            first[key.value] = mark.line + 1
