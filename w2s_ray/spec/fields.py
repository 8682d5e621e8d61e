"""Types of single spec fields: how a value is parsed, bounded and, for a source, resolved.

Two design decisions. Every axis is a tuple, and a single value is read as a list of one, so code
behind the schema handles one shape only. And a path is resolved during validation, relative to the
folder in the validation context (set by ``loading.load``), so that a missing file is reported with
its line like any other mistake. Without a context (a ``Spec`` built in Python) paths are kept as
written.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from w2s_ray.foreign.limits import limit

GENERATORS = ("agreement",)
PROMPT_GENERATORS = ("constraints",)
Location = tuple[int | str, ...]
"""A field of the spec, as the path of names and indices that leads to it."""
Mistake = tuple[Location, Any, PydanticCustomError]
"""A location relative to the validated value, the value given there, and the error."""
T = TypeVar("T")


class Model(BaseModel):
    """Base of all spec models: frozen, no unknown fields, no silent type conversion."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def mistake(
    expected: str, names: tuple[str, ...] = (), near: str = "", given: str = ""
) -> PydanticCustomError:
    """An error that says what was expected.

    Args:
        expected: completes the sentence "expected …".
        names: valid names; the message suggests the one nearest to ``near``.
        near: the name that was given.
        given: shown in the message instead of the value, where the value alone says too little.
    """
    context = {"expected": expected, "names": names, "near": near, "given": given}
    return PydanticCustomError("mistake", "expected {expected}", context)


def refuse(mistakes: list[Mistake]) -> None:
    """Raise one ``ValidationError`` with all ``mistakes``, if there are any."""
    if mistakes:
        details = [InitErrorDetails(type=e, loc=loc, input=given) for loc, given, e in mistakes]
        raise ValidationError.from_exception_data("spec", details)


def as_list(value: Any) -> Any:
    """Read a single value as a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def as_names(value: Any) -> Any:
    """Read one or several labels as their names; null in a list is the empty one."""
    if value is None:
        return None
    return tuple(
        "" if item is None else str(item) if type(item) is int else item for item in as_list(value)
    )


def as_pairs(value: Any) -> Any:
    """Read ``[[weak, strong], …]``; a single ``[weak, strong]`` is a list of one pair.

    A chain ``[m1, m2, m3]`` is read alike.
    """
    items = as_list(value)
    if items and all(isinstance(item, str) for item in items):
        items = (items,)
    return tuple(tuple(item) if isinstance(item, list) else item for item in items)


def as_number(value: Any) -> Any:
    """Read ``1e-5``, which YAML 1.1 takes for text, as a number, and -0.0 as 0.0.

    Equal numbers are then identical.
    """
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        value = float(value)
    return value + 0.0 if isinstance(value, float) else value


def as_numbers(value: Any) -> Any:
    """Apply ``as_number`` at every depth, for fields whose content another library defines."""
    if isinstance(value, dict):
        return {name: as_numbers(inner) for name, inner in value.items()}
    return [as_numbers(inner) for inner in value] if isinstance(value, list) else as_number(value)


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: set[Any] = set()
    for position, value in enumerate(values):
        if value in seen:
            refuse([((position,), value, mistake("each value once"))])
        seen.add(value)
    return values


def distinct_members(members: tuple[str, ...]) -> tuple[str, ...]:
    for position, name in enumerate(members):
        if name in members[:position]:
            refuse([((position,), name, mistake("each model of an ensemble once"))])
    return members


def distinct_chains(chains: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any, ...], ...]:
    """As ``distinct``, where the order of an ensemble's models does not count."""
    seen: set[Any] = set()
    for position, (weak, *students) in enumerate(chains):
        chain = (frozenset(as_list(weak)), *students)
        if chain in seen:
            refuse([((position,), chains[position], mistake("each value once"))])
        seen.add(chain)
    return chains


def _linked(chain: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """A chain has a student, and only its weak end may be several models."""
    if len(chain) < 2:
        given = [members[0] if len(members) == 1 else list(members) for members in chain]
        raise mistake("a chain of two or more models", given=json.dumps(given))
    if len(chain) > limit("grid.chain"):
        raise mistake(f"a chain of at most {limit('grid.chain')} models", given=f"{len(chain):,}")
    for position, members in enumerate(chain[1:], start=1):
        if len(members) > 1:
            expected = "one model: only the first link of a chain may be an ensemble"
            refuse([((position,), list(members), mistake(expected))])
    return chain


Number = Annotated[float, BeforeValidator(as_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=1, le=limit("training.epochs"))]
SEEDS = 2**63
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=limit("spec.name"))]
"""Of a study, data set or model: it becomes part of names of files and columns."""
Trainable = Literal["full", "last_layer", "lora"]
Axis = Annotated[
    tuple[T, ...], BeforeValidator(as_list), Field(min_length=1), AfterValidator(distinct)
]
Weak = Annotated[
    tuple[str, ...],
    BeforeValidator(as_list),
    Field(min_length=1),
    AfterValidator(distinct_members),
]
"""The models of a weak side: one, or those of an ensemble."""
Pairs = Annotated[
    tuple[tuple[Weak, str], ...],
    BeforeValidator(as_pairs),
    Field(min_length=1),
    AfterValidator(distinct_chains),
]
Chains = Annotated[
    tuple[Annotated[tuple[Weak, ...], AfterValidator(_linked)], ...],
    BeforeValidator(as_pairs),
    Field(min_length=1),
    AfterValidator(distinct_chains),
]
"""Chains of a weak side and one student after the other, each student as a tuple of one."""
Combine = Literal["mean", "product", "learned"]


