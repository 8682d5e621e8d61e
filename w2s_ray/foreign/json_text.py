"""JSON of bounded depth: what is nested too deep is one line, not a ``RecursionError``.

What recursive functions read later (hashing, masking, writing) is then never too deep for them.
"""

import json
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit

_DEPTH = "json.depth"


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text.

    Args:
        text: bounded in length by the caller.
        where: the file, or file and line, at the start of the error's line.

    Raises:
        InputError: it is nested deeper than the limit, or has a number of absurd length.
        json.JSONDecodeError: it is not JSON; the caller words it.
        UnicodeDecodeError: bytes that are no text in UTF-8, -16 or -32.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise InputError(f"{where}: {exceeded(_DEPTH)}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:  # an integer of more digits than Python converts
        raise InputError(f"{where}: {error}") from None
    check_depth(value, where)
    return value


def check_depth(value: Any, where: str) -> None:
    """Refuses lists and mappings that are nested deeper than the limit on JSON.

    Raises:
        InputError: they are; its line begins with ``where``.
    """
    layer, depth = _nested([value]), 0
    while layer:
        depth += 1
        if depth > limit(_DEPTH):
            raise InputError(f"{where}: {exceeded(_DEPTH)}")
        layer = [inner for outer in layer for inner in _nested(outer)]


def _nested(value: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    """The lists and mappings directly inside one."""
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict | list)]
