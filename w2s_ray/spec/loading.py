"""From a YAML file to a `Spec`: every mistake as one line with the line of the file.

    file:line: field.path: given value, expected …; did you mean 'x'?

PyYAML's nodes keep the lines; the values built from them are validated, and an error's place in
the values leads back to its node (`messages`). All mistakes that one pass can see are told
together; a mistake in the YAML itself comes first, since nothing behind it can be trusted.
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
    """Read and check a spec; paths in it are absolute afterwards, and `store` is always set.

    Relative paths are seen from the spec's folder, `${NAME}` in a path is the environment
    variable. Raises `SpecError` (an `InputError`) with one line a mistake, and nothing else.
    """
    try:
        return _load(path)
    except RecursionError:
        raise SpecError([f"{path}: given values nested too deep to read"]) from None


@contextmanager
def located(path: Path) -> Iterator[None]:
    """An `InputError` that names its place in the spec at `path` is told with the line as well.

    For what only shows after loading (unreadable models, cells that coincide): it becomes a
    `SpecError`, `file:line: field.path: …`. One without a place goes through as it is.
    """
    try:
        yield
    except InputError as error:
        if not error.place:
            raise
        field, line = locate(_tree(path), error.place)
        top = str(error.place[0])
        named = str(error).startswith((f"{top}.", f"{top}:", f"{top}["))
        told = str(error) if named else f"{field}: {error}"
        raise SpecError([f"{path}:{line}: {told}"]) from error


def _load(path: Path) -> Spec:
    root = _tree(path)
    faults = list(_faults(root, ()))
    if faults:
        raise SpecError(f"{path}:{line}: {fault}" for line, fault in faults)
    try:
        content = yaml.SafeLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise SpecError([f"{path}:{_told(error)}"]) from None
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
    """The nodes of the file's only YAML document."""
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
        raise SpecError([f"{path}:{_told(error)}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError([f"{path}:{line}: not YAML: {error.reason}"]) from None
    if root is None:
        raise SpecError([f"{path}:1: given an empty file, expected a spec (study, data, …)"])
    return root


def _told(error: yaml.MarkedYAMLError) -> str:
    """`line: not YAML: …`, with the line where the broken value began if it is another."""
    mark, start = error.problem_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    began = f" (which began on line {start.line + 1})" if start and start.line + 1 < line else ""
    context = f"{error.context}{began}, " if error.context else ""
    return f"{line}: not YAML: {context}{error.problem}"


def _faults(node: yaml.Node, above: tuple[yaml.Node, ...]) -> Iterator[tuple[int, str]]:
    """(line, fault) of what YAML lets through: keys twice or not text, loops, impossible dates."""
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
            yield from _faults(item, (*above, node))
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            here = key.start_mark.line + 1
            if key.tag not in (_STRING, _MERGE):
                given = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                yield here, f"given the name {given}, expected text (write it in quotes)"
            elif key.value in first:
                there = first[key.value]
                yield here, f"given '{key.value}' a second time (first on line {there})"
            else:
                first[key.value] = here
            yield from _faults(value, (*above, node))
