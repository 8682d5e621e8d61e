"""Dimensions of models that have no formula, measured in another process and kept in the cache.

``models.dimensions`` builds the model of transformers without values and reads its numbers. That
needs torch, which a plan does not load; so it runs as a program, for each configuration once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from w2s_ray.catalog.digests import cache_folder
from w2s_ray.errors import InputError

PROGRAM = "w2s_ray.models.dimensions"
_VERSION = 1  # of what is measured; raised when the program gives other numbers


def measured(fields: Mapping[str, Any], layers: int | None, name: str) -> dict[str, Any]:
    """Fields of a ``Shape`` as JSON.

    Args:
        fields: all fields of a ``config.json``.
        layers: number of blocks that are kept; None: all.
        name: of the model, for messages.

    Raises:
        InputError: transformers has no such architecture, or the model is of another kind.
    """
    request = json.dumps({"fields": dict(fields), "layers": layers}, sort_keys=True)
    answer: dict[str, Any] = json.loads(_answer(request, kept(request)))
    if "refused" in answer:
        raise InputError(f"model {name}: {answer['refused']}")
    return answer


def kept(request: str) -> Path:
    """Where the answer to a request is kept."""
    try:
        library = version("transformers")
    except PackageNotFoundError:
        library = ""
    digest = sha256(f"{_VERSION} {library} {request}".encode()).hexdigest()
    return cache_folder() / "dimensions" / f"{digest[:32]}.json"


def keep(request: str, answer: str) -> None:
    """Keeps an answer, whole or not at all; without a cache it is computed again."""
    file = kept(request)
    draft = file.with_name(f"draft-{uuid4().hex}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(answer)
        os.replace(draft, file)


@cache
def _answer(request: str, file: Path) -> str:
    with suppress(OSError):
        return file.read_text()
    run = subprocess.run(
        [sys.executable, "-m", PROGRAM], input=request, capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        lines = run.stderr.strip().splitlines()
        refused = f"its shape cannot be computed: {lines[-1] if lines else run.returncode}"
        return json.dumps({"refused": refused})
    keep(request, run.stdout)
    return run.stdout
