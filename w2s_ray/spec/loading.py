"""From a YAML file to a ``Spec``; every mistake is one line that names the line of the file.

    file:line: field.path: given value, expected …; did you mean 'x'?

PyYAML's nodes keep line numbers; the values built from them are validated, and the location of an
error leads back to its node (``messages``). All mistakes of a valid YAML file are reported
together; a mistake in the YAML itself is reported alone, since the values after it are unreliable.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic import ValidationError

from w2s_ray.errors import InputError
from w2s_ray.spec.expansion import expand
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.messages import SpecError, lines, locate, place_of
from w2s_ray.spec.overrides import Override, overridden
from w2s_ray.spec.schema import Spec
from w2s_ray.spec.yaml_nodes import problems, syntax_error, tree


def load(path: Path, overrides: Sequence[Override] = ()) -> Spec | GenerationSpec:
    """Read and validate a spec; afterwards its paths are absolute and ``store`` is set.

    Relative paths are relative to the spec's folder; ``${NAME}`` in a path is replaced by the
    environment variable.

    Args:
        overrides: values in place of those in the file.

    Raises:
        SpecError: with one line per mistake; no other exception is raised for bad input.
    """
    try:
        return _load(path, overrides)
    except RecursionError:
        raise SpecError([f"{path}: given values nested too deep to read"]) from None


@contextmanager
def located(path: Path, overrides: Sequence[Override] = ()) -> Iterator[None]:
    """Add file and line to an ``InputError`` from the block that names a field of the spec.

    For mistakes that show only after loading (unreadable models, identical cells): the error
    becomes a ``SpecError``, ``file:line: field.path: …``. An error without a field is unchanged.
    """
    try:
        yield
    except InputError as error:
        if not error.place:
            raise
        field, mark = locate(overridden(tree(path), overrides), error.place)
        top = str(error.place[0])
        named = str(error).startswith((f"{top}.", f"{top}:", f"{top}["))
        message = str(error) if named else f"{field}: {error}"
        raise SpecError([f"{place_of(mark)}: {message}"]) from error


def _load(path: Path, overrides: Sequence[Override]) -> Spec | GenerationSpec:
    root = tree(path)
    if wrong := list(problems(root)):
        raise SpecError(f"{place_of(mark)}: {problem}" for mark, problem in wrong)
    try:
        root = overridden(root, overrides)
        content = yaml.SafeLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise SpecError([f"{path}:{syntax_error(error)}"]) from None
    if isinstance(content, dict) and content.get("store") is None:
        content["store"] = "../store"
    generates = isinstance(content, dict) and content.get("task") == "generation"
    schema = GenerationSpec if generates else Spec
    try:
        spec = schema.model_validate(content, context={"folder": path.parent})
    except ValidationError as errors:
        raise SpecError(lines(str(path), root, errors, schema)) from None
    if isinstance(spec, Spec):
        with located(path, overrides):
            expand(spec)
    return spec
