"""From a YAML file to a ``Spec``; every mistake is one line that names the line of the file.

    file:line: field.path: given value, expected …; did you mean 'x'?

PyYAML's nodes keep line numbers; the values built from them are validated, and the location of an
error leads back to its node (``messages``). All mistakes of a valid YAML file are reported
together; a mistake in the YAML itself is reported alone, since the values after it are unreliable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic import ValidationError

from w2s_ray.errors import InputError
from w2s_ray.spec.expansion import expand
from w2s_ray.spec.messages import SpecError, lines, locate, nearest, shown
from w2s_ray.spec.schema import Spec

_STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def load(path: Path) -> Spec:
    """Read and validate a spec; afterwards its paths are absolute and ``store`` is set.

    Relative paths are relative to the spec's folder; ``${NAME}`` in a path is replaced by the
    environment variable.

    Raises:
        SpecError: with one line per mistake; no other exception is raised for bad input.
    """
    try:
        return _load(path)
    except RecursionError:
        raise SpecError([f"{path}: given values nested too deep to read"]) from None


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Add file and line to an ``InputError`` from the block that names a field of the spec.

    For mistakes that show only after loading (unreadable models, identical cells): the error
    becomes a ``SpecError``, ``file:line: field.path: …``. An error without a field is unchanged.
    """
    try:
        yield
    except InputError as error:
        if not error.place:
            raise
        field, line = locate(_tree(path), error.place)
        top = str(error.place[0])
        named = str(error).startswith((f"{top}.", f"{top}:", f"{top}["))
        message = str(error) if named else f"{field}: {error}"
        raise SpecError([f"{path}:{line}: {message}"]) from error


def _load(path: Path) -> Spec:
    root = _tree(path)
    problems = list(_problems(root, ()))
    if problems:
        raise SpecError(f"{path}:{line}: {problem}" for line, problem in problems)
    try:
        content = yaml.SafeLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise SpecError([f"{path}:{_syntax_error(error)}"]) from None
    if isinstance(content, dict) and content.get("store") is None:
        content["store"] = "../store"
    try:
        spec = Spec.model_validate(content, context={"folder": path.parent})
    except ValidationError as errors:
        raise SpecError(lines(str(path), root, errors)) from None
    with located(path):
        expand(spec)
    return spec


def _tree(path: Path) -> yaml.Node:
    """The nodes of the file, which has to be a single YAML document."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        hint = nearest(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise SpecError([f"{path}: no such file, expected a spec{hint}"]) from None
    except OSError as error:
        raise SpecError([f"{path}: cannot be read ({error.strerror}), expected a spec"]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"{path}: byte {error.start} is not UTF-8, expected text"]) from None
    except yaml.MarkedYAMLError as error:
        raise SpecError([f"{path}:{_syntax_error(error)}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError([f"{path}:{line}: not YAML: {error.reason}"]) from None
    if root is None:
        raise SpecError([f"{path}:1: given an empty file, expected a spec (study, data, …)"])
    return root


def _syntax_error(error: yaml.MarkedYAMLError) -> str:
    """The text ``line: not YAML: …``, with the line where the value began if it is another."""
    mark, start = error.problem_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    began = f" (which began on line {start.line + 1})" if start and start.line + 1 < line else ""
    context = f"{error.context}{began}, " if error.context else ""
    return f"{line}: not YAML: {context}{error.problem}"


def _problems(node: yaml.Node, above: tuple[yaml.Node, ...]) -> Iterator[tuple[int, str]]:
    """Line and message of what YAML accepts but a spec must not have.

    That is duplicate keys, keys that are not text, loops of aliases, and impossible dates.

    Args:
        node: where to look, at every depth.
        above: the nodes that contain ``node``.
    """
    line = node.start_mark.line + 1
    if node in above:
        yield line, "given an alias of a value that contains it, expected no loop"
    elif isinstance(node, yaml.ScalarNode):
        try:
            yaml.SafeLoader("").construct_document(node)
        except ValueError as error:
            yield line, f"given {shown(node.value)}, expected a readable value ({error})"
        except yaml.MarkedYAMLError as error:
            yield line, f"given {shown(node.value)}, expected plain YAML ({error.problem})"
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _problems(item, (*above, node))
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if key.tag not in (_STRING, _MERGE):
                given = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                yield key_line, f"given the name {given}, expected text (write it in quotes)"
            elif key.value in first:
                earlier = first[key.value]
                yield key_line, f"given '{key.value}' a second time (first on line {earlier})"
            else:
                first[key.value] = key_line
            yield from _problems(value, (*above, node))