def _environment_variable(match: re.Match[str]) -> str:
    name = match[1]
    if name not in os.environ:
        raise mistake(f"the environment variable {name} to be set")
    return os.environ[name]


def _expand_environment(value: str) -> str:
    return re.sub(r"\$\{([^{}]*)\}", _environment_variable, value)


class _Scheme(NamedTuple):
    """A kind of source written ``name:body``.

    Attributes:
        name: before the colon.
        pattern: regular expression of the body.
        form: how the source is written, for messages.
        examples: complete sources of this scheme, for suggestions.
    """

    name: str
    pattern: str
    form: str
    examples: tuple[str, ...] = ()


_HUB = _Scheme("hf", r"[\w.-]+(/[\w.-]+)?", "hf:ORG/NAME")
_HUB_ROWS = _Scheme("hf", r"[\w.-]+(/[\w.-]+)*", "hf:ORG/NAME or hf:ORG/NAME/FOLDER")


def _generated(names: tuple[str, ...]) -> _Scheme:
    """The sources that are made by a generator of this package."""
    examples = tuple(f"generate:{name}" for name in names)
    return _Scheme("generate", "|".join(names), " or ".join(examples), examples)


_PACKAGE = _Scheme("pypi", r"[A-Za-z0-9][\w.-]*", "pypi:PACKAGE")


@dataclass(frozen=True)
class _Source:
    """A validator of a path, a URI, a source of a scheme, or ``word``.

    Attributes:
        expected: what the path has to be, for messages.
        allows: whether an absolute path is such.
        schemes: accepted besides paths and URIs.
        word: a value that is accepted as it is.
    """

    expected: str
    allows: Callable[[str], bool]
    schemes: tuple[_Scheme, ...] = ()
    word: str = ""

    def __call__(self, value: str, info: ValidationInfo) -> str:
        context = info.context or {}
        if value == self.word:
            return value
        if context:
            value = _expand_environment(value)
        prefix = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", value)
        if prefix is None:
            return self._local(value, context["folder"]) if context else value
        name, body = prefix[1], value[prefix.end() :]
        if body.startswith("//"):
            if re.search(r"\s", value):
                raise mistake("a URI without spaces (%20 stands for one)")
            return value
        scheme = next((scheme for scheme in self.schemes if scheme.name == name), None)
        if scheme is None:
            forms = ", ".join((*(scheme.form for scheme in self.schemes), "a URI"))
            prefixes = tuple(f"{scheme.name}:" for scheme in self.schemes)
            raise mistake(f"{forms} or {self.expected}", prefixes, f"{name}:")
        if not re.fullmatch(scheme.pattern, body):
            raise mistake(scheme.form, scheme.examples, value)
        return value

    def _local(self, value: str, folder: Path) -> str:
        """The absolute path of ``value``, relative to ``folder``."""
        path = os.path.normpath(folder.absolute() / os.path.expanduser(value))
        if not self.allows(path):
            parent = Path(path).parent
            siblings = sorted(parent.iterdir()) if os.access(parent, os.R_OK | os.X_OK) else []
            names = tuple(other.name for other in siblings if self.allows(str(other)))
            expected = f"{self.expected} (looked for {path})"
            hub = next((scheme for scheme in self.schemes if scheme.name == "hf"), None)
            if hub is not None and not names and re.fullmatch(r"[\w.-]+/[\w.-]+", value):
                raise mistake(f"{expected}, or hf:{value} for the Hub")
            raise mistake(expected, names, os.path.basename(path))
        return path


def _holds_a_model(path: str) -> bool:
    return os.path.isdir(path) or (os.path.isfile(path) and path.endswith(".gguf"))


def _can_be_a_folder(path: str) -> bool:
    return not os.path.isfile(path)


_ROWS = "an existing file or folder"
_MODEL = "an existing model folder or .gguf file"
_TOKENIZER = "bytes, an existing folder or .gguf file"

Text = Annotated[str, Field(min_length=1)]
DataFile = Annotated[Text, AfterValidator(_Source(_ROWS, os.path.exists, (_HUB_ROWS,)))]
DataSource = Annotated[
    Text, AfterValidator(_Source(_ROWS, os.path.exists, (_HUB_ROWS, _generated(GENERATORS))))
]
PromptSource = Annotated[
    Text,
    AfterValidator(_Source(_ROWS, os.path.exists, (_HUB_ROWS, _generated(PROMPT_GENERATORS)))),
]
ModelSource = Annotated[Text, AfterValidator(_Source(_MODEL, _holds_a_model, (_HUB, _PACKAGE)))]
Tokenizer = Annotated[
    Text, AfterValidator(_Source(_TOKENIZER, _holds_a_model, (_HUB, _PACKAGE), "bytes"))
]
StoreLocation = Annotated[Text, AfterValidator(_Source("a folder", _can_be_a_folder))]
