"""JSON files that others wrote: regular ones, of bounded size and depth, in UTF-8."""

from pathlib import Path
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.foreign.json_text import parse_json
from w2s_ray.foreign.opening import read_bounded


def read_json_object(file: Path, limit_name: str, place: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        file: its path.
        limit_name: of the limit on its size (``limits``).
        place: what the file is, at the start of the error's line.

    Raises:
        InputError: it cannot be read, is too large or nested too deep, or is no JSON object.
    """
    try:
        content = read_bounded(file, limit_name)
    except InputError as error:
        raise InputError(f"{place}: {str(error).removeprefix(f'{file}: ')}") from error
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error.strerror or error}") from error
    try:
        value = parse_json(content.decode("utf-8-sig"), place)
    except InputError:
        raise
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{place}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{place}: expected a JSON object")
    return value
